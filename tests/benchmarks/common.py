"""What the benchmarks share: a data set's folder, the machine's line, and Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Histories, Interactions
from semid.data.items import read_items
from semid.encoders.vectors import read_vectors

__all__ = [
    "Catalog",
    "first_embeddings",
    "joined",
    "machine",
    "markdown",
    "mean_square",
    "read_catalog",
    "use_threads",
    "versions",
]

SEQUENCES = "sequences.jsonl.gz"


@dataclass(frozen=True)
class Catalog:
    """A data set's folder: item ids, sorted, and vectors in their order. Who met what is read when it is asked for."""

    folder: Path
    item_ids: list[str]
    vectors: npt.NDArray[np.float32]  # (N, D)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def interactions(self) -> Interactions:
        """Those of `sequences.jsonl.gz`."""
        return read_interactions(self.folder / SEQUENCES)

    @cached_property
    def histories(self) -> Histories | None:
        """The interactions with these items; None without a file of them."""
        return self.interactions.map_to(self.item_ids) if (self.folder / SEQUENCES).exists() else None


def first_embeddings(folder: Path) -> Path:
    """The file of vectors of a data set's folder that comes first by name."""
    path = min(folder.glob("embeddings.*.npy"), default=None)
    if path is None:
        raise SystemExit(f"{folder}: no embeddings.NAME.npy there. Add one, or name another with --embeddings.")
    return path


def read_catalog(folder: Path, embeddings: Path | None = None, *, rows: int | None = None) -> Catalog:
    """Read `items.jsonl.gz` and `embeddings.NAME.npy` (row i = line i).

    Parameters
    ----------
    folder : folder of one data set.
    embeddings : which vectors; by default the first of the folder by name.
    rows : the first so many items alone.
    """
    items = read_items(folder / "items.jsonl.gz")
    vectors = read_vectors(embeddings or first_embeddings(folder), ids=items.ids)
    items = items.take(range(rows or len(items))).sorted()  # the order that semid fit learns in
    return Catalog(folder, list(items.ids), vectors.rows(items.rows))


def mean_square(vectors: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Mean over the rows of the squared distance."""
    difference = np.subtract(vectors, other, dtype=np.float64)
    return float(np.einsum("nd,nd->", difference, difference)) / len(vectors)


def use_threads(count: int) -> None:
    """Let torch, faiss and BLAS use so many threads from now on."""
    import faiss
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    threadpool_limits(count)


def machine(threads: int) -> str:
    """The processor, cores and load, in one line."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {threads} threads used, load {os.getloadavg()[0]:.1f}"


def versions(*packages: str) -> str:
    """Each package and its version, "absent" where it is not installed."""
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in packages)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def joined(values: Iterable[float | None], form: str) -> str:
    """Figures per level in one cell: "1.0 / 2.0".

    >>> joined([1, None], ".1f")
    '1.0 / -'
    """
    return " / ".join("-" if value is None else format(value, form) for value in values)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
