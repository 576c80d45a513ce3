"""Simulate power cuts: record what a writer does to a folder, and build what a power cut could leave of it.

The content of a file is durable once the file was synced, a name (created, renamed, removed) once its folder was. Of
everything else any part may survive: the first bytes of a file, or as many zeros; any of the names, in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Disk", "Step"]

Names = dict[str, int]  # path below the root -> file


@dataclass
class Step:
    """One thing done: "write" (file, bytes), "truncate" (file), "sync" (file), "name" (path, file), "rename" (path,
    path, file), "remove" (path), "folder" (path), "sync folder" (path), or "done", the end."""

    kind: str
    of: tuple = ()


@dataclass
class Disk:
    """The content of the folder `root`, and every step since recording began."""

    root: Path
    files: dict[int, bytes] = field(default_factory=dict)  # content at the start, all of it durable
    names: Names = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in sorted(self.root.rglob("*")):
            if path.is_dir():
                self.folders.add(self.place(path))
            else:
                self.names[self.place(path)] = len(self.files)
                self.files[len(self.files)] = path.read_bytes()

    def place(self, path: object) -> str | None:
        """Return the path relative to the root, or None for a path elsewhere."""
        try:
            return Path(os.path.abspath(os.fspath(path))).relative_to(self.root.absolute()).as_posix()
        except (TypeError, ValueError):
            return None

    # ---- recording

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record every call of `os` that changes the folder, and make it."""
        now, opened = dict(self.names), {}  # names as they are now; descriptor -> file, or the place of a folder
        counter = iter(range(len(self.files), 1 << 30))
        real = {name: getattr(os, name) for name in ("open", "close", *WATCHED)}

        def note(kind: str, *of: object) -> None:
            self.steps.append(Step(kind, of))

        def open_(path, flags, *args, **kwargs):
            place, new = self.place(path), not os.path.lexists(path)
            descriptor = real["open"](path, flags, *args, **kwargs)
            if place is not None:
                if os.path.isdir(path):
                    opened[descriptor] = place
                else:
                    if new:
                        now[place] = next(counter)
                        note("name", place, now[place])
                    opened[descriptor] = now[place]
            return descriptor

        def close(descriptor):
            opened.pop(descriptor, None)
            return real["close"](descriptor)

        def write(descriptor, block):
            n_bytes = real["write"](descriptor, block)
            if descriptor in opened:
                note("write", opened[descriptor], bytes(memoryview(block)[:n_bytes]))
            return n_bytes

        def pwrite(descriptor, block, offset):
            assert offset == 0
            if descriptor in opened:
                note("write", opened[descriptor], bytes(block))
            return real["pwrite"](descriptor, block, offset)

        def ftruncate(descriptor, length):
            assert length == 0
            if descriptor in opened:
                note("truncate", opened[descriptor])
            return real["ftruncate"](descriptor, length)

        def fsync(descriptor):
            real["fsync"](descriptor)
            if descriptor in opened:
                of = opened[descriptor]
                note("sync folder" if isinstance(of, str) else "sync", of)

        def replace(source, target, **kwargs):
            real["replace"](source, target, **kwargs)
            old, new = self.place(source), self.place(target)
            if new is not None:
                now[new] = now.pop(old)
                note("rename", old, new, now[new])

        def unlink(path, **kwargs):
            real["unlink"](path, **kwargs)
            if (place := self.place(path)) is not None:
                del now[place]
                note("remove", place)

        def mkdir(path, *args, **kwargs):
            real["mkdir"](path, *args, **kwargs)
            if (place := self.place(path)) is not None:
                note("folder", place)

        fakes = {"open": open_, "close": close, "write": write, "pwrite": pwrite, "ftruncate": ftruncate}
        fakes |= {"fsync": fsync, "replace": replace, "unlink": unlink, "mkdir": mkdir}
        for name, fake in fakes.items():
            setattr(os, name, fake)
        try:
            yield
            note("done")
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    # ---- what a power cut leaves

    def after_cut(self, n_steps: int, target: Path, rng: np.random.Generator) -> None:
        """Build in `target` what could be on the disk after a power cut that follows `n_steps` steps."""
        sure, unsure, names, folders, pending = dict(self.files), {}, dict(self.names), set(self.folders), []
        for step in self.steps[:n_steps]:
            match step.kind, step.of:
                case "write", (file, block):
                    unsure[file] = unsure.get(file, sure.get(file, b"")) + block
                case "truncate", (file,):
                    unsure[file] = b""
                case "sync", (file,):
                    sure[file] = unsure.pop(file, sure.get(file, b""))
                case "sync folder", (place,):
                    for one in [one for one in pending if _folder_of(one) == place]:
                        _apply(one, names, folders)
                        pending.remove(one)
                case (("name" | "rename" | "remove" | "folder"), _):
                    pending.append(step)
        share = rng.choice([0.0, 0.5, 1.0])  # none, some, or all of the pending names
        for step in pending:
            if rng.random() < share:
                _apply(step, names, folders)
        self._build(target, names, folders, {file: _part(rng, unsure, sure, file) for file in {*sure, *unsure}})

    def _build(self, target: Path, names: Names, folders: set[str], files: dict[int, bytes]) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for place in sorted(folders):
            if all(parent.as_posix() in {*folders, "."} for parent in Path(place).parents):
                (target / place).mkdir()
        for place, file in names.items():
            if (target / place).parent.is_dir():
                (target / place).write_bytes(files.get(file, b""))


WATCHED = ("write", "pwrite", "ftruncate", "fsync", "replace", "unlink", "mkdir")


def _folder_of(step: Step) -> str:
    """Return the folder of a name; both names of a rename are in one folder."""
    return Path(step.of[0]).parent.as_posix()


def _apply(step: Step, names: Names, folders: set[str]) -> None:
    match step.kind, step.of:
        case "name", (place, file):
            names[place] = file
        case "rename", (old, new, file):
            names.pop(old, None)
            names[new] = file
        case "remove", (place,):
            names.pop(place, None)
        case "folder", (place,):
            folders.add(place)


def _part(rng: np.random.Generator, unsure: dict[int, bytes], sure: dict[int, bytes], file: int) -> bytes:
    """Return what a file may hold: durable bytes, all that was written, a part of it, or zeros at its end."""
    if file not in unsure:
        return sure[file]
    wanted, before = unsure[file], sure.get(file, b"")
    cut = int(rng.integers(0, len(wanted) + 1))
    return [before, wanted, wanted[:cut], wanted[:cut] + bytes(len(wanted) - cut)][int(rng.integers(4))]
