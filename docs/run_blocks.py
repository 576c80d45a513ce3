"""Run the command and Python blocks of a Markdown page, and compare or renew the output that it shows.

    python docs/run_blocks.py README.md              # say what differs
    python docs/run_blocks.py README.md --update     # write the real output into the page

A block marked `console` holds commands after `$ `, each with its output (stdout and stderr together). In a block
marked `python`, the comment behind an expression is its repr. A block marked with a language and a name, as
`csv movies.csv`, is a file of that name. All blocks of a page run in order, in one copy of the clone and one Python.
Blocks of other kinds are for reading.

Learning gives the same result again on one machine with one number of threads, here 1. On another CPU, or with other
library versions, the last bits of a matrix product differ, and with them codes; the fingerprint tells. So where the
page's fingerprint comes out, all else must be equal to the letter; where another one does, words must be equal and
figures of the same size (`alike`).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = Path("semid", "datasets", "debian-3000.jsonl")
BLOCK = re.compile(r"^```(console|python|\w+ \S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
TOKEN = re.compile(r"<(?:s_)?[a-z]_\d+>")
NUMBER = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
# Figures of another machine differ by up to this factor, or this much; the largest share of a code, by most.
TIMES, FEW = 3, 10
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Page:
    """A page as it is, and as it would be with the output of its blocks as they ran now."""

    path: Path
    text: str
    renewed: str

    @property
    def same_fingerprints(self) -> bool:
        """Did every artifact come out as the page says?"""
        return FINGERPRINT.findall(self.text) == FINGERPRINT.findall(self.renewed)

    def differences(self) -> list[str]:
        """Lines of a diff; empty if the page shows what happens."""
        if self.text == self.renewed or (not self.same_fingerprints and alike(self.text, self.renewed)):
            return []
        old, new = self.text.splitlines(), self.renewed.splitlines()
        return list(difflib.unified_diff(old, new, str(self.path), "as it ran", lineterm="", n=1))


def run_page(path: Path) -> Page:
    """Run all blocks of a page in a copy of the clone; RuntimeError if one fails."""
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        shutil.copytree(ROOT / "docs" / "examples", clone / "docs" / "examples")
        (clone / SAMPLE).parent.mkdir(parents=True)
        shutil.copy(ROOT / SAMPLE, clone / SAMPLE)
        names: dict[str, object] = {}

        def renew(block: re.Match[str]) -> str:
            kind, body = block.groups()
            if kind == "console":
                body = _run_console(body, clone)
            elif kind == "python":
                body = _run_python(body, clone, names)
            else:
                path = clone / kind.split()[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body, encoding="utf-8")
            return f"```{kind}\n{body}```"

        return Page(path, text, BLOCK.sub(renew, text))


def alike(page: str, other: str) -> bool:
    """Do two pages say the same but for codes, fingerprints and the size of figures, line by line?

    A line with tokens of a different item than before, as in a list of neighbors, counts as the same.

    >>> alike("perplexity 202.1", "perplexity 198.4"), alike("10 codes used", "90 codes used")
    (True, False)
    """
    lines, others = page.splitlines(), other.splitlines()
    return len(lines) == len(others) and all(map(_alike, lines, others))


def _alike(line: str, other: str) -> bool:
    if TOKEN.search(line) and TOKEN.search(other):
        return len(TOKEN.findall(line)) == len(TOKEN.findall(other))
    line, other = FINGERPRINT.sub("sha256:", line), FINGERPRINT.sub("sha256:", other)
    if NUMBER.sub("#", line) != NUMBER.sub("#", other):
        return False
    pairs = zip(map(_value, NUMBER.findall(line)), map(_value, NUMBER.findall(other)), strict=True)
    return all(abs(a - b) <= FEW or 1 / TIMES <= a / b <= TIMES for a, b in pairs)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _run_console(body: str, clone: Path) -> str:
    """The block's commands, each followed by what it prints."""
    shown = ""
    for command in re.findall(r"^\$ (.*(?:\\\n.*)*)", body, re.MULTILINE):
        done = _run(["bash", "-c", command], clone)
        shown += f"$ {command}\n{done}"
    return shown


def _run(command: list[str], clone: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | ONE_THREAD | {"PATH": path, "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _run_python(body: str, clone: Path, names: dict[str, object]) -> str:
    """The block's statements, the comment behind each expression replaced by its repr."""
    lines = body.splitlines()
    before = Path.cwd()
    os.chdir(clone)
    try:
        for statement in ast.parse(body).body:
            if not isinstance(statement, ast.Expr):
                exec(compile(ast.Module([statement], []), "page", "exec"), names)
                continue
            value = eval(compile(ast.Expression(statement.value), "page", "eval"), names)
            last = statement.end_lineno - 1
            code, mark, _ = lines[last].partition("  # ")
            if mark:
                lines[last] = f"{code}{mark}{value!r}"
    finally:
        os.chdir(before)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare pages, or renew them with --update; 1 if a page shows something else than what happens."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--update", action="store_true", help="write the real output into the pages")
    options = parser.parse_args()
    wrong = 0
    for page in map(run_page, options.pages):
        if options.update:
            page.path.write_text(page.renewed, encoding="utf-8")
        elif found := page.differences():
            wrong = 1
            sys.stdout.write("\n".join(found) + "\n")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
