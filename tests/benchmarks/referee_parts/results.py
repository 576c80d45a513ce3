"""Results: one line of JSON for each run, so that a benchmark goes on where it stopped; and the table of all runs."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.evaluation import RecommendationQuality
from semid.evaluation.intervals import Estimate, estimate_means
from tests.benchmarks.common import markdown

FIGURES = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
COMPARED = ("recall@10", "ndcg@10")


NO_BEAMS = "-"  # the beam width of a baseline


@dataclass(frozen=True)
class Run:
    """The test figures of one system, trained with one seed, by beam width."""

    system: str
    seed: int
    key: str  # a hash of what the figures depend on
    figures: dict[str, dict[str, float]]
    hits: dict[str, list[list[float]]]  # [case, *FIGURES] of each case where one of them is above 0
    about: dict[str, object]  # how the training went
    seconds: float  # of the processor

    @classmethod
    def of(
        cls,
        system: str,
        seed: int,
        key: str,
        qualities: Mapping[str, RecommendationQuality],
        about: dict[str, object],
        seconds: float,
    ) -> Run:
        figures, hits = {}, {}
        for beams, quality in qualities.items():
            values = np.stack([quality.case_values[name] for name in FIGURES], axis=1)
            figures[beams] = {name: one.value for name, one in quality.items()}
            hits[beams] = [[row, *values[row].tolist()] for row in np.flatnonzero(values.any(axis=1)).tolist()]
        return cls(system, seed, key, figures, hits, about, seconds)

    def values(self, beams: str, n_cases: int) -> npt.NDArray[np.float64]:
        """Return the figures of each case, float64 [R, len(FIGURES)]."""
        values = np.zeros((n_cases, len(FIGURES)))
        for row, *found in self.hits[beams]:
            values[int(row)] = found
        return values

    def summary(self) -> str:
        shown = ", ".join(f"{one['recall@10']:.4f} / {one['ndcg@10']:.4f}" for one in self.figures.values())
        return f"{self.system}, seed {self.seed}: R@10 / N@10 {shown}; {self.seconds:.0f} CPU seconds"


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a file; a last line that was cut off in the middle is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return [Run(**json.loads(line)) for line in content[:end].splitlines()]


def append_run(path: Path, run: Run) -> None:
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def table(runs: Sequence[Run], users: Sequence[str], reference: str | None = None) -> str:
    """Return a Markdown table: each system and beam width, mean and SD of its seeds, and its gain over the reference.

    runs : those of one benchmark. The reference is by default the system of the first.
    users : of the R test cases. Gains are paired: per case, means over the seeds are compared; whole users are drawn.
    """
    groups = defaultdict[tuple[str, str], list[Run]](list)
    for run in runs:
        for beams in run.figures:
            groups[run.system, beams].append(run)
    reference = reference or runs[0].system
    widest = [beams for system, beams in groups if system == reference][-1]  # what baselines are compared with
    _, numbers = np.unique(list(users), return_inverse=True)
    means = {
        (system, beams): np.mean([run.values(beams, len(users)) for run in found], axis=0)
        for (system, beams), found in groups.items()
    }
    rows = []
    for (system, beams), found in groups.items():
        row = [system, beams, str(len(found))]
        for name in FIGURES:
            seeds = np.array([run.figures[beams][name] for run in found])
            row.append(f"{seeds.mean():.4f}" + (f" ± {seeds.std(ddof=1):.4f}" if len(seeds) > 1 else ""))
        other = (reference, widest if beams == NO_BEAMS else beams)
        gains = dict(zip(FIGURES, estimate_means(means[system, beams] - means[other], numbers), strict=True))
        base = dict(zip(FIGURES, means[other].mean(axis=0).tolist(), strict=True))
        row += ["" if (system, beams) == other else _gain(gains[name], base[name]) for name in COMPARED]
        rows.append([*row, f"{np.mean([run.seconds for run in found]):.0f}"])
    head = ["IDs or baseline", "beams", "seeds", "R@5", "R@10", "N@5", "N@10"]
    return markdown([*head, *(f"{name} over {reference}" for name in ("R@10", "N@10")), "CPU seconds"], rows)


def _gain(gain: Estimate, base: float) -> str:
    share = f" ({gain.value / base:+.1%})" if base else ""
    return f"{gain.value:+.4f}{share}, {gain.low:+.4f} to {gain.high:+.4f}"
