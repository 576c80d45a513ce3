"""Kill commands of semid at random points, look at the folder, and run them again.

This is a program of its own because it forks: imports happen once, before the first fork, while no thread runs.

    python -m tests.faults.killing FOLDER KILLS SEED

FOLDER holds the artifact `old` and the source new (.jsonl and .npy). Prints a JSON line for each kill.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np

from semid import cli
from semid.artifact.store import load
from semid.diagnostics import verify_artifact
from semid.errors import ArtifactError

__all__ = ["COMMANDS"]

NEEDED = (  # modules that the commands import
    "semid.pipeline.add", "semid.evaluation.advice", "semid.pipeline.update", "semid.encoders.vectors",
    "semid.quantize.nearest_numba", "semid.pipeline.refit",
    "faiss", "scipy.optimize", "scipy.sparse", "sklearn.decomposition", "sklearn.utils.extmath", "torch",
)  # fmt: skip
CALLS = ("open", "write", "pwrite", "fsync", "ftruncate", "replace", "unlink", "mkdir")
SMALL = ("--method", "rqkmeans", "--levels", "3", "--codebook-size", "4")
COMMANDS = {  # name -> arguments; OUT is the folder that is written
    "add": ("add", "OUT", "new.jsonl", "--embeddings", "new.npy"),
    "retire": ("retire", "OUT", "i0000", "i0001"),
    "fit": ("fit", "new.jsonl", "--embeddings", "new.npy", *SMALL, "-o", "OUT"),
    "fit over": ("fit", "new.jsonl", "--embeddings", "new.npy", *SMALL, "-o", "OUT", "--force"),
    "refit": ("refit", "old", "new.jsonl", "--embeddings", "new.npy", "-o", "OUT"),
}
CHANGING = ("add", "retire", "fit over")  # commands that start from a copy of `old`


class Run:
    """Run a command in a forked process, killed at a system call, after some seconds, or not at all."""

    def __init__(self, words: tuple[str, ...], *, call: int = 0, share: float = 0.0, seconds: float | None = None):
        self.started = time.perf_counter()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = self._in_child(words, call, share)
            finally:
                os._exit(code)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.seconds = time.perf_counter() - self.started
        self.code, self.killed = status, status == -signal.SIGKILL

    def _in_child(self, words: tuple[str, ...], call: int, share: float) -> int:
        log = os.open("log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        count = [0]
        for name in CALLS:
            setattr(os, name, _dying(name, getattr(os, name), count, call, share))
        sys.argv = ["semid", *words]
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        Path("calls").write_text(str(count[0]))
        return code


def _dying(name, real, count, fatal, share):
    """Wrap a call of `os`: the call with number `fatal` kills the process; a write is done in part by then."""

    def call(*args, **kwargs):
        count[0] += 1
        if count[0] == fatal:
            if name == "write":
                real(args[0], memoryview(args[1])[: int(share * len(args[1]))])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return call


def state_of(folder: Path, marks: dict[str, str]) -> str:
    """Return which artifact is there: a name of `marks`, "none", or what is wrong with it."""
    if not (folder / "semid.json").exists():
        with contextlib.suppress(ArtifactError):
            load(folder)
            return "loads without a manifest"
        return "none"
    problems, mark = verify_artifact(folder)
    problems = [line for line in problems if ".tsv: " not in line]  # the tables for people may be out of date
    return "; ".join(problems) or next((name for name in marks if marks[name] == mark), f"unknown: {mark}")


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


class Killing:
    """Kill one command again and again, each time in a folder restored to its first state."""

    def __init__(self, name: str) -> None:
        self.name, self.out, self.words = name, Path("out"), tuple(w.replace("OUT", "out") for w in COMMANDS[name])
        self.prepare()
        self.duration = self.run().seconds
        self.n_calls = int(Path("calls").read_text())
        self.marks = {"old": load(Path("old")).fingerprint, "new": load(self.out).fingerprint}

    def prepare(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self.name in CHANGING:
            shutil.copytree("old", self.out)

    def run(self, **point) -> Run:
        """Run the command to its end, or to the given point."""
        force = () if point or "--force" in self.words or self.name in CHANGING else ("--force",)
        done = Run((*self.words, *(force if (self.out / "semid.json").exists() else ())), **point)
        if not point and done.code:
            raise SystemExit(f"{self.name}: exit code {done.code}: {Path('log').read_text()}")
        return done

    def kills(self, count: int, rng: np.random.Generator) -> Iterator[dict]:
        """Kill half of the runs at a system call, half at a moment; each half is spread over the whole command."""
        for number in range(count):
            at = (number // 2 + rng.random()) / ((count + 1) // 2)
            if number % 2 == 0:
                point = {"call": 1 + int(at * self.n_calls), "share": float(rng.random())}
            else:
                point = {"seconds": at * self.duration}
            self.prepare()
            while not self.run(**point).killed:  # faster than the first time
                point["seconds"] *= 0.8
                self.prepare()
            state = state_of(self.out, self.marks)
            self.run()
            again, left = state_of(self.out, self.marks), litter(self.out)
            yield {
                "command": self.name, "point": point, "of": [self.n_calls, self.duration],
                "state": state, "again": again, "litter": left,
            }  # fmt: skip


def main(folder: str, kills: str, seed: str) -> None:
    os.chdir(folder)
    rng = np.random.default_rng(int(seed))
    for module in NEEDED:
        importlib.import_module(module)
    numba.njit(lambda: 0)()  # imports the rest of numba
    for number, name in enumerate(COMMANDS):
        share = len(range(number, int(kills), len(COMMANDS)))
        for told in Killing(name).kills(share, rng):
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
