"""SGLang's interface: rows that share a processor get what their requests ask for, each by its own tokens.

Two tests run SGLang's own code, read from the files of its wheel (`.ci/model-packages.txt`) without importing it: how a
processor travels, and how a batch is handed to it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import logging
import sys
import weakref
from array import array
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.errors import ConfigError
from semid.tokenizer_exports.serving.batch_masks import BatchMasker
from semid.tokenizer_exports.serving.requests import RequestOptions
from semid.tokenizer_exports.serving.sglang import CONSTRAINT_KEY, TrieLogitProcessor
from tests.helpers.real_models.packages import package_file
from tests.helpers.served_model import EOS, ITEM_IDS, OPTIONS, VOCABULARY, Reference, a_prompt, finite, other_catalog


class Request:
    """What is read of SGLang's Req, after all tokens so far have been fed."""

    def __init__(self, options, prompt, output=()):
        self.origin_input_ids = array("q", prompt)
        self.output_ids = array("q", output)
        self.eos_token_ids = set(EOS)
        self.kv = SimpleNamespace(kv_committed_len=len(prompt) + len(output))
        self.custom_params = None if options is None else options | {"__req__": weakref.proxy(self)}

    def take(self, token):
        self.output_ids.append(token)
        self.kv.kv_committed_len += 1


@pytest.fixture(autouse=True)
def environment(served_folder, monkeypatch):
    monkeypatch.setenv("SEMID_ARTIFACT", str(served_folder / "model"))
    monkeypatch.setenv("SEMID_FILTERS", str(served_folder / "filters"))


@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_rows_follow_their_requests_through_every_change_of_the_batch(served_catalog, seed):
    rng = np.random.default_rng(seed)
    reference, batch = Reference(served_catalog), []
    for _ in range(8):
        batch = [request for request in batch if rng.random() < 0.75]
        for _ in range(rng.integers(0, 4)):
            options = OPTIONS[rng.integers(len(OPTIONS))]
            batch.append((options, Request(options, a_prompt(rng, served_catalog))))
        rng.shuffle(batch)
        if not batch:
            continue
        before = torch.from_numpy(rng.normal(size=(len(batch), VOCABULARY)).astype(np.float32))
        processor = TrieLogitProcessor()  # SGLang makes a new one for each batch
        after = processor(before.clone(), [request.custom_params for _, request in batch])
        assert after.shape == before.shape
        for row, (options, request) in enumerate(batch):
            expected = reference.allowed(options, list(request.origin_input_ids), list(request.output_ids))
            assert finite(after[row]) == expected
            assert torch.equal(after[row, expected], before[row, expected])
            request.take(int(rng.choice(expected)))


def test_options_that_are_wrong_end_the_request_and_are_logged(caplog):
    requests = [Request({"semid_mode": "item"}, [5]), Request({"semid_filter": "sail"}, [5]), Request({}, [5])]
    after = TrieLogitProcessor()(torch.zeros(3, VOCABULARY), [each.custom_params for each in requests])
    assert finite(after[0]) == finite(after[1]) == EOS
    assert len(finite(after[2])) > len(EOS)
    assert "a request ends without items: semid_mode='item' should be one of" in caplog.text
    assert "a request ends without items: semid_filter='sail' is not a filter of this server" in caplog.text


def test_a_request_without_custom_params_is_left_alone_with_a_complaint(caplog):
    known = Request({"semid_mode": "items"}, [5])
    after = TrieLogitProcessor()(torch.zeros(2, VOCABULARY), [None, known.custom_params])
    assert len(finite(after[0])) == VOCABULARY > len(finite(after[1]))
    assert "a request without custom_params is not constrained. Send {} for no options." in caplog.text
    assert TrieLogitProcessor()(torch.zeros(2, VOCABULARY), None).isfinite().all()


def test_a_server_that_samples_before_it_tells_the_last_token_is_refused():
    request = Request({}, [5, 6], [7])
    request.kv.kv_committed_len += 1
    with pytest.raises(ConfigError, match="Start SGLang with --disable-overlap-schedule, or with SGLANG_ENABLE_DELAY"):
        TrieLogitProcessor()(torch.zeros(1, VOCABULARY), [request.custom_params])


def test_a_prompt_that_is_read_in_pieces_is_not_mistaken_for_that():
    request = Request({"semid_mode": "items"}, [5, 6, 7])
    request.kv.kv_committed_len = 2
    assert not TrieLogitProcessor()(torch.zeros(1, VOCABULARY), [request.custom_params]).isfinite().all()


def test_drafts_of_speculative_decoding_are_refused():
    request = Request({}, [5])
    with pytest.raises(ConfigError, match="speculative decoding gives a request several rows"):
        TrieLogitProcessor()(torch.zeros(2, VOCABULARY), [request.custom_params] * 2)


def test_what_a_request_carries_from_another_catalog_is_refused(served_catalog):
    options = {"semid_without": ITEM_IDS[:1]}
    foreign = BatchMasker(other_catalog(served_catalog), eos_ids=EOS).request_constraint(RequestOptions.of(options))
    request = Request(options | {CONSTRAINT_KEY: foreign}, [5])
    with pytest.raises(ConfigError, match="made from another trie, of 42 items too, but not the same"):
        TrieLogitProcessor()(torch.zeros(1, VOCABULARY), [request.custom_params])


def test_a_client_cannot_stop_the_server_by_the_name_under_which_constraints_are_kept(served_catalog):
    request = Request({"semid_mode": "items", CONSTRAINT_KEY: "nonsense"}, [5])
    after = TrieLogitProcessor()(torch.zeros(1, VOCABULARY), [request.custom_params])
    assert finite(after[0]) == Reference(served_catalog).allowed({"semid_mode": "items"}, [5], [])


def test_it_travels_as_its_name_alone():
    (sent,) = json.loads(TrieLogitProcessor.to_str()).values()
    assert bytes.fromhex(sent) == b"csemid.tokenizer_exports.serving.sglang\nTrieLogitProcessor\n."


# ---- against SGLang's own code


@pytest.fixture
def interface(monkeypatch):
    """sglang/srt/sampling/custom_logit_processor.py, with the standard library's JSON for the one it likes."""
    pytest.importorskip("dill", reason="needs dill, as SGLang does")
    path = package_file("sglang", "srt/sampling/custom_logit_processor.py")
    orjson = ModuleType("orjson")
    orjson.loads = json.loads
    monkeypatch.setitem(sys.modules, "orjson", orjson)
    spec = importlib.util.spec_from_file_location("sglang_custom_logit_processor", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sglang_reads_the_string_as_the_class(interface):
    processor = interface.CustomLogitProcessor.from_str(TrieLogitProcessor.to_str())
    assert type(processor) is TrieLogitProcessor
    mine, theirs = (arguments(each) for each in (TrieLogitProcessor, interface.CustomLogitProcessor))
    assert mine == theirs


def arguments(cls) -> list[str]:
    """Of the call."""
    return list(inspect.signature(cls.__call__).parameters)


def test_sglang_hands_over_the_rows_that_carry_the_processor(served_catalog):
    apply = function(package_file("sglang", "srt/layers/sampler.py"), "apply_custom_logit_processor")
    entry = function(package_file("sglang", "srt/sampling/sampling_batch_info.py"), "ProcessorEntry")
    carrying = [Request({"semid_mode": "items"}, [5]), Request({"semid_only": "red-hat"}, [6])]

    class Batch(SimpleNamespace):
        def __len__(self):
            return 4

    rows = [1, 3]
    batch = Batch(
        custom_params=[None, carrying[0].custom_params, {"other": 1}, carrying[1].custom_params],
        custom_logit_processor={7: entry(TrieLogitProcessor(), rows, torch.tensor(rows))},
        device="cpu",
    )
    logits = torch.zeros(4, VOCABULARY, dtype=torch.bfloat16)
    apply(logits, batch)
    reference = Reference(served_catalog)
    everything = list(range(VOCABULARY))
    assert [finite(row) for row in logits] == [
        everything,
        reference.allowed({"semid_mode": "items"}, [5], []),
        everything,
        reference.allowed({"semid_only": "red-hat"}, [6], []),
    ]


def function(path, name):
    """One function or class of a file that cannot be imported without all of SGLang."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if getattr(node, "name", None) == name)
    future = ast.parse("from __future__ import annotations\nimport dataclasses\nimport torch").body
    names = {"logger": logging.getLogger("sglang")}
    exec(compile(ast.Module([*future, found], []), str(path), "exec"), names)
    return names[name]
