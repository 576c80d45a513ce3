"""Balancing a catalog's last level to 1 % by entropic transport: rounds, time and memory, as a Markdown table.

    python -m tests.benchmarks.sinkhorn [--items 100000,1000000] [--threads 1] [--dense 100000]

The items are those of `uniqueness.py`: 32-d latents of a hierarchical mixture, residual after three levels of 256
codes; epsilon = 0.003 of half the range of the squared distances. Every form runs in a process of its own, on the
same file, until no code's share is off by more than 1 %, and the error of what it found is then measured in float64,
always in the same way: with rows that sum to 1, the largest relative error of a column sum. Forms that hold the whole
matrix run up to --dense items.

- semid: `semid.kernels.sinkhorn`, float32 blocks, accelerated;
- log domain: the textbook form in float64, log-sum-exp over rows, then over columns;
- LC-Rec: its scaling form in float64, plan /= row sums, plan /= column sums, as its code has it, stopped at 1 %;
- POT: `ot.sinkhorn(method="sinkhorn")`, float64; it cannot stop at this error, so the timed run is given the fewest
  tens of rounds that reach it, found beforehand.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.common import machine, markdown, use_threads, versions
from tests.benchmarks.uniqueness import SIZE, Case, alone, greedy, learn, mixture

EPSILON = 0.003
TOLERANCE = 0.01
MOST_ROUNDS = 1000
LEVELS = 4
BLOCK = 8192


def prepare(n_items: int, folder: Path) -> None:
    """Write the residual float32 [N, 32] before the last level and that level's centroids float32 [K, 32]."""
    latents = mixture(Case("", n_items, LEVELS, duplicates=0.0))
    codebooks = learn(latents, LEVELS)
    codes = greedy(latents, codebooks)
    for level in range(LEVELS - 1):
        latents -= codebooks[level][codes[:, level]]
    np.save(folder / "residual.npy", latents)
    np.save(folder / "centroids.npy", codebooks[-1])


def semid(residual: torch.Tensor, centroids: torch.Tensor) -> tuple[int, torch.Tensor]:
    from semid.kernels.sinkhorn import sinkhorn_potentials

    found = sinkhorn_potentials(residual, centroids, epsilon=EPSILON, rounds=MOST_ROUNDS, tolerance=TOLERANCE)
    return found.rounds, found.bias


def log_domain(residual: torch.Tensor, centroids: torch.Tensor) -> tuple[int, torch.Tensor]:
    logits, unit = dense_logits(residual, centroids)
    fair = len(residual) / len(centroids)
    potential = torch.zeros(len(centroids), dtype=torch.float64)
    for done in range(1, MOST_ROUNDS + 1):
        rows = torch.logsumexp(logits + potential, dim=1, keepdim=True)
        columns = torch.logsumexp(logits - rows, dim=0) + potential
        if done == MOST_ROUNDS or float((columns.exp() / fair - 1).abs().max()) <= TOLERANCE:
            return done, potential * (unit / 2)
        potential += math.log(fair) - columns
    raise AssertionError


def lcrec(residual: torch.Tensor, centroids: torch.Tensor) -> tuple[int, torch.Tensor]:
    logits, unit = dense_logits(residual, centroids)
    first, plan = logits[0].clone(), logits.exp_()
    plan /= plan.sum()
    n_items, n_codes = plan.shape
    for done in range(1, MOST_ROUNDS + 1):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= n_items
        columns = plan.sum(dim=0, keepdim=True)
        if done == MOST_ROUNDS or float((columns * n_codes - 1).abs().max()) <= TOLERANCE:
            return done, (plan[0].log() - first) * (unit / 2)  # plan = exp(row's number + potential + logit)
        plan /= columns
        plan /= n_codes
    raise AssertionError


def pot(residual: torch.Tensor, centroids: torch.Tensor, rounds: int) -> tuple[int, torch.Tensor]:
    import ot

    logits, unit = dense_logits(residual, centroids)
    n_items, n_codes = logits.shape
    cost = (logits * -EPSILON).numpy()
    del logits
    _, log = ot.sinkhorn(
        np.full(n_items, 1 / n_items), np.full(n_codes, 1 / n_codes), cost, EPSILON,
        method="sinkhorn", numItermax=rounds, stopThr=0, log=True, warn=False,
    )  # fmt: skip
    return rounds, torch.from_numpy(log["v"]).log() * (unit / 2)


FORMS: dict[str, tuple[str, Callable]] = {
    "semid": ("semid, streaming float32", semid),
    "log": ("log domain, dense float64", log_domain),
    "lcrec": ("LC-Rec's scaling, dense float64", lcrec),
    "pot": ("POT's `sinkhorn`, dense float64", pot),
}


def dense_logits(residual: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, float]:
    """float64 [N, K], minus the squared distances centered to [-1, 1] and divided by epsilon; and their unit."""
    distances = torch.cdist(residual.double(), centroids.double()).square_()
    low, high = float(distances.min()), float(distances.max())
    unit = EPSILON * (high - low) / 2
    return distances.sub_((high + low) / 2).div_(-unit), unit


def column_error(residual: torch.Tensor, centroids: torch.Tensor, bias: torch.Tensor) -> float:
    """Largest relative error of a column sum of the plan under a bias of the scores, in float64."""
    low, high = math.inf, -math.inf
    for rows in residual.split(BLOCK):
        distances = torch.cdist(rows.double(), centroids.double()).square_()
        low, high = min(low, float(distances.min())), max(high, float(distances.max()))
    unit = EPSILON * (high - low) / 2
    columns = torch.zeros(len(centroids), dtype=torch.float64)
    for rows in residual.split(BLOCK):
        distances = torch.cdist(rows.double(), centroids.double()).square_()
        columns += torch.softmax((2 * bias - distances) / unit, dim=1).sum(dim=0)
    return float((columns * len(centroids) / len(residual) - 1).abs().max())


def measure(form: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one form: rounds, seconds by the clock and of CPU, bytes beyond the items, and the error measured."""
    use_threads(threads)
    residual, centroids = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("residual", "centroids"))
    run = FORMS[form][1]
    run(residual[:2000], centroids, *([10] if form == "pot" else []))  # imports and warms up
    more = [fewest_tens(residual, centroids)] if form == "pot" else []
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before = memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    rounds, bias = run(residual, centroids, *more)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = memory("VmHWM") - before
    error = column_error(residual, centroids, bias - bias.mean())
    return {"rounds": rounds, "seconds": seconds, "cpu": cpu, "peak": peak, "error": error}


def memory(what: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def fewest_tens(residual: torch.Tensor, centroids: torch.Tensor) -> int:
    """Rounds that POT needs, in tens."""
    for rounds in range(10, MOST_ROUNDS + 1, 10):
        _, bias = pot(residual, centroids, rounds)
        if column_error(residual, centroids, bias - bias.mean()) <= TOLERANCE:
            return rounds
    return MOST_ROUNDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", default="100000,1000000", help="sizes, with commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dense", type=int, default=100_000, help="the most items of forms that hold the matrix")
    arguments = parser.parse_args()
    rows = []
    for n_items in map(int, arguments.items.split(",")):
        with tempfile.TemporaryDirectory() as name:
            alone(prepare, n_items, Path(name))
            for form, (title, _) in FORMS.items():
                if form != "semid" and n_items > arguments.dense:
                    continue
                try:
                    found = alone(measure, form, Path(name), arguments.threads)
                except ModuleNotFoundError as missing:
                    rows.append([f"{n_items:,}", title, f"not measured: {missing.name} is not installed", *["-"] * 4])
                    continue
                figures = [f"{found['rounds']}", f"{found['seconds']:.2f}", f"{found['cpu']:.2f}"]
                figures += [f"{found['peak'] / 1e6:,.0f}", f"{found['error']:.2%}"]
                rows.append([f"{n_items:,}", title, *figures])
    print(f"K = {SIZE}, d = 32, epsilon = {EPSILON}\n")
    print(machine(arguments.threads))
    print(versions("semid", "torch", "POT", "numpy"), end="\n\n")
    print(markdown(("N", "form", "rounds to 1 %", "seconds", "CPU seconds", "peak memory, MB", "marginal error"), rows))


if __name__ == "__main__":
    main()
