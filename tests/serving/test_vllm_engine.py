"""A real vLLM on the CPU serves a small model with items: whatever requests ask for at once, each gets just that.

vLLM lives in an environment of its own (`.ci/vllm-packages.txt` says how to make it); `SEMID_VLLM_PYTHON` names that
environment's python. This file is also the program that it runs, `python test_vllm_engine.py OUT`: it starts the
server with the example of docs/serving.md, answers all requests in one batch, and writes what came out. On a CPU
vLLM takes its V1 model runner, so V2 meets the real interface here (`test_vllm.py`), but not the real engine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from semid import SemanticIDTokenizer

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("SEMID_VLLM_PYTHON")
LEVELS, EOS = 3, 0
SAMPLED = {"n": 8, "temperature": 1.0, "seed": 1}
CHAT = SAMPLED | {"max_tokens": 80, "n": 32}  # a random model begins an item every fifty tokens or so

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="SEMID_VLLM_PYTHON names no python with vLLM; see .ci/vllm-packages.txt"),
]

# Name -> sampling parameters, options; all of them run in one batch.
ASKED = {
    "an item": (SAMPLED, {"semid_mode": "items"}),
    "three items": (SAMPLED, {"semid_mode": "items", "semid_min_items": 3, "semid_repeats": 0}),
    "greedy": ({"temperature": 0}, {"semid_mode": "items", "semid_min_items": 4}),
    "only": (SAMPLED, {"semid_mode": "items", "semid_only": ["red-hat", "blue-hat"], "semid_max_items": 4}),
    "without": (SAMPLED, {"semid_mode": "items", "semid_without": ["red-hat", "blue-hat"], "semid_min_items": 6}),
    "sale": (SAMPLED, {"semid_mode": "items", "semid_filter": "sale", "semid_min_items": 5}),
    "cut off": (SAMPLED, {"semid_mode": "items"}),
    "chat": (CHAT, {}),
    "chat about the sale": (CHAT, {"semid_filter": ["sale"], "semid_without": ["red-shoe"]}),
    "two items in a chat": (CHAT, {"semid_max_items": 2, "semid_repeats": 0}),
    "unconstrained": (CHAT, {"semid_mode": "off"}),
    "other restrictions": ({"allowed_token_ids": [40, 41], "max_tokens": 4}, {}),
}
REFUSED = {
    "semid_mode='item' should be one of": ({}, {"semid_mode": "item"}),
    "semid_filter='sail' is not a filter of this server. It has: sale.": ({}, {"semid_filter": "sail"}),
    "the filter bans all 42 items": ({}, {"semid_only": ["nobody"]}),
    "allowed_token_ids and semid options": ({"allowed_token_ids": [5]}, {"semid_mode": "items"}),
}


def prompt_of(name: str, ids: SemanticIDTokenizer) -> str:
    """With other items in it; one ends inside an item."""
    item = ids.tokens("blue-shoe")
    return f"I have {item} and {item[: item.rindex('<')] if name == 'cut off' else ''}"


# ---- the program, in vLLM's environment


def main(out: Path) -> None:
    """In a folder with `shop-llm` and `filters`: run the page's example, then everything else in its server."""
    from vllm.exceptions import VLLMValidationError

    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```py\n(from vllm .*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(example, "docs/serving.md", "exec"), names)
    llm, sampling_params, ids = names["llm"], names["SamplingParams"], names["ids"]

    def parameters(sampling: dict, options: dict):
        return sampling_params(**{"max_tokens": 24} | sampling, extra_args=options)

    prompts = [prompt_of(name, ids) for name in ASKED]
    answers = llm.generate(prompts, [parameters(*asked) for asked in ASKED.values()], use_tqdm=False)
    answered = {
        name: [(list(one.token_ids), one.finish_reason) for one in answer.outputs]
        for name, answer in zip(ASKED, answers, strict=True)
    }
    errors = {}
    for reason, asked in REFUSED.items():
        try:
            llm.generate("I have ", parameters(*asked), use_tqdm=False)
        except VLLMValidationError as error:
            errors[reason] = str(error)
    out.write_text(json.dumps({"example": sorted(names["items"]), "answered": answered, "errors": errors}))


# ---- the tests


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    from tests.helpers.served_model import save_model

    folder = tmp_path_factory.mktemp("shop")
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def ids(shop):
    return SemanticIDTokenizer.from_pretrained(shop / "shop-llm")


@pytest.fixture(scope="module")
def served(shop):
    """What the program writes; takes about a minute, nearly all of it vLLM's start."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "SEMID_ARTIFACT": "shop-llm",
        "SEMID_FILTERS": "filters",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = subprocess.run(
        [PYTHON, __file__, "out.json"],
        cwd=shop,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return json.loads((shop / "out.json").read_text())


@pytest.fixture
def answered(served, ids):
    """Name -> for each sample: its items (None where there is none), its token ids, why it ended."""
    return {
        name: [([found.item_id for found in ids.parse(tokens)], tokens, reason) for tokens, reason in samples]
        for name, samples in served["answered"].items()
    }


def items_of(samples) -> list[str | None]:
    return [item for items, _, _ in samples for item in items]


def test_the_pages_example_gives_items_of_the_sale_that_were_not_bought(served):
    from tests.helpers.served_model import SALE

    assert served["example"]
    assert set(served["example"]) <= set(SALE) - {"red-shoe", "blue-shoe"}


def test_items_alone_are_whole_and_as_many_as_asked_for(answered):
    for name, count in {"an item": 1, "three items": 3, "greedy": 4, "without": 6, "sale": 5}.items():
        for items, tokens, reason in answered[name]:
            assert len(items) == count and None not in items, name
            assert len(tokens) == count * LEVELS + 1 and tokens[-1] == EOS and reason == "stop", name
    assert {len(items) for items, _, _ in answered["only"]} == {4}


def test_samples_of_a_request_differ(answered):
    assert len(set(items_of(answered["an item"]))) > 1


def test_each_request_of_a_batch_has_its_own_filter(answered):
    from tests.helpers.served_model import ITEM_IDS, SALE

    hats = {"red-hat", "blue-hat"}
    assert set(items_of(answered["only"])) == hats
    assert set(items_of(answered["without"])) <= set(ITEM_IDS) - hats
    assert set(items_of(answered["sale"])) <= set(SALE)
    assert set(items_of(answered["three items"])) - set(SALE)


def test_no_item_comes_twice_where_none_may(answered):
    for items, _, _ in answered["three items"] + answered["two items in a chat"]:
        assert len(set(items)) == len(items)


def test_an_item_that_the_prompt_cuts_off_is_finished_first(answered, ids):
    begun = ids.codes[list(ids.item_ids).index("blue-shoe")][: LEVELS - 1]
    ends = {int(codes[-1]) for codes in ids.codes if (codes[: LEVELS - 1] == begun).all()}
    last_level = ids.base + sum(ids.sizes[: LEVELS - 1])
    for _, tokens, _ in answered["cut off"]:
        assert tokens[0] - last_level in ends


def in_text(samples, ids) -> list[list[str | None]]:
    """The items of each sample; None for what is none, but for one that `max_tokens` cut off.

    Markers that stand alone are a token like any other here, and left out.
    """
    lists = []
    for _, tokens, reason in samples:
        found = ids.parse([token if token < ids.base + sum(ids.sizes) else EOS for token in tokens])
        cut_off = reason == "length" and found and found[-1].codes is None and found[-1].end == len(tokens)
        lists.append([one.item_id for one in (found[:-1] if cut_off else found)])
    return lists


def test_every_item_in_free_text_is_real(answered, ids):
    chat = in_text(answered["chat"], ids)
    assert sum(map(len, chat)) > 20 and all(None not in items for items in chat)
    assert any(None in items for items in in_text(answered["unconstrained"], ids))  # or the model knows them by heart


def test_filters_and_counts_hold_in_free_text(answered, ids):
    from tests.helpers.served_model import SALE

    for items in in_text(answered["chat about the sale"], ids):
        assert set(items) <= set(SALE) - {"red-shoe"}
    counts = [len(items) for items in in_text(answered["two items in a chat"], ids)]
    assert max(counts) == 2


def test_requests_that_restrict_tokens_in_another_way_are_left_alone(answered):
    ((_, tokens, _),) = answered["other restrictions"]
    assert set(tokens) <= {40, 41}


def test_requests_that_cannot_be_fulfilled_are_refused_and_the_server_lives_on(served):
    assert served["errors"].keys() == REFUSED.keys()
    for reason, error in served["errors"].items():
        assert reason in error


def test_both_classes_do_the_same_against_the_real_interfaces():
    done = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/serving/test_vllm.py"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\b1 skipped\b", done.stdout), "it ran against stand-ins"  # what only is for their absence


if __name__ == "__main__":
    main(Path(sys.argv[1]))
