"""Changing, opening and asking artifacts of growing size, as a Markdown table.

    python -m tests.benchmarks.changes [--items 100000,1000000,10000000] [--folder DIR]

Artifacts of synthetic vectors (the mixture of `encode.py`, 32 dims, 4 x 256 codes; codebooks learned from 100,000 of
them). Then, as a user would, by commands, each a process of its own: `semid add` of 1,000 items, `semid retire` of
ten. In this process: opening the folder, and looking up 10,000 ids and their codes, both the best of five, after one
that brings the pages into memory. Wall seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from semid.assign.unique import assign_unique
from semid.config import SemanticIDConfig
from semid.ledger.ledger import Ledger
from semid.tokenizer import SemanticIDTokenizer
from semid.tokens.vocabulary import Vocabulary
from semid.train.residual_kmeans import ResidualKMeans
from tests.benchmarks.common import machine, markdown, versions
from tests.benchmarks.encode import LEVELS, SIZE, mixture

DIMS = 32
LEARNED_FROM = 100_000
ADDED, RETIRED, ASKED = 1000, 10, 10_000


def made(n_items: int, folder: Path) -> np.ndarray:
    """An artifact of `n_items` items in `folder`; returns vectors of further items."""
    vectors, more = np.split(mixture(n_items + ADDED, DIMS), [n_items])
    config = SemanticIDConfig(method="rqkmeans", levels=LEVELS, codebook_size=SIZE, dim=DIMS)
    learner = ResidualKMeans(levels=LEVELS, codebook_size=SIZE, dim=DIMS, pull=0.0)
    codebooks = learner.fit(vectors[:: max(1, n_items // LEARNED_FROM)]).codebooks_
    latents = codebooks.latents(vectors)
    codes = assign_unique(latents, codebooks.encode_latents(latents), codebooks.levels).codes
    ids = SemanticIDTokenizer(
        config=config,
        vocabulary=Vocabulary(config.sizes),
        ledger=Ledger.create((f"item-{i:08d}" for i in range(n_items)), codes),
        learned=codebooks,
        encoder_state=({}, {"kind": "vectors", "dim": DIMS}),
        provenance={},
        text_fields=[],
    )
    ids.save_pretrained(folder)
    return more


def command(*words: str) -> float:
    """Wall seconds of a command in a process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "semid", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def best(work, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def measure(n_items: int, folder: Path) -> list[str]:
    sid = folder / str(n_items)
    start = time.perf_counter()
    new_vectors = made(n_items, sid)
    print(f"{n_items:,}: made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    ids = SemanticIDTokenizer.from_pretrained(sid)
    rng = np.random.default_rng(1)
    asked = [f"item-{i:08d}" for i in rng.integers(n_items, size=ASKED)]
    codes = ids.encode(asked)
    opening = best(lambda: SemanticIDTokenizer.from_pretrained(sid))
    looking = best(lambda: SemanticIDTokenizer.from_pretrained(sid).encode(asked))
    decoding = best(lambda: SemanticIDTokenizer.from_pretrained(sid).decode(codes.astype(np.int64)))

    (folder / "new.jsonl").write_text("".join(json.dumps({"id": f"new-{i}"}) + "\n" for i in range(ADDED)))
    np.save(folder / "new.npy", new_vectors)
    adding = command("add", str(sid), str(folder / "new.jsonl"), "--embeddings", str(folder / "new.npy"))
    retiring = command("retire", str(sid), *[f"new-{i}" for i in range(RETIRED)])
    assert len(SemanticIDTokenizer.from_pretrained(sid)) == n_items + ADDED
    return [
        f"{n_items:,}", f"{adding:.2f}", f"{retiring:.2f}", f"{1e3 * opening:.1f}", f"{1e3 * looking:.1f}",
        f"{1e3 * decoding:.1f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", default="100000,1000000,10000000")
    parser.add_argument("--folder", type=Path, help="where to put the artifacts; by default a temporary folder")
    arguments = parser.parse_args()
    print(f"{machine(1)}; {versions('numpy')}\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = [measure(int(n), Path(folder)) for n in arguments.items.split(",")]
    head = ["items", "add 1,000 (s)", "retire 10 (s)", "open (ms)", "look up 10,000 ids (ms)", "decode 10,000 (ms)"]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
