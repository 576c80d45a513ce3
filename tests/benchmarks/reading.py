"""Reading 2,000,000 interactions and 200,000 items beside pandas: CPU time on one thread and peak memory.

    python -m tests.benchmarks.reading [--interactions N] [--items N] [--seed S] [--only NAME] [--repeats R]

pandas reads the same file with its default reader and, for interactions, sorts by user and time with a stable sort;
semid reads, checks, cleans and sorts. Files are written from the seed. CPU time is the best of several calls that
alternate in one process. Peak memory is that of a fresh process, less what it holds after its imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from semid.data import read_interactions, read_items
from tests.benchmarks.common import machine, markdown, versions

LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8)
PHRASES = """
    red matte nail polish with vitamin oil for dry hair the original set of brushes a long lasting liquid lipstick in
    soft pink natural organic shampoo and conditioner black travel size gift box men women face cream anti aging serum
"""
FOREIGN = ["crème", "naïve", "Lancôme", "élan", "日本", "señora"]
COLUMNS = ["file", "rows", "MB", "pandas, s", "semid, s", "ratio", "semid, rows a second", "pandas, MB", "semid, MB"]


def codes(rng: np.random.Generator, count: int, first: bytes, size: int) -> npt.NDArray[np.str_]:
    """Different codes such as B004756YJA: `first`, then random letters and digits, `size` characters in all."""
    drawn = rng.choice(LETTERS, (count + count // 50 + 10, size))
    drawn[:, : len(first)] = np.frombuffer(first, np.uint8)
    unique = np.unique(drawn.view(f"S{size}")[:, 0])
    return rng.permutation(unique)[:count].astype(str)


def write_interactions(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write the same log with strings and with integers as ids, as CSV and Parquet; and as JSONL, a tenth of it."""
    n_users, n_items = max(1, count // 20), max(1, count // 40)
    users = rng.zipf(1.3, count) % n_users
    items = rng.zipf(1.2, count) % n_items
    times = rng.integers(1_300_000_000, 1_600_000_000, count)
    for kind in ("strings", "integers"):
        if kind == "strings":
            columns = [codes(rng, n_users, b"A", 14)[users], codes(rng, n_items, b"B0", 10)[items]]
        else:
            columns = [rng.permutation(n_users)[users], rng.permutation(n_items)[items]]
        table = pa.table(dict(zip(("user", "item", "timestamp"), [*columns, times], strict=True)))
        pa.csv.write_csv(table, folder / f"log_{kind}.csv", pa.csv.WriteOptions(quoting_style="needed"))
        pa.parquet.write_table(table, folder / f"log_{kind}.parquet")
        if kind == "strings":
            dates = pa.array(times, pa.timestamp("s")).cast(pa.string())
            dated = table.set_column(2, "timestamp", dates)
            pa.csv.write_csv(dated, folder / "log_dates.csv", pa.csv.WriteOptions(quoting_style="needed"))
            with open(folder / "log_strings.jsonl", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in table.slice(0, count // 10).to_pylist())


def write_items(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write the same catalog as JSONL and CSV: 5 % of the texts are not ASCII, 4 % hold entities or doubled blanks."""
    ids = codes(rng, count, b"B0", 10)
    brands = codes(rng, 3000, b"", 7)
    words = np.array(PHRASES.split())

    def text(size: int) -> str:
        drawn = list(words[rng.integers(0, len(words), size)])
        odd = rng.random()
        if odd < 0.05:
            drawn.insert(size // 2, FOREIGN[int(odd * 1000) % len(FOREIGN)])
        elif odd < 0.07:
            drawn.insert(size // 2, "&amp;")
        elif odd < 0.09:
            drawn.insert(size // 2, " ")
        return " ".join(drawn).capitalize()

    rows = [
        {
            "id": item_id,
            "title": text(int(rng.integers(5, 12))),
            "brand": brands[int(rng.zipf(1.3)) % len(brands)],
            "categories": f"Beauty, {words[int(rng.integers(0, 20))]}, {words[int(rng.integers(0, 20))]}",
            "description": text(int(rng.integers(20, 60))) if rng.random() < 0.8 else "",
            "price": round(float(rng.gamma(2, 10)), 2),
        }
        for item_id in ids.tolist()
    ]
    with open(folder / "items.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    pd.DataFrame(rows).to_csv(folder / "items.csv", index=False)


def pandas_log(read: Callable[..., pd.DataFrame]) -> Callable[[Path], object]:
    return lambda path: read(path).sort_values(["user", "timestamp"], kind="stable")


# file -> (how pandas reads it, how semid does)
CASES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "log_strings.csv": (pandas_log(pd.read_csv), read_interactions),
    "log_integers.csv": (pandas_log(pd.read_csv), read_interactions),
    "log_dates.csv": (pandas_log(lambda path: pd.read_csv(path, parse_dates=["timestamp"])), read_interactions),
    "log_strings.parquet": (pandas_log(pd.read_parquet), read_interactions),
    "log_integers.parquet": (pandas_log(pd.read_parquet), read_interactions),
    "log_strings.jsonl": (pandas_log(lambda path: pd.read_json(path, lines=True)), read_interactions),
    "items.jsonl": (lambda path: pd.read_json(path, lines=True), lambda path: read_items(path, on_warning=str)),
    "items.csv": (pd.read_csv, lambda path: read_items(path, on_warning=str)),
}


def one_thread() -> None:
    """Let pyarrow and pandas, which reads large CSV files in several threads from 3.1 on, use one thread."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with contextlib.suppress(pd.errors.OptionError):  # before 3.1 there is no such option, and one thread
        pd.set_option("mode.max_threads", 1)


def peak_so_far() -> float:
    """Return the peak memory of this process in megabytes.

    On Linux not by getrusage: a child inherits the peak of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def peak(name: str, reader: int, path: Path) -> float:
    """Return the megabytes that reading adds to the peak of this process."""
    one_thread()
    before = peak_so_far()
    held = CASES[name][reader](path)
    after = peak_so_far()
    del held
    return after - before


def alone(function: Callable[..., float], *arguments: object) -> float:
    """Call in a fresh process, so that memory peaks do not mix."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(name: str, path: Path, rows: int, repeats: int) -> list[str]:
    """Return a row of the table."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats):
        for reader, read in enumerate(CASES[name]):
            start = time.process_time()
            held = read(path)
            best[reader] = min(best[reader], time.process_time() - start)
            del held
    megabytes = [alone(peak, name, reader, path) for reader in (0, 1)]
    return [
        name,
        f"{rows:,}",
        f"{os.path.getsize(path) / 1e6:.0f}",
        f"{best[0]:.2f}",
        f"{best[1]:.2f}",
        f"{best[1] / best[0]:.2f}",
        f"{rows / best[1]:,.0f}",
        *(f"{size:,.0f}" for size in megabytes),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the files there, and use those that are there")
    arguments = parser.parse_args()
    one_thread()
    print(f"{machine(1)}; {versions('numpy', 'pandas', 'pyarrow')}\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.folder or Path(name)
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(arguments.seed)
        if not (folder / "items.csv").exists():
            write_interactions(folder, arguments.interactions, rng)
            write_items(folder, arguments.items, rng)
        rows = {"log": arguments.interactions, "items": arguments.items}
        table = []
        for case in CASES:
            if arguments.only in case:
                count = rows[case.split("_")[0].split(".")[0]] // (10 if case == "log_strings.jsonl" else 1)
                table.append(measure(case, folder / case, count, arguments.repeats))
                print(" ".join(table[-1]), file=sys.stderr, flush=True)
    print(markdown(COLUMNS, table))


if __name__ == "__main__":
    main()
