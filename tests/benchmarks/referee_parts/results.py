"""Results: one line of JSON for each run, so that a benchmark goes on where it stopped; and the table of all runs."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.evaluation import RecommendationQuality
from semid.evaluation.intervals import Estimate, estimate_means
from tests.benchmarks.common import markdown

FIGURES = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
COMPARED = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class Run:
    """The test figures of one system, trained with one seed, under one beam width."""

    system: str
    seed: int
    beams: int  # 0 for a baseline
    key: str  # a hash of what the figures depend on
    figures: dict[str, float]
    hits: list[list[float]]  # [case, *FIGURES] of each case where one of them is above 0
    about: dict[str, object]  # how the training went
    seconds: float  # of the processor

    @classmethod
    def of(
        cls,
        quality: RecommendationQuality,
        system: str,
        seed: int,
        beams: int,
        key: str,
        about: dict[str, object],
        seconds: float,
    ) -> Run:
        values = np.stack([quality.case_values[name] for name in FIGURES], axis=1)
        hits = [[row, *values[row].tolist()] for row in np.flatnonzero(values.any(axis=1)).tolist()]
        figures = {name: one.value for name, one in quality.items()}
        return cls(system, seed, beams, key, figures, hits, about, seconds)

    def values(self, n_cases: int) -> npt.NDArray[np.float64]:
        """Return the figures of each case, float64 [R, len(FIGURES)]."""
        values = np.zeros((n_cases, len(FIGURES)))
        for row, *found in self.hits:
            values[int(row)] = found
        return values


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a file; a last line that was cut off in the middle is removed from it."""
    if not path.exists():
        return []
    text = path.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return [Run(**json.loads(line)) for line in whole.splitlines()]


def append_runs(path: Path, runs: Iterable[Run]) -> None:
    """Add a line for each run."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json.dumps(asdict(run)) + "\n" for run in runs))
        file.flush()
        os.fsync(file.fileno())


def table(runs: Sequence[Run], users: Sequence[str], reference: str | None = None) -> str:
    """Return a Markdown table: each system and beam width, mean and SD of its seeds, and its gain over the reference.

    runs : those of one benchmark. The reference is by default the system of the first.
    users : of the R test cases. Gains are paired: per case, means over the seeds are compared; whole users are drawn.
    """
    groups = defaultdict[tuple[str, int], list[Run]](list)
    for run in runs:
        groups[run.system, run.beams].append(run)
    reference = reference or runs[0].system
    _, numbers = np.unique(list(users), return_inverse=True)
    means = {group: np.mean([run.values(len(users)) for run in found], axis=0) for group, found in groups.items()}
    beams = max(width for system, width in groups if system == reference)
    rows = []
    for (system, width), found in groups.items():
        figures = np.array([[run.figures[name] for name in FIGURES] for run in found])
        row = [system, str(width or "-"), str(len(found))]
        for column in figures.T:
            row.append(f"{column.mean():.4f}" + (f" ± {column.std(ddof=1):.4f}" if len(found) > 1 else ""))
        other = (reference, width or beams)
        gains = estimate_means(means[system, width] - means[other], numbers)
        for name in COMPARED:
            base = means[other][:, FIGURES.index(name)].mean()
            row.append("" if (system, width) == other else _gain(gains[FIGURES.index(name)], float(base)))
        rows.append([*row, f"{np.mean([run.seconds for run in found]):.0f}"])
    head = ["IDs or baseline", "beams", "seeds", "R@5", "R@10", "N@5", "N@10"]
    return markdown([*head, f"R@10 over {reference}", f"N@10 over {reference}", "CPU seconds"], rows)


def _gain(gain: Estimate, base: float) -> str:
    share = f" ({gain.value / base:+.1%})" if base else ""
    return f"{gain.value:+.4f}{share}, {gain.low:+.4f} to {gain.high:+.4f}"
