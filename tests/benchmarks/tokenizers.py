"""What 1,024 and 100,000 tokens of IDs cost in real tokenizers, as a Markdown table.

    python -m tests.benchmarks.tokenizers [--family NAME ...] [--repeat 3]

Seconds by the clock, the best of the repeats, each on a tokenizer loaded anew: adding, encoding 2 KB of mixed text
without items before and after, saving and loading. The last column loads before anything was added. The tokenizers
come out of packages: see tests/helpers/real_models/packages.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from semid.tokenizer_exports.models.add_tokens import add_tokens
from semid.tokens.vocabulary import Vocabulary
from tests.benchmarks.common import machine, markdown, versions
from tests.helpers.real_models.tokenizers import FAMILIES

SMALL, LARGE = Vocabulary([256] * 4), Vocabulary([25_000] * 4)
MIXED = (
    "The quick brown fox jumps over 13 lazy dogs. Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich. "
    "天地玄黃,宇宙洪荒。 الكتاب على الطاولة 🎉 def f(x): return x[0] <s_a_ "
)
TEXT = (MIXED * 20).encode()[:2048].decode(errors="ignore")
COLUMNS = [
    "tokenizer", "tokens", "add 1,024, s", "encode 2 KB, ms, before", "after", "save, s", "load, s", "both, s",
    "add 100,000, s", "save + load with 100,000, s", "save + load plain, s",
]  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def encoding(tokenizer: PreTrainedTokenizerFast) -> float:
    """Seconds to encode the text, the best of 20."""
    return min(seconds(lambda: tokenizer(TEXT)) for _ in range(20))


def saving(tokenizer: PreTrainedTokenizerFast) -> tuple[float, float]:
    """Seconds to save and to load."""
    with tempfile.TemporaryDirectory() as folder:
        return (
            seconds(lambda: tokenizer.save_pretrained(folder)),
            seconds(lambda: AutoTokenizer.from_pretrained(folder)),
        )


def measure(load: Callable[[], PreTrainedTokenizerFast]) -> dict[str, float]:
    """Every figure once."""
    small, large = load(), load()
    figures = {"before": encoding(small), "plain": sum(saving(small))}
    figures["add"] = seconds(lambda: add_tokens(small, SMALL))
    figures["after"] = encoding(small)
    figures["save"], figures["load"] = saving(small)
    figures["both"] = figures["save"] + figures["load"]
    figures["add many"] = seconds(lambda: add_tokens(large, LARGE))
    figures["both many"] = sum(saving(large))
    return figures


def rows(names: list[str], repeat: int) -> Iterator[list[str]]:
    for name in names:
        try:
            n_tokens = len(FAMILIES[name]())  # converts the vocabulary where that was not done before
        except pytest.skip.Exception as reason:
            yield [name, str(reason), *["-"] * (len(COLUMNS) - 2)]
            continue
        runs = [measure(FAMILIES[name]) for _ in range(repeat)]
        best = {figure: min(run[figure] for run in runs) for figure in runs[0]}
        yield [
            name, f"{n_tokens:,}", f"{best['add']:.3f}", f"{best['before'] * 1e3:.2f}", f"{best['after'] * 1e3:.2f}",
            *(f"{best[figure]:.2f}" for figure in ("save", "load", "both", "add many", "both many", "plain")),
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", action="append", choices=FAMILIES, help="this tokenizer alone; may be repeated")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    arguments = parser.parse_args()
    print(f"{machine(1)}; {versions('transformers', 'tokenizers')}\n", flush=True)
    print(markdown(COLUMNS, rows(arguments.family or list(FAMILIES), arguments.repeat)))


if __name__ == "__main__":
    main()
