"""Learning curves of semid's default recipe and of LC-Rec's, and one epoch of LC-Rec's network by both codes.

    python -m tests.benchmarks.learning --data DIR [--embeddings FILE] [--lcrec-epochs 200] [--plot docs/learning.svg]

One item in ten is held out of everything; distortion is its mean squared error relative to the variance of all
vectors. Every look at it goes through finished codebooks, as a user would get them at that moment, and is not timed.
LC-Rec's curve is that of semid's preset, which the first table compares with plain PyTorch (lcrec_plain.py): equal
losses, in less time. Its learning rate falls to nothing at the last epoch asked for. DIR: see peers.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from semid.quantize.codebooks import Codebooks
from semid.train import lcrec_training, rqvae_training
from semid.train.lcrec import RANGE_ROWS, LCRecRQVAE
from semid.train.rqvae import RQVAE
from tests.benchmarks.common import machine, markdown, mean_square, read_catalog, use_threads, versions
from tests.benchmarks.lcrec_plain import train_plain
from tests.benchmarks.training import held_out

Floats = npt.NDArray[np.float32]

SIZES = [256] * 4
LOOK_EVERY = 10  # epochs of LC-Rec's
SHOWN = {0, 1, 5, 10, 20}  # epochs of semid's in the table; the plot has all


# ---- one epoch of LC-Rec's network ----------------------------------------------------------------------------


@dataclass
class Stopwatch:
    """Seconds since it was made or last asked, less those paused."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def lap(self) -> tuple[float, float]:
        """(wall, CPU) since the last lap."""
        before = self.wall, self.cpu
        self.restart()
        return self.wall - before[0], self.cpu - before[1]

    def restart(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()


@dataclass
class Epochs:
    """Laps and losses of consecutive epochs."""

    laps: list[tuple[float, float]]
    losses: list[float]


def preset_epochs(vectors: Floats, epochs: int, *, batch_norm: bool) -> Epochs:
    """By semid's preset."""
    learner = LCRecRQVAE(epochs=epochs, eval_every=epochs + 1, batch_norm=batch_norm, device="cpu")
    return _watched(
        lambda watch: lcrec_training.train(learner, vectors, SIZES, callback=lambda epoch, loss, snapshot: watch(loss))
    )


def plain_epochs(vectors: Floats, epochs: int, *, batch_norm: bool) -> Epochs:
    """By plain PyTorch."""
    learner = LCRecRQVAE()
    widths = [vectors.shape[1], *learner.layers, learner.dim]
    return _watched(
        lambda watch: train_plain(
            vectors, widths, SIZES, epochs=epochs, batch_norm=batch_norm, seed=learner.seed, watch=watch
        )
    )


def _watched(train: Callable[[Callable[[float], object]], object]) -> Epochs:
    """The first epoch holds k-means; its lap is dropped."""
    clock, found = Stopwatch(), Epochs([], [])

    def watch(loss: float) -> None:
        found.laps.append(clock.lap())
        found.losses.append(loss)
        clock.restart()

    train(watch)
    found.laps = found.laps[1:]
    return found


def compare_epochs(vectors: Floats, *, epochs: int, repeats: int) -> str:
    """The first table: the two codes in turn, the best epoch of each."""
    rows = []
    for batch_norm in (True, False):
        ours, plain = [], []
        for _ in range(repeats):
            ours.append(preset_epochs(vectors, epochs, batch_norm=batch_norm))
            plain.append(plain_epochs(vectors, epochs, batch_norm=batch_norm))
        best = [np.min([run.laps for run in runs], axis=(0, 1)) for runs in (ours, plain)]
        off = np.max(np.abs(np.divide(ours[0].losses, plain[0].losses) - 1))
        name = "as shipped, with BatchNorm" if batch_norm else "without BatchNorm"
        rows.append([
            name, *(f"{seconds:.2f}" for pair in zip(*best, strict=True) for seconds in pair),
            f"{best[0][1] / best[1][1]:.2f}", f"{ours[0].losses[-1]:.6g} / {plain[0].losses[-1]:.6g}", f"{off:.1e}",
        ])  # fmt: skip
        _say(f"one epoch, {name}: {best}")
    columns = ["LC-Rec's network", "wall s, semid", "wall s, plain PyTorch", "CPU s, semid", "CPU s, plain PyTorch",
               "ratio, CPU", f"loss of epoch {epochs}, semid / plain", "largest relative difference"]  # fmt: skip
    return markdown(columns, rows)


# ---- learning curves -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A moment of learning. `epoch` None: the fit is over, and everything is fitted once more."""

    epoch: int | None
    wall: float
    cpu: float
    distortion: float


@dataclass(frozen=True)
class Task:
    """The rows that all learn from, and those held out."""

    seen: Floats
    held: Floats
    variance: float

    def distortion(self, books: Codebooks) -> float:
        return mean_square(self.held, books.reconstruct(books.encode(self.held))) / self.variance


class Curve:
    """Points against the seconds spent on learning; looking takes none."""

    def __init__(self, task: Task) -> None:
        self.task, self.points, self.spent = task, [], np.zeros(2)
        self.clock = Stopwatch()

    def look(self, epoch: int | None, books: Callable[[], Codebooks] | None) -> None:
        """Add a point; None for books only counts the time."""
        self.spent += self.clock.lap()
        if books is not None:
            self.points.append(Point(epoch, *self.spent, self.task.distortion(books())))
            _say(f"{self.points[-1]}")
        self.clock.restart()


def lcrec_curve(task: Task, epochs: int, *, batch_norm: bool) -> list[Point]:
    """LC-Rec's recipe by semid's preset, looked at every few epochs."""
    learner = LCRecRQVAE(epochs=epochs, eval_every=epochs, batch_norm=batch_norm, device="cpu")
    shown = task.seen[:: -(-len(task.seen) // RANGE_ROWS)]
    curve = Curve(task)

    def watch(epoch: int, loss: float, trained: Callable[[], lcrec_training.LCRecTrained]) -> None:
        def books() -> Codebooks:
            now = trained()
            return Codebooks.from_float(now.encoder, now.levels, now.decoder, shown)

        curve.look(epoch, books if epoch == 1 or epoch % LOOK_EVERY == 0 else None)

    lcrec_training.train(learner, task.seen, SIZES, callback=watch)
    return curve.points


def semid_curve(task: Task) -> list[Point]:
    """semid's default, looked at after its start, after every epoch, and when it is done."""
    learner = RQVAE(codebook_size=SIZES, device="cpu")
    curve = Curve(task)

    def watch(epoch: int, trained: Callable[[], rqvae_training.Trained]) -> None:
        def books() -> Codebooks:
            now = trained()
            on_grid = Codebooks.from_float(now.encoder, now.levels, now.decoder, task.seen)
            return learner._fit_to_all(on_grid, task.seen)

        curve.look(epoch, books)

    with patch.object(rqvae_training, "train", partial(rqvae_training.train, callback=watch)):
        learner.fit(task.seen)
    curve.look(None, lambda: learner.codebooks_)
    return curve.points


def semid_start(task: Task) -> Point:
    """RQVAE(epochs=0): the start as a fit of its own."""
    learner, curve = RQVAE(codebook_size=SIZES, epochs=0, device="cpu"), Curve(task)
    learner.fit(task.seen)
    curve.look(0, lambda: learner.codebooks_)
    return curve.points[0]


def curves_table(start: Point, semid: list[Point], lcrec: list[Point]) -> str:
    """The second table; the last column is LC-Rec's whole time by each row's."""
    end = lcrec[-1]

    def row(name: str, point: Point) -> list[str]:
        return [name, f"{point.wall:.1f}", f"{point.cpu:.1f}", f"{point.distortion:.4f}", f"{end.cpu / point.cpu:.1f}"]

    rows = [row("**semid**, no training: `RQVAE(epochs=0)`, whole fit", start)]
    for point in semid:
        if point.epoch is None:
            rows.append(row("**semid**, default, whole fit", point))
        elif point.epoch in SHOWN:
            rows.append(row(f"semid, default, epoch {point.epoch}", point))
    wanted = [point for point in lcrec if point.epoch in (1, 10, 50, 100, 150) or point is end]
    rows += [row(f"LC-Rec, epoch {point.epoch}", point) for point in wanted]
    columns = ["recipe", "wall s", "CPU s", "held-out distortion", f"times as fast as LC-Rec's {end.epoch} epochs"]
    return markdown(columns, rows)


def plot(start: Point, semid: list[Point], lcrec: list[Point], path: Path) -> None:
    """Held-out distortion against CPU seconds, which are logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"svg.hashsalt": "semid", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
    for number, (name, points) in enumerate({"semid, RQVAE (default)": semid, "LC-Rec's recipe": lcrec}.items()):
        axis.plot([point.cpu for point in points], [point.distortion for point in points], marker="o", markersize=4,
                  linewidth=1.2 if number else 2.2, color=f"C{number}", label=name)  # fmt: skip
    axis.plot(start.cpu, start.distortion, "D", color="C0", markersize=7, label="semid, RQVAE(epochs=0), whole fit")
    axis.set(xscale="log", xlabel="CPU seconds of learning", ylabel="held-out distortion, share of the variance")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Read the arguments, print the tables, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of one data set")
    parser.add_argument("--embeddings", type=Path, help="its vectors (default: the folder's first by name)")
    parser.add_argument("--lcrec-epochs", type=int, default=200)
    parser.add_argument("--batch-norm", action="store_true", help="LC-Rec's curve as its script runs, not as it means")
    parser.add_argument("--plot", type=Path, help="draw the curves into this SVG file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, help="the first so many items alone, for a quick look")
    parser.add_argument("--epochs-only", action="store_true", help="the first table alone")
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    catalog = read_catalog(arguments.data, arguments.embeddings, rows=arguments.rows)
    vectors = catalog.vectors
    print(f"{machine(arguments.threads)}; {versions('torch', 'numpy', 'scikit-learn')}.\n")
    print(f"{catalog.name}: {len(vectors):,} vectors of {vectors.shape[1]} dims, 4x256.\n")
    print(f"{compare_epochs(vectors, epochs=3, repeats=2)}\n", flush=True)
    if arguments.epochs_only:
        return
    held = held_out(len(vectors), 0)
    task = Task(vectors[~held], vectors[held], mean_square(vectors, vectors.mean(axis=0, dtype=np.float64)))
    RQVAE(codebook_size=SIZES, epochs=1).fit(task.seen[:2000])  # compiles, and imports what is imported late
    start, semid = semid_start(task), semid_curve(task)
    lcrec = lcrec_curve(task, arguments.lcrec_epochs, batch_norm=arguments.batch_norm)
    print(curves_table(start, semid, lcrec), flush=True)
    if arguments.plot:
        plot(start, semid, lcrec, arguments.plot)


if __name__ == "__main__":
    main()
