"""Prefix indexes at 10,000 to 10,000,000 items: time, memory and filters, as Markdown tables and a plot.

    python -m tests.benchmarks.tries [--items 10000,...] [--plot FILE.svg]

IDs are 4 x 256, uniform at random, which gives the most nodes for N. Every index is built in a process of its own
from the same codes in random order, and must then offer the same children as all others. The peers come with
`pip install rectokens==0.2.2 marisa-trie==1.4.1`; one that is missing says so. What is compared: trie_layouts.py.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.trie import Trie
from tests.benchmarks.common import machine, markdown, versions
from tests.benchmarks.trie_layouts import LAYOUTS, SIZE

LEVELS = 4
ROWS = 400  # a batch of 8 requests with 50 beams
SEEN = 100  # items that one user has seen
ITEMS = "10000,100000,1000000,10000000"
COLUMNS = [
    "items", "index", "build, s", "bytes an item + map to items", "open, ms", "walk 3 codes, µs",
    "children at depth 1, µs", "at depth 2, µs", "at depth 3, µs",
]  # fmt: skip
FILTER_COLUMNS = [
    "items", "half in stock, from bools, ms", "from rows, ms", "bytes an item", f"{SEEN} seen items more, µs",
    "which children of 400 rows lead on, µs", "with the seen ones, µs",
]  # fmt: skip


@dataclass(frozen=True)
class Index:
    """Figures of one index; None: it cannot, or was not tried."""

    name: str
    n_items: int
    build: float | None = None  # seconds
    bytes_per_item: float | None = None
    map_bytes: int = 0  # more for each item, if the index also knows which item an ID is
    open: float | None = None
    walk: float | None = None
    children: tuple[float | None, ...] = (None, None, None)  # seconds, at depths 1, 2, 3
    offered: str = ""  # digest of the children, equal for equal sets


def random_codes(n_items: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Distinct codes uint16 [N, L] in random order."""
    rng = np.random.default_rng(seed)
    keys = np.unique(rng.integers(0, SIZE**LEVELS, n_items + n_items // 50 + 100))
    keys = rng.permutation(keys)[:n_items]
    return np.stack([keys // SIZE**level % SIZE for level in reversed(range(LEVELS))], axis=1).astype(np.uint16)


def best(call: Callable[[], object], *, budget: float = 1.0, most: int = 200) -> float:
    """Seconds of the fastest of several calls, three or more if those fit into ten budgets."""
    times: list[float] = []
    while len(times) < most and sum(times) < (10 * budget if len(times) < 3 else budget):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(layout: str, folder: Path) -> Index:
    """Figures of one index over the codes in a folder."""
    kind, codes = LAYOUTS[layout], np.load(folder / "codes.npy")
    n_items = len(codes)
    if n_items > kind.most:
        return Index(kind.name, n_items)
    if layout in ("SemidTorch", "Rectokens"):
        import torch

        torch.set_num_threads(1)
    try:
        kind(codes[:1000])  # imports what it needs
    except ImportError:
        return Index(f"{kind.name}: not installed", n_items)
    seconds = best(lambda: kind(codes), budget=2.0, most=7)
    tracemalloc.start()
    index = kind(codes)
    n_bytes = index.bytes_per_index() or tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    rows = codes[np.random.default_rng(1).choice(n_items, ROWS)].astype(np.int64)
    steps, digest = [], hashlib.sha256()
    for depth in (1, 2, 3):
        nodes = index.walk(rows[:, :depth])
        steps.append(best(lambda nodes=nodes, depth=depth: index.children(nodes, depth)))
        offered = index.codes_of_child(index.children(nodes, depth))
        digest.update(repr([sorted(codes) for codes in offered]).encode())
    return Index(
        kind.name,
        n_items,
        seconds,
        n_bytes / n_items,
        kind.map_bytes,
        best(index.save_and_load(folder / layout)) if index.save_and_load else None,
        best(lambda: index.walk(rows[:, :3])),
        tuple(steps),
        digest.hexdigest(),
    )


def measure_filter(folder: Path) -> list[str]:
    """A row of the table of filters."""
    codes = np.load(folder / "codes.npy")
    trie = Trie.from_codes(codes, [SIZE] * LEVELS)
    rng = np.random.default_rng(1)
    half = rng.random(len(codes)) < 0.5
    rows, seen = np.flatnonzero(half), rng.choice(len(codes), SEEN, replace=False)
    stock = trie.filter(only=half)
    trie.filter(without=seen, within=stock)  # the map from rows to ranks is made once
    personal = trie.filter(without=seen, within=stock)
    _, child, _ = trie.children(trie.walk(codes[rng.choice(len(codes), ROWS), :2]))
    ends = trie.ranks(child)
    return [
        f"{len(codes):,}",
        f"{1e3 * best(lambda: trie.filter(only=half)):.2f}",
        f"{1e3 * best(lambda: trie.filter(only=rows)):.2f}",
        f"{stock.counts.nbytes / len(codes):.1f}",
        f"{1e6 * best(lambda: trie.filter(without=seen, within=stock)):.0f}",
        f"{1e6 * best(lambda: stock.admits(*ends)):.0f}",
        f"{1e6 * best(lambda: personal.admits(*ends)):.0f}",
    ]


def alone(function, *arguments):
    """Call in a fresh process, so that memory peaks do not mix."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def cells(index: Index) -> list[str]:
    """A row of the table."""

    def cell(value: float | None, factor: float, form: str) -> str:
        return "-" if value is None else format(value * factor, form)

    return [
        f"{index.n_items:,}",
        index.name,
        cell(index.build, 1, ".3f"),
        cell(index.bytes_per_item, 1, ".1f") + (f" + {index.map_bytes}" if index.map_bytes else ""),
        cell(index.open, 1e3, ".2f"),
        cell(index.walk, 1e6, ",.0f"),
        *(cell(seconds, 1e6, ",.0f") for seconds in index.children),
    ]


def plot(found: list[Index], path: Path) -> None:
    """Build time, memory and one step against N, all axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "semid", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    panels = {
        "build, seconds": lambda index: index.build,
        "index, bytes an item": lambda index: index.bytes_per_item,
        "children of 400 nodes at depth 2, µs": lambda index: index.children[1] and index.children[1] * 1e6,
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    names = list(dict.fromkeys(index.name for index in found if index.build is not None))
    for axis, (title, figure_of) in zip(axes, panels.items(), strict=True):
        for number, name in enumerate(names):
            points = [(index.n_items, figure_of(index)) for index in found if index.name == name and index.build]
            ours = name.startswith("**")
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                linewidth=2.2 if ours else 1.2,
                color=f"C{number}",
                label=name.replace("*", ""),
            )
        axis.set(xscale="log", yscale="log", title=title, xlabel="items")
        axis.grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", default=ITEMS, help="catalog sizes, separated by commas")
    parser.add_argument("--plot", type=Path, help="draw time and memory against N into this file")
    arguments = parser.parse_args()
    print(f"{machine(1)}; {versions('numpy', 'torch', 'rectokens', 'marisa-trie')}\n", flush=True)
    found, filters = [], []
    for n_items in map(int, arguments.items.split(",")):
        with tempfile.TemporaryDirectory() as name:
            np.save(Path(name) / "codes.npy", random_codes(n_items))
            found += [alone(measure, layout, Path(name)) for layout in LAYOUTS]
            filters.append(alone(measure_filter, Path(name)))
        if len({index.offered for index in found if index.n_items == n_items and index.offered}) != 1:
            raise SystemExit(f"{n_items} items: the indexes offer different children.")
    print(markdown(COLUMNS, map(cells, found)), "\n")
    print(markdown(FILTER_COLUMNS, filters))
    if arguments.plot:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
