"""A hundred thousand generated items, every way there is to generate them, and not one that may not be there.

What is allowed is looked up in plain Python sets, never in the trie under test. A random model, whose own wishes have
nothing to do with the catalog, is the hardest case: without the constraint not one of its IDs would be real.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from semid.tokenizer_exports.generate import TrieLogitsProcessor, generate_items
from semid.trie import Trie
from tests.helpers.tiny_models import new_model

TEXT, SIZES, N = 300, (16, 48, 7, 32), 4_000
LEVELS, BATCH, LONGEST = len(SIZES), 8, 20
SHARES = {"sampling": 44_000, "lists": 16_000, "beams": 10_000, "trees": 30_000}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    keys = np.random.default_rng(0).choice(np.prod(SIZES), N, replace=False)
    return np.stack(np.unravel_index(keys, SIZES), axis=1)


@pytest.fixture(scope="module")
def trie(codes) -> Trie:
    return Trie.from_codes(codes, SIZES, base=TEXT)


@pytest.fixture(scope="module")
def model():
    return new_model("qwen3 tied", TEXT + sum(SIZES))


def batches(trie: Trie) -> Iterator[tuple[dict[str, torch.Tensor], list, list[set[int]]]]:
    """Without end: padded prompts that mention items, filters (or None) of each prompt, and the rows they admit."""
    rng = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    item_tokens = torch.from_numpy(TEXT + offsets + trie.codes_of(np.arange(N)))
    while True:
        ids = torch.full((BATCH, LONGEST), 0)
        mask = torch.zeros_like(ids)
        filters, admitted = [], []
        for prompt, length in enumerate(rng.integers(1, LONGEST + 1, BATCH)):
            ids[prompt, -length:] = torch.from_numpy(rng.integers(1, TEXT, length))
            if length > 2 * LEVELS:
                ids[prompt, -LEVELS - 3 : -3] = item_tokens[rng.integers(N)]
            mask[prompt, -length:] = 1
            wanted = rng.choice([1, 3, 40, N // 2, N])
            rows = rng.choice(N, wanted, replace=False)
            filters.append(None if wanted == N else trie.filter(only=rows))
            admitted.append(set(rows.tolist()))
        yield {"input_ids": ids, "attention_mask": mask}, filters, admitted


def rows_of(codes: np.ndarray) -> dict[tuple[int, ...], int]:
    return {tuple(item): row for row, item in enumerate(codes.tolist())}


def check(tokens: torch.Tensor, catalog: dict, admitted: set[int]) -> list[int]:
    """The rows of whole IDs as token ids [n, L]; every one of them has to be admitted."""
    found = []
    for item in tokens.tolist():
        first = TEXT
        item_codes = []
        for token, size in zip(item, SIZES, strict=True):
            item_codes.append(token - first)
            first += size
        row = catalog.get(tuple(item_codes))
        assert row is not None, f"{item} is no item"
        assert row in admitted, f"{item} is filtered out"
        found.append(row)
    return found


def test_a_hundred_thousand_items_are_all_real_and_admitted(model, trie, codes):
    catalog, made = rows_of(codes), Counter()
    torch.manual_seed(0)
    for prompts, filters, admitted in batches(trie):
        if all(made[way] >= wanted for way, wanted in SHARES.items()):
            break
        if made["sampling"] < SHARES["sampling"]:
            sequences = 64
            out = model.generate(
                **prompts, do_sample=True, temperature=2.0, top_k=0, num_return_sequences=sequences,
                max_new_tokens=LEVELS, eos_token_id=None, pad_token_id=0,
                logits_processor=[TrieLogitsProcessor(trie, filter=filters)],
            )  # fmt: skip
            for one, rows in zip(out[:, LONGEST:].view(BATCH, sequences, LEVELS), admitted, strict=True):
                made["sampling"] += len(check(one, catalog, rows))
        if made["lists"] < SHARES["lists"]:  # several items a sequence, none twice, until none is left
            n_items = 6
            processor = TrieLogitsProcessor(
                trie, 0, filter=filters, prompt_length=LONGEST, min_items=n_items, max_items=n_items, repeats=False
            )
            out = model.generate(
                **prompts, do_sample=True, top_k=0, num_return_sequences=32, max_new_tokens=n_items * LEVELS + 1,
                eos_token_id=0, pad_token_id=0, logits_processor=[processor],
            )[:, LONGEST:].view(BATCH, 32, -1)  # fmt: skip
            for one, rows in zip(out, admitted, strict=True):
                expected = min(n_items, len(rows))
                for sequence in one:
                    items = check(sequence[: expected * LEVELS].view(-1, LEVELS), catalog, rows)
                    assert len(set(items)) == expected
                    assert (sequence[expected * LEVELS :] == 0).all()  # ended
                    made["lists"] += expected
        if made["beams"] < SHARES["beams"]:
            beams = 50
            out = model.generate(
                **prompts, num_beams=beams, num_return_sequences=beams, do_sample=False, max_new_tokens=LEVELS,
                length_penalty=0.0, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                output_scores=True, logits_processor=[TrieLogitsProcessor(trie, filter=filters)],
            )  # fmt: skip
            real = (out.sequences_scores > -1e8).view(BATCH, beams)
            for one, live, rows in zip(out.sequences[:, LONGEST:].view(BATCH, beams, -1), real, admitted, strict=True):
                items = check(one[live], catalog, rows)
                assert len(set(items)) == len(items) == min(beams, len(rows))
                made["beams"] += len(items)
        if made["trees"] < SHARES["trees"]:
            for score, beams, method in (("level", 100, "tree"), ("vocab", 25, "repeat")):
                found = generate_items(
                    model, prompts, trie, num_beams=beams, num_return=beams, filter=filters, score=score, method=method
                )
                for prompt, rows in enumerate(admitted):
                    live = found.rows[prompt] >= 0
                    items = check(found.token_ids[prompt][live], catalog, rows)
                    assert items == found.rows[prompt][live].tolist()
                    assert len(set(items)) == len(items) == min(beams, len(rows))
                    made["trees"] += len(items)
    assert made.total() >= 100_000
