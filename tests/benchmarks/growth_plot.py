"""Draws what `generation.py --grow` printed: time and memory against items, beams and vocabulary.

python -m tests.benchmarks.generation --grow > growth.csv
python -m tests.benchmarks.growth_plot growth.csv docs/generation.svg
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

ROWS = {"cpu_seconds": "CPU seconds a batch", "peak_mb": "peak memory, MB"}
NAMES = {"items": "items", "beams": "beams", "vocabulary": "tokens in the vocabulary"}


def plot(lines: list[dict[str, str]], path: Path) -> None:
    """Two rows of panels, all axes logarithmic, a curve for each way."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "semid", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(len(ROWS), len(NAMES), figsize=(11, 5.6), sharey="row", layout="constrained")
    ways = list(dict.fromkeys(line["way"] for line in lines))
    for row, (field, title) in zip(axes, ROWS.items(), strict=True):
        row[0].set_ylabel(title)
        for axis, (grows, name) in zip(row, NAMES.items(), strict=True):
            for number, way in enumerate(ways):
                points = [(float(line["value"]), float(line[field])) for line in lines
                          if line["grows"] == grows and line["way"] == way]  # fmt: skip
                ours = way.startswith("generate_items")
                axis.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=2.2 if ours else 1.2,
                          color=f"C{number}", label=way)  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel=name)
            axis.grid(alpha=0.25)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("svg", type=Path)
    arguments = parser.parse_args()
    with arguments.csv.open(newline="", encoding="utf-8") as file:
        plot(list(csv.DictReader(file)), arguments.svg)


if __name__ == "__main__":
    main()
