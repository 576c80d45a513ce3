"""vLLM's two interfaces: whatever enters, leaves, moves and is sampled, each row may take what its request alone could.

Without vLLM the interfaces are stand-ins with the same names, fields and signatures. In vLLM's own environment this
file runs against the real ones (`test_vllm_engine.py` does that).
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError, DependencyError
from semid.tokenizer_exports.serving.batch_masks import BatchMasker, constraints_of
from semid.tokenizer_exports.serving.requests import RequestOptions
from tests.helpers.served_model import (
    BASE,
    EOS,
    ITEM_IDS,
    OPTIONS,
    SALE,
    VOCABULARY,
    Reference,
    a_prompt,
    finite,
    other_catalog,
)

REAL = importlib.util.find_spec("vllm") is not None


# ---- stand-ins for vLLM


class V1(ABC):
    """vllm.v1.sample.logits_processor.LogitsProcessor"""

    @classmethod  # noqa: B027
    def validate_params(cls, sampling_params): ...

    @abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...

    @abstractmethod
    def apply(self, logits): ...

    @abstractmethod
    def is_argmax_invariant(self): ...

    @abstractmethod
    def update_state(self, batch_update): ...


class V2(ABC):
    """vllm.v1.worker.gpu.sample.logits_processor.LogitsProcessor"""

    def __init__(self, vllm_config, req_states): ...  # noqa: B027

    @classmethod  # noqa: B027
    def validate_params(cls, sampling_params): ...

    def add_request(self, req_idx, sampling_params): ...  # noqa: B027

    def apply_staged_writes(self): ...  # noqa: B027

    @abstractmethod
    def apply(self, logits, ctx): ...


class MoveDirectionality(enum.Enum):
    UNIDIRECTIONAL = enum.auto()
    SWAP = enum.auto()


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: Any
    added: Any
    moved: Any


@dataclass(frozen=True)
class LogitsProcRequestState:
    device: Any
    max_num_reqs: int
    vocab_size: int
    all_token_ids: Any
    prompt_len: Any
    prefill_len: Any
    total_len: Any


@dataclass(frozen=True)
class LogitsContext:
    expanded_idx_mapping: Any
    idx_mapping: Any
    idx_mapping_np: Any
    expanded_local_pos: Any
    input_ids: Any
    pos: Any
    seq_lens_upper_bound_np: Any


STAND_INS = {
    "vllm": {},
    "vllm.v1": {},
    "vllm.v1.sample": {},
    "vllm.v1.sample.logits_processor": {
        "LogitsProcessor": V1,
        "MoveDirectionality": MoveDirectionality,
        "BatchUpdate": BatchUpdate,
    },
    "vllm.v1.worker": {},
    "vllm.v1.worker.gpu": {},
    "vllm.v1.worker.gpu.sample": {},
    "vllm.v1.worker.gpu.sample.logits_processor": {
        "LogitsProcessor": V2,
        "LogitsContext": LogitsContext,
        "LogitsProcRequestState": LogitsProcRequestState,
    },
}


@pytest.fixture(scope="module")
def vllm():
    """The two interfaces, real or not, and our module made for them."""
    with pytest.MonkeyPatch.context() as patch:
        if not REAL:
            for name, content in STAND_INS.items():
                module = ModuleType(name)
                module.__dict__.update(content)
                patch.setitem(sys.modules, name, module)
        v1 = importlib.import_module("vllm.v1.sample.logits_processor")
        v2 = importlib.import_module("vllm.v1.worker.gpu.sample.logits_processor")
        patch.delitem(sys.modules, "semid.tokenizer_exports.serving.vllm", raising=False)
        ours = importlib.import_module("semid.tokenizer_exports.serving.vllm")
        yield SimpleNamespace(
            ours=ours,
            BatchUpdate=v1.BatchUpdate,
            SWAP=v1.MoveDirectionality.SWAP,
            ONE_WAY=v1.MoveDirectionality.UNIDIRECTIONAL,
            V1=v1.LogitsProcessor,
            V2=v2.LogitsProcessor,
            Context=v2.LogitsContext,
            States=v2.LogitsProcRequestState,
        )
        sys.modules.pop("semid.tokenizer_exports.serving.vllm", None)


@pytest.fixture(autouse=True)
def environment(served_folder, monkeypatch):
    monkeypatch.setenv("SEMID_FILTERS", str(served_folder / "filters"))
    monkeypatch.delenv("SEMID_ARTIFACT", raising=False)


def config(folder, vocab_size=VOCABULARY, generation=EOS):
    """What is read of a VllmConfig."""
    model = SimpleNamespace(
        model=str(folder / "model"),
        tokenizer=str(folder / "model"),
        get_vocab_size=lambda: vocab_size,
        try_get_generation_config=lambda: {} if generation is None else {"eos_token_id": generation},
        hf_text_config=SimpleNamespace(eos_token_id=3),
    )
    return SimpleNamespace(model_config=model)


def params(options=None, **others):
    """What is read of SamplingParams."""
    none = {"structured_outputs": None, "allowed_token_ids": None, "bad_words": None, "min_tokens": 0}
    return SimpleNamespace(extra_args=options, **none | others)


@pytest.mark.skipif(not REAL, reason="vLLM is not installed")
def test_the_stand_ins_have_the_methods_and_fields_of_the_real_interfaces(vllm):
    for stand_in, real in ((V1, vllm.V1), (V2, vllm.V2)):
        methods = [
            name for name, value in vars(stand_in).items() if callable(getattr(stand_in, name)) and name[0] != "_"
        ]
        for name in [*methods, "__init__"]:
            mine, theirs = (inspect.signature(getattr(each, name)).parameters for each in (stand_in, real))
            assert list(mine) == list(theirs), name
        assert stand_in.__abstractmethods__ == real.__abstractmethods__
    for stand_in, real in (
        (BatchUpdate, vllm.BatchUpdate), (LogitsProcRequestState, vllm.States), (LogitsContext, vllm.Context)
    ):  # fmt: skip
        assert [field.name for field in fields(stand_in)] == [field.name for field in fields(real)]


# ---- V1


@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_v1_rows_follow_their_requests_through_every_change_of_the_batch(vllm, served_folder, served_catalog, seed):
    rng = np.random.default_rng(seed)
    processor = vllm.ours.TrieLogitsProcessorV1(config(served_folder), torch.device("cpu"), False)
    reference = Reference(served_catalog)
    batch: list[tuple] = []  # of each row: options, prompt, output
    for _ in range(8):
        update = change(rng, vllm, batch, served_catalog)
        processor.update_state(update)
        constrained = {row for row, (options, *_) in enumerate(batch) if options != {"semid_mode": "off"}}
        assert processor.requests.keys() == constrained  # nothing is kept of those that left
        before = torch.from_numpy(rng.normal(size=(len(batch), VOCABULARY)).astype(np.float32))
        after = processor.apply(before.clone())
        for row, (options, prompt, output) in enumerate(batch):
            expected = reference.allowed(options, prompt, output)
            assert finite(after[row]) == expected
            assert torch.equal(after[row, expected], before[row, expected])
            output.append(int(rng.choice(expected)))


def change(rng, vllm, batch, catalog):
    """Some requests leave, others enter, and rows move as in vLLM: into free rows from the end, or swapped."""
    leaving = [row for row in range(len(batch)) if rng.random() < 0.25]
    removed, added, moved = sorted(leaving, reverse=True), [], []
    for _ in range(rng.integers(0, 4)):
        options = OPTIONS[rng.integers(len(OPTIONS))]
        request = (options, a_prompt(rng, catalog), [])
        row = removed.pop() if removed else len(batch)
        if row == len(batch):
            batch.append(request)
        else:
            batch[row] = request
        added.append((row, params(options), request[1] or None, request[2]))
    gaps = sorted(removed)
    while gaps:
        last = len(batch) - 1
        if last in gaps:
            gaps.remove(last)
        else:
            gap = gaps.pop(0)
            batch[gap] = batch[last]
            moved.append((last, gap, vllm.ONE_WAY))
        batch.pop()
    if len(batch) > 1 and rng.random() < 0.5:
        one, other = (int(row) for row in rng.choice(len(batch), 2, replace=False))
        batch[one], batch[other] = batch[other], batch[one]
        moved.append((one, other, vllm.SWAP))
    if not (removed or added or moved):
        return None
    return vllm.BatchUpdate(batch_size=len(batch), removed=removed, added=added, moved=moved)


def test_v1_reads_tokens_when_they_are_known_and_not_when_rows_change(vllm, served_folder, served_catalog):
    """Asynchronous scheduling: -1 stands in the list during update_state, and the token before apply."""
    processor = vllm.ours.TrieLogitsProcessorV1(config(served_folder), torch.device("cpu"), False)
    first, second, _ = served_catalog.ids.vocabulary.token_ids(served_catalog.ids.codes[:1], BASE)[0].tolist()
    output: list[int] = []
    added = [(0, params({"semid_mode": "items"}), [5], output)]
    processor.update_state(vllm.BatchUpdate(batch_size=1, removed=[], added=added, moved=[]))
    output.append(-1)
    processor.update_state(None)
    unknown = finite(processor.apply(torch.zeros(1, VOCABULARY))[0])
    output[-1] = first
    known = finite(processor.apply(torch.zeros(1, VOCABULARY))[0])
    assert unknown == Reference(served_catalog).allowed({"semid_mode": "items"}, [5], [])
    assert known == Reference(served_catalog).allowed({"semid_mode": "items"}, [5], [first])
    assert second in known


def test_v1_may_change_the_likeliest_token(vllm, served_folder):
    assert not vllm.ours.TrieLogitsProcessorV1(config(served_folder), torch.device("cpu"), False).is_argmax_invariant()


# ---- V2


class Slots:
    """vLLM's V2 model runner as a processor sees it: tokens by slot, rows in any order, drafts in the input alone."""

    def __init__(self, vllm, folder, n_slots=6, length=64):
        numbers = lambda *shape: torch.full(shape, -7, dtype=torch.int32)  # noqa: E731 - rubbish where nothing is set
        self.tokens, self.prompts = numbers(n_slots, length), torch.zeros(n_slots, dtype=torch.int32)
        self.free, self.requests = list(range(n_slots)), {}
        backed = SimpleNamespace(gpu=self.prompts, np=self.prompts.numpy())
        states = vllm.States(
            device=torch.device("cpu"),
            max_num_reqs=n_slots,
            vocab_size=VOCABULARY,
            all_token_ids=SimpleNamespace(gpu=self.tokens),
            prompt_len=backed,
            prefill_len=backed,
            total_len=None,
        )
        self.vllm = vllm
        self.processor = vllm.ours.TrieLogitsProcessorV2(config(folder), states)

    def add(self, options, prompt) -> bool:
        slot = self.free.pop()
        self.requests[slot] = (options, prompt, [])
        self.prompts[slot] = len(prompt)
        self.tokens[slot, : len(prompt)] = torch.tensor(prompt)
        return self.processor.add_request(slot, params(options))

    def remove(self, slot) -> None:
        del self.requests[slot]
        self.free.append(slot)

    def apply(self, logits, slots, drafts):
        """One step: of each slot's request, the rows of its last token and of its drafts."""
        mapping, local, fed, pos, bounds = [], [], [], [], []
        for slot, drafted in zip(slots, drafts, strict=True):
            _, prompt, output = self.requests[slot]
            known = [*prompt, *output]
            self.tokens[slot, : len(known)] = torch.tensor(known)
            for number, token in enumerate([known[-1], *drafted]):
                mapping.append(slot)
                local.append(number)
                fed.append(token)
                pos.append(len(known) - 1 + number)
            bounds.append(len(known) + len(drafted))
        self.processor.apply_staged_writes()
        context = self.vllm.Context(
            expanded_idx_mapping=torch.tensor(mapping, dtype=torch.int32),
            idx_mapping=torch.tensor(slots, dtype=torch.int32),
            idx_mapping_np=np.array(slots, np.int32),
            expanded_local_pos=torch.tensor(local, dtype=torch.int32),
            input_ids=torch.tensor(fed, dtype=torch.int32),
            pos=torch.tensor(pos, dtype=torch.int64),
            seq_lens_upper_bound_np=np.array(bounds, np.int32),
        )
        return self.processor.apply(logits, context)


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.booleans())
def test_v2_rows_obey_their_slots_whatever_was_there_before(vllm, served_folder, served_catalog, seed, speculative):
    rng = np.random.default_rng(seed)
    runner, reference = Slots(vllm, served_folder), Reference(served_catalog)
    for _ in range(8):
        for slot in [slot for slot in runner.requests if rng.random() < 0.25]:
            runner.remove(slot)
        for _ in range(rng.integers(0, 3)):
            if runner.free:
                options = OPTIONS[rng.integers(len(OPTIONS))]
                constrained = runner.add(options, [4, *a_prompt(rng, served_catalog)])
                assert constrained == (RequestOptions.of(options).mode != "off")
        slots = [int(slot) for slot in rng.permutation(sorted(runner.requests))]
        if not slots:
            continue
        drafts = [drafted(rng, reference, runner.requests[slot]) if speculative else [] for slot in slots]
        rows = sum(1 + len(each) for each in drafts)
        before = torch.from_numpy(rng.normal(size=(rows, VOCABULARY)).astype(np.float32))
        after = iter(runner.apply(before.clone(), slots, drafts))
        for slot, each in zip(slots, drafts, strict=True):
            options, prompt, output = runner.requests[slot]
            for number in range(len(each) + 1):
                expected = reference.allowed(options, prompt, [*output, *each[:number]])
                assert finite(next(after)) == expected
            output += [*each, int(rng.choice(expected))]


def drafted(rng, reference, request) -> list[int]:
    """Some tokens that the request could take."""
    options, prompt, output = request
    tokens: list[int] = []
    for _ in range(rng.integers(0, 4)):
        tokens.append(int(rng.choice(reference.allowed(options, prompt, [*output, *tokens]))))
    return tokens


# ---- both


def test_a_request_with_a_filter_of_another_catalog_is_refused(vllm, served_folder, served_catalog):
    masker = BatchMasker(other_catalog(served_catalog), eos_ids=EOS)
    foreign = masker.request_constraint(RequestOptions(without=(ITEM_IDS[0],)))
    v1 = vllm.ours.TrieLogitsProcessorV1(config(served_folder), torch.device("cpu"), False)
    v1.requests[0] = foreign, [5], []
    with pytest.raises(ConfigError, match="made from another trie, of 42 items too, but not the same"):
        v1.apply(torch.zeros(1, VOCABULARY))
    runner = Slots(vllm, served_folder)
    runner.add({"semid_without": ITEM_IDS[:1]}, [5])
    (slot,) = runner.requests
    runner.processor.slots[slot] = foreign
    with pytest.raises(ConfigError, match="made from another trie, of 42 items too, but not the same"):
        runner.apply(torch.zeros(1, VOCABULARY), [slot], [[]])


@pytest.fixture(params=["V1", "V2"])
def processor_class(request, vllm):
    return getattr(vllm.ours, f"TrieLogitsProcessor{request.param}")


def make(cls, config):
    if cls.__name__.endswith("V1"):
        return cls(config, torch.device("cpu"), False)
    return cls(config, SimpleNamespace(device=torch.device("cpu"), max_num_reqs=4))


def test_each_class_is_found_by_its_name_and_is_of_its_interface_alone(vllm):
    for name, mine, other in (("V1", vllm.V1, vllm.V2), ("V2", vllm.V2, vllm.V1)):
        cls = getattr(importlib.import_module("semid.tokenizer_exports.serving.vllm"), f"TrieLogitsProcessor{name}")
        assert issubclass(cls, mine) and not issubclass(cls, other)
        assert not cls.__abstractmethods__


@pytest.mark.parametrize(
    ("options", "others", "message"),
    [
        ({"semid_mode": "item"}, {}, "semid_mode='item' should be one of text, items, off."),
        ({"semid_min_items": 3, "semid_max_items": 2}, {}, "min_items=3 should be at most max_items=2."),
        ({"semid_mode": "items"}, {"allowed_token_ids": [4]}, "allowed_token_ids and semid options were both given"),
        ({"semid_mode": "items"}, {"min_tokens": 4}, "min_tokens and semid options were both given"),
        ({"semid_without": ITEM_IDS[1:2]}, {"bad_words": ["a"]}, "bad_words and semid options were both given"),
    ],
)
def test_a_request_that_cannot_be_fulfilled_is_refused_with_the_reason(processor_class, options, others, message):
    with pytest.raises(ConfigError, match=message):
        processor_class.validate_params(params(options, **others))


def test_filters_are_checked_at_once_where_the_server_knows_the_catalog(processor_class, served_folder, monkeypatch):
    wrong = {
        "bans all 42 items": {"semid_only": ["nobody"]},
        "'sail' is not a filter of this server. It has: sale": {"semid_filter": "sail"},
        r"'\.\./model/ids' is not a filter": {"semid_filter": "../model/ids"},
    }
    for options in wrong.values():
        processor_class.validate_params(params(options))  # nobody can tell
    monkeypatch.setenv("SEMID_ARTIFACT", str(served_folder / "model"))
    for message, options in wrong.items():
        with pytest.raises(ConfigError, match=message):
            processor_class.validate_params(params(options))
    processor_class.validate_params(params({"semid_without": [*SALE[:2], "unheard-of"]}))
    processor_class.validate_params(params())


def test_a_model_without_room_for_the_tokens_is_refused_at_the_start(processor_class, served_folder):
    with pytest.raises(ConfigError, match="the model has 40 tokens, the artifact's end at 44"):
        make(processor_class, config(served_folder, vocab_size=40))


def test_end_tokens_are_those_of_the_generation_config_or_else_of_the_model(processor_class, served_folder):
    eos = {generation: make(processor_class, config(served_folder, generation=generation)) for generation in (None, 2)}
    constraints = constraints_of(RequestOptions(mode="items"))
    ends = {key: each.masker._token_masker(constraints).eos_ids for key, each in eos.items()}
    assert ends == {None: (3,), 2: (2,)}


def test_requests_that_restrict_tokens_in_another_way_are_left_alone(vllm, served_folder):
    processor = vllm.ours.TrieLogitsProcessorV2(
        config(served_folder), SimpleNamespace(device=torch.device("cpu"), max_num_reqs=4)
    )
    assert processor.add_request(0, params())
    for others in ({"allowed_token_ids": [4]}, {"structured_outputs": object()}, {"bad_words": ["a"]}):
        assert not processor.add_request(0, params(**others))
    assert processor.add_request(0, params(min_tokens=4))  # text can go on


@pytest.mark.skipif(REAL, reason="vLLM is installed")
def test_without_vllm_the_error_says_where_it_belongs(monkeypatch):
    monkeypatch.delitem(sys.modules, "semid.tokenizer_exports.serving.vllm", raising=False)
    for name in STAND_INS:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match="needs vLLM 0.32 or newer"):
        importlib.import_module("semid.tokenizer_exports.serving.vllm")
