"""Items from a language model, `generate_items` beside transformers' `generate`, as a Markdown table or CSV.

    python -m tests.benchmarks.generation [--items N] [--beams M] [--batch B] [--prompt P] [--vocabulary V]
                                          [--model DIR] [--repeats K] [--threads T] [--grow]

One random model of Qwen3's shape (hidden size 512, 4 layers, float32), or with `--model` real weights to which the
tokens of the IDs are added as random rows; the same prompts, one of them padded, and random items of 4x256.

    generate, prefix function    prefix_allowed_tokens_fn over a nested dict: the usual way
    generate, TrieLogitsProcessor   the same beam search, the constraint in place
    generate_items, vocab        scores by the whole vocabulary, as the two above: items and scores must agree
    generate_items, level        its default: scores by the codes of the level

Times are CPU seconds, the best of K runs (the slow two: of one); the first run of generate_items, which tries how the
model can be run, is not among them. KV is the cache at the end, by its shape: a token of a layer is a key and a
value. `--grow` prints, as CSV, how time and memory grow with the items, the beams and the vocabulary.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LogitsProcessorList, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from semid.tokenizer_exports.generate.items import generate_items
from semid.tokenizer_exports.generate.logits_processor import TrieLogitsProcessor
from semid.trie import Trie
from tests.benchmarks.common import machine, markdown, versions

LEVELS, SIZE = 4, 256
TOLERANCE = 2e-3  # of a score, a sum of four float32 log-probabilities of about -10 each
DICT_ITEMS = 1_000_000  # more of them as a nested dict need gigabytes
GROWTH = {
    "items": (10_000, 100_000, 1_000_000, 10_000_000),
    "beams": (10, 20, 50, 100),
    "vocabulary": (32_768, 65_536, 131_072, 262_144),
}


@dataclass(frozen=True)
class Case:
    """One measurement's sizes."""

    items: int = 100_000
    beams: int = 50
    batch: int = 4
    prompt: int = 128
    vocabulary: int = 151_936
    model: Path | None = None


@dataclass(frozen=True)
class Found:
    """Items as token ids [B, M, L] and their scores [B, M], best first, and what they cost."""

    token_ids: torch.Tensor
    scores: torch.Tensor
    seconds: float
    peak_mb: float  # of memory, above what was held before; nan where Linux does not tell


def random_model(vocabulary: int) -> PreTrainedModel:
    """The shape of Qwen3-0.6B, halved, with 4 of its 28 layers."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def real_model(folder: Path) -> PreTrainedModel:
    """A folder's model with rows for the tokens of the IDs, random with the spread of its own."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(0)
    weight = model.get_input_embeddings().weight
    n_rows, mean, spread = len(weight), weight.detach().mean(dim=0), weight.detach().std(dim=0)
    model.resize_token_embeddings(n_rows + LEVELS * SIZE, mean_resizing=False)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        embedding.weight.data[n_rows:] = mean + spread * torch.randn(LEVELS * SIZE, len(mean))
    return model


def make_trie(n_items: int, vocabulary: int) -> Trie:
    """Random items; the block of tokens ends the vocabulary."""
    keys = np.random.default_rng(0).choice(SIZE**LEVELS, size=n_items, replace=False, shuffle=False)
    codes = np.stack(np.unravel_index(keys, (SIZE,) * LEVELS), axis=1).astype(np.uint16)
    return Trie.from_codes(codes, (SIZE,) * LEVELS, base=vocabulary - LEVELS * SIZE)


def make_prompts(case: Case, trie: Trie) -> dict[str, torch.Tensor]:
    """Random text; the last of several prompts is shorter by a fifth, padded on the left."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, trie.base, (case.batch, case.prompt), generator=generator)
    mask = torch.ones_like(input_ids)
    if case.batch > 1:
        mask[-1, : case.prompt // 5] = 0
    return {"input_ids": input_ids, "attention_mask": mask}


def nested(trie: Trie) -> dict:
    root: dict = {}
    tokens = trie.base + np.array(trie.offsets[:-1]) + trie.codes_of(np.arange(len(trie)))
    for row in tokens.tolist():
        node = root
        for token in row:
            node = node.setdefault(token, {})
    return root


# ---- measuring


def measured(run: Callable[[], tuple[torch.Tensor, torch.Tensor]], repeats: int) -> Found:
    """The least CPU time of some runs, and the peak of memory of one of them."""
    best, peak = float("inf"), float("nan")
    for _ in range(repeats):
        before = _memory_mb(reset=True)
        start = time.process_time()
        token_ids, scores = run()
        best = min(best, time.process_time() - start)
        peak = _memory_mb() - before
    return Found(token_ids, scores, best, peak)


def _memory_mb(*, reset: bool = False) -> float:
    """The peak of memory since the last reset; with `reset`, what is held now."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    if reset:
        ctypes.CDLL(None).malloc_trim(0)
        clear.write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def with_generate(model: PreTrainedModel, prompts: dict[str, torch.Tensor], case: Case, **constraint: object) -> Found:
    def run() -> tuple[torch.Tensor, torch.Tensor]:
        out = model.generate(
            **prompts, **constraint, max_new_tokens=LEVELS, num_beams=case.beams, num_return_sequences=case.beams,
            do_sample=False, length_penalty=0.0, early_stopping=True, eos_token_id=None, pad_token_id=0,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        shape = (case.batch, case.beams)
        return out.sequences[:, case.prompt :].view(*shape, LEVELS), out.sequences_scores.view(shape)

    return measured(run, 1)


def with_prefix_function(model: PreTrainedModel, prompts: dict[str, torch.Tensor], case: Case, trie: Trie) -> Found:
    root = nested(trie)

    def allowed(batch_id: int, input_ids: torch.Tensor) -> list[int]:
        node = root
        for token in input_ids[case.prompt :].tolist():
            node = node[token]
        return list(node)

    return with_generate(model, prompts, case, prefix_allowed_tokens_fn=allowed)


def with_processor(model: PreTrainedModel, prompts: dict[str, torch.Tensor], case: Case, trie: Trie) -> Found:
    return with_generate(model, prompts, case, logits_processor=LogitsProcessorList([TrieLogitsProcessor(trie)]))


def with_items(
    model: PreTrainedModel, prompts: dict[str, torch.Tensor], case: Case, trie: Trie, score: str, repeats: int
) -> Found:
    def run() -> tuple[torch.Tensor, torch.Tensor]:
        found = generate_items(model, prompts, trie, num_beams=case.beams, num_return=case.beams, score=score)
        return found.token_ids, found.scores

    generate_items(model, prompts, trie, num_beams=1, num_return=1, score=score)  # tries how the model can be run
    return measured(run, repeats)


def kv_megabytes(model: PreTrainedModel, tokens: int) -> float:
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return tokens * config.num_hidden_layers * 2 * config.num_key_value_heads * head * model.dtype.itemsize / 2**20


def agreement(found: Found, usual: Found) -> tuple[float, float]:
    """Share of the usual way's items that are found, and the largest gap between scores of the same place."""
    shared = [
        len(set(map(tuple, mine)) & set(map(tuple, theirs))) / len(theirs)
        for mine, theirs in zip(found.token_ids.tolist(), usual.token_ids.tolist(), strict=True)
    ]
    return float(np.mean(shared)), float((found.scores - usual.scores).abs().max())


# ---- the two outputs


def compare(case: Case, repeats: int) -> tuple[PreTrainedModel, dict[str, Found]]:
    model = real_model(case.model) if case.model else random_model(case.vocabulary)
    trie = make_trie(case.items, model.get_input_embeddings().weight.shape[0])
    prompts = make_prompts(case, trie)
    found = {
        "generate_items, level": with_items(model, prompts, case, trie, "level", repeats),
        "generate_items, vocab": with_items(model, prompts, case, trie, "vocab", repeats),
        "generate, TrieLogitsProcessor": with_processor(model, prompts, case, trie),
    }
    if case.items <= DICT_ITEMS:
        found["generate, prefix function"] = with_prefix_function(model, prompts, case, trie)
    return model, dict(reversed(found.items()))


def table(case: Case, repeats: int) -> Iterator[str]:
    model, found = compare(case, repeats)
    usual = next(iter(found.values()))
    tokens = {
        "generate": case.batch * case.beams * (case.prompt + LEVELS - 1),
        "generate_items": case.batch * (case.prompt + (LEVELS - 1) * case.beams),
    }
    lines = []
    for name, one in found.items():
        share, gap = agreement(one, usual)
        same = "-" if one is usual else f"{share:.0%}"
        gap_cell = "-" if one is usual or "level" in name else f"{gap:.1e}"
        kv = kv_megabytes(model, tokens[name.split(",")[0]])
        ratio = usual.seconds / one.seconds
        lines.append([name, f"{one.seconds:.2f}", f"{ratio:.1f}×", same, gap_cell, f"{kv:.0f}", f"{one.peak_mb:,.0f}"])
    yield (
        f"{case.model.name if case.model else 'random Qwen3'}, V = {model.get_input_embeddings().weight.shape[0]:,}, "
        f"{case.items:,} items of {LEVELS}x{SIZE}, {case.batch} prompts of {case.prompt} tokens, {case.beams} beams"
    )
    yield ""
    columns = ["way", "CPU s", "times as fast", "same items", "largest score gap", "KV MB", "peak MB"]
    yield markdown(columns, lines)
    share, gap = agreement(found["generate_items, vocab"], usual)
    if share < 1 or gap > TOLERANCE:
        yield f"\nDISAGREEMENT: {share:.1%} of the items, scores up to {gap:.1e} apart (tolerance {TOLERANCE})"


def growth(case: Case, repeats: int) -> Iterator[str]:
    """CSV lines: what grows, how far, and each way's seconds and peak of memory."""
    yield "grows,value,way,cpu_seconds,peak_mb,trie_mb"
    for name, values in GROWTH.items():
        for value in values:
            one = replace(case, **{name: value})
            trie_mb = make_trie(one.items, one.vocabulary).nbytes / 2**20
            for way, found in compare(one, repeats)[1].items():
                yield f'{name},{value},"{way}",{found.seconds:.3f},{found.peak_mb:.0f},{trie_mb:.1f}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("items", "beams", "batch", "prompt", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Case(), name))
    parser.add_argument("--model", type=Path, help="a folder with a causal model of transformers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--grow", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    case = Case(
        arguments.items, arguments.beams, arguments.batch, arguments.prompt, arguments.vocabulary, arguments.model
    )
    note = f"{machine(arguments.threads)}; {versions('torch', 'transformers')}"
    if arguments.grow:
        print(note, file=sys.stderr)
    else:
        print(note, end="\n\n")
    for line in (growth if arguments.grow else table)(case, arguments.repeats):
        print(line, flush=True)


if __name__ == "__main__":
    main()
