"""One step of constrained decoding inside `generate`, semid's logits processor beside others, as a Markdown table.

    python -m tests.benchmarks.processor_step [--items N] [--vocabulary V] [--rows R] [--repeats K] [--threads T]

All get the same logits float32 [R, V], 8 prompts' beams, and the same rows: a prompt of 128 tokens of text and the
first d codes of a random item. Before anything is timed, all have to leave the same tokens of every row.

    transformers     PrefixConstrainedLogitsProcessor with a nested dict, prompt length known to the function
    semid            TrieLogitsProcessor: reads the node off the rows, writes in place
    semid, filtered  the same, with a filter for each prompt (half of the items, and those begun) and no repeats
    rectokens        vtnk_pytorch, what its constrained decoding does to logits, in torch; from depth 1 on, the node
                     of each row given (pip install "semid[bench]")
    STATIC           one step over its layout, the state of each row given: the scores of the children alone, in a
                     narrow tensor for its own beam search, no masked logits for another's
    semid, narrow    the same from semid's trie: the node given, the scores of the children alone
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers.generation.logits_process import PrefixConstrainedLogitsProcessor

from semid.tokenizer_exports.formats.static import static_arrays
from semid.tokenizer_exports.generate.logits_processor import TrieLogitsProcessor
from semid.tokenizer_exports.generate.trie_tensors import TrieTensors
from semid.trie import Trie
from tests.benchmarks.common import machine, markdown, versions

LEVELS, SIZE = 4, 256
PROMPTS, PROMPT_LENGTH = 8, 128
NARROW = ("STATIC", "semid, narrow")

Step = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]  # logits -> scores, and their tokens or None


@dataclass(frozen=True)
class Case:
    """Rows that have all come to one depth."""

    trie: Trie
    depth: int
    token_ids: torch.Tensor  # (R, 128 + depth)
    nodes: torch.Tensor  # (R,) - where the rows are in the trie
    items: np.ndarray  # (R,) - an item that each row begins

    @property
    def beams(self) -> int:
        return len(self.token_ids) // PROMPTS


def make_trie(n_items: int, vocab_size: int) -> Trie:
    """Random items; the block of tokens ends the vocabulary, as in a model that was extended."""
    rng = np.random.default_rng(0)
    keys = rng.choice(SIZE**LEVELS, size=n_items, replace=False)
    codes = np.stack(np.unravel_index(keys, (SIZE,) * LEVELS), axis=1)
    return Trie.from_codes(codes, (SIZE,) * LEVELS, base=vocab_size - LEVELS * SIZE)


def make_case(trie: Trie, depth: int, n_rows: int) -> Case:
    rng = np.random.default_rng(depth)
    ranks = rng.integers(len(trie), size=n_rows)
    prefixes = trie.codes_of(ranks)[:, :depth]
    text = rng.integers(trie.base, size=(n_rows, PROMPT_LENGTH))
    rows = np.concatenate([text, trie.base + np.array(trie.offsets[:depth], np.int64) + prefixes], axis=1)
    nodes = torch.from_numpy(trie.walk(prefixes))
    return Case(trie, depth, torch.from_numpy(rows), nodes, trie.rows[ranks])


def all_tokens(trie: Trie) -> np.ndarray:
    """Token ids int64 [N, L] of the items, in lexicographic order."""
    return trie.base + np.array(trie.offsets[:-1]) + trie.codes_of(np.arange(len(trie)))


# ---- the systems: each prepares what it keeps between steps, and returns its step


def with_transformers(case: Case, root: dict) -> Step:
    def allowed(batch_id: int, input_ids: torch.Tensor) -> list[int]:
        node = root
        for token in input_ids[PROMPT_LENGTH:].tolist():
            node = node[token]
        return list(node)

    processor = PrefixConstrainedLogitsProcessor(allowed, num_beams=case.beams)
    return lambda logits: (processor(case.token_ids, logits), None)


def nested(trie: Trie) -> dict:
    root: dict = {}
    for tokens in all_tokens(trie).tolist():
        node = root
        for token in tokens:
            node = node.setdefault(token, {})
    return root


def with_semid(case: Case, tensors: TrieTensors) -> Step:
    processor = TrieLogitsProcessor(tensors)
    return lambda logits: (processor(case.token_ids, logits), None)


def with_filters(case: Case, tensors: TrieTensors) -> Step:
    halves = [np.random.default_rng(seed).random(case.trie.n_rows) < 0.5 for seed in range(PROMPTS)]
    for half, items in zip(halves, case.items.reshape(PROMPTS, -1), strict=True):
        half[items] = True
    filters = [case.trie.filter(only=half) for half in halves]
    processor = TrieLogitsProcessor(tensors, 0, filter=filters, prompt_length=PROMPT_LENGTH, repeats=False)
    return lambda logits: (processor(case.token_ids, logits), None)


def with_rectokens(case: Case, csr: object) -> Step | None:
    from rectokens.decoding.vntk import vtnk_pytorch

    if case.depth == 0:  # a dense mask, no step of the trie
        return None
    # It numbers the nodes as semid does.
    return lambda logits: (vtnk_pytorch(logits, case.nodes, csr, case.depth)[2], None)


def rectokens_csr(trie: Trie, vocab_size: int) -> object | None:
    """Its index, None where the package is not installed."""
    try:
        from rectokens.schemas.compact_csr_trie import CompactCSRTrie
    except ImportError:
        return None
    return CompactCSRTrie.from_sorted_batch(torch.from_numpy(all_tokens(trie)), vocab_size, dense_lookup_layers=1)


def with_static(case: Case, arrays: dict[str, torch.Tensor]) -> Step | None:
    if case.depth == 0:  # a mask over the vocabulary, no step of the table
        return None
    states = case.token_ids[:, PROMPT_LENGTH] + 1
    table, pointers = arrays["packed_csr"], arrays["indptr"]
    for token_ids in case.token_ids[:, PROMPT_LENGTH + 1 :].T:
        rows = [slice(*pointers[state : state + 2].tolist()) for state in states]
        pairs = zip(rows, token_ids, strict=True)
        states = table[[row.start + int((table[row, 0] == token).nonzero()) for row, token in pairs], 1].long()
    width = int(arrays["layer_max_branches"][case.depth])

    def step(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = pointers[states]
        count = pointers[states + 1] - first
        slots = torch.arange(width)
        pairs = table[(first[:, None] + slots).clamp(max=len(table) - 1)]
        tokens = pairs[..., 0].long()
        scores = logits.gather(1, tokens.clamp(max=logits.shape[1] - 1))
        return scores.masked_fill(slots >= count[:, None], float("-inf")), tokens

    return step


def with_narrow(case: Case, tensors: TrieTensors) -> Step:
    first, width = case.trie.base + case.trie.offsets[case.depth], case.trie.fanout[case.depth]

    def step(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, _, valid = tensors.children(case.nodes, width)
        tokens = codes + first
        return logits.gather(1, tokens).masked_fill_(~valid, float("-inf")), tokens

    return step


# ---- comparing and timing


def kept(scores: torch.Tensor, tokens: torch.Tensor | None) -> list[list[int]]:
    """The tokens of each row that are left."""
    if tokens is None:
        return [row.nonzero().flatten().tolist() for row in scores.isfinite()]
    return [sorted(row[score.isfinite()].tolist()) for row, score in zip(tokens, scores, strict=True)]


def check(steps: dict[str, Step], logits: torch.Tensor) -> int:
    """SystemExit unless all leave the same tokens; those with filters, some of them. Returns how many are left."""
    left = {name: kept(*step(logits.clone())) for name, step in steps.items()}
    wanted = left["transformers"]
    for name, rows in left.items():
        same = all(set(row) <= set(want) for row, want in zip(rows, wanted, strict=True))
        if not (same if name == "semid, filtered" else rows == wanted):
            raise SystemExit(f"{name}: leaves other tokens than transformers with a dict.")
    return sum(map(len, wanted))


def best_times(steps: dict[str, Step], logits: torch.Tensor, repeats: int) -> dict[str, float]:
    """Least milliseconds of each, turn by turn, so that a busy machine is busy for all; refilling is not timed."""
    times = dict.fromkeys(steps, float("inf"))
    scratch = logits.clone()
    for _ in range(repeats):
        for name, step in steps.items():
            scratch.copy_(logits)
            start = time.perf_counter()
            step(scratch)
            times[name] = min(times[name], 1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--vocabulary", type=int, default=129_024)
    parser.add_argument("--rows", type=int, default=400, help="a multiple of 8, the prompts")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    trie = make_trie(arguments.items, arguments.vocabulary)
    tensors, root = TrieTensors(trie), nested(trie)
    csr = rectokens_csr(trie, arguments.vocabulary)
    static = static_arrays(trie, LEVELS * SIZE, base=trie.base, dense_levels=1)
    static = {name: torch.from_numpy(array) for name, array in static.items()}
    logits = torch.randn(arguments.rows, arguments.vocabulary)

    names = ["transformers", "semid", "semid, filtered", "rectokens", *NARROW]
    lines = []
    for depth in range(LEVELS):
        case = make_case(trie, depth, arguments.rows)
        steps = {
            "transformers": with_transformers(case, root),
            "semid": with_semid(case, tensors),
            "semid, filtered": with_filters(case, tensors),
            "rectokens": with_rectokens(case, csr) if csr else None,
            "STATIC": with_static(case, static),
            "semid, narrow": with_narrow(case, tensors),
        }
        steps = {name: step for name, step in steps.items() if step}
        left = check(steps, logits)
        times = best_times(steps, logits, arguments.repeats)
        ratio = {name: times["transformers"] / spent for name, spent in times.items()}
        cells = [f"{times[name]:.2f} ({ratio[name]:,.0f}×)" if name in times else "-" for name in names]
        cells[0] = f"{times['transformers']:.0f}"
        if csr is None:
            cells[names.index("rectokens")] = "absent"
        lines.append([str(depth), f"{left:,}", *cells])
    print(f"V = {arguments.vocabulary:,}, R = {arguments.rows}, {arguments.items:,} items of {LEVELS}x{SIZE}, float32")
    print(f"{machine(arguments.threads)}; {versions('torch', 'transformers', 'rectokens')}")
    print("Milliseconds, best of each (times as fast as transformers). All left the same tokens.\n")
    print(markdown(["depth", "tokens left", *names], lines))


if __name__ == "__main__":
    main()
