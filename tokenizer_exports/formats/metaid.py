"""Read META ID's published index files of users and items as ClusterTokens, and write them back line for line.

    {"B007ZBUQ1A": ["<CT79>", "<1220>"], ...}       JSON, plain or gzipped, as `semid/data/index_files.py` reads it
    B007ZBUQ1A <CT79><1220>                         the text form that META ID's code reads and writes

`<CT79>` is the cluster, `<1220>` the rank within it, counted from 1001. Users and items share the clusters. Reading
needs only NumPy. A centroid file, .npz with `tokens` and `vectors`, gives the clusters their vectors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.clusters.tokens import ClusterTokens, members_of
from semid.data.index_files import read_index
from semid.errors import InputError
from semid.files.problems import Problems, quote
from semid.tokens.vocabulary import Vocabulary

__all__ = ["metaid_lines", "read_metaid"]

LINE = re.compile(r"(\S+) <CT(0|[1-9][0-9]{0,4})><([1-9][0-9]{3,5})>")
TEMPLATES = ["<CT{}>", "<{}>"]
FIRST_RANK = 1001  # rank 0 as written
Source = str | os.PathLike[str]


def read_metaid(users: Source, items: Source, centroids: Source | None = None) -> ClusterTokens:
    """Read the published IDs of users and of items from two files.

    The vocabulary holds exactly the tokens that occur, so `n_tokens` is what a model needs. Ids are sorted.

    Parameters
    ----------
    users, items
        Index files: JSON, plain or gzipped, or text if the name ends in .txt.
    centroids
        An .npz file with `tokens` and `vectors`. Default: none; the clusters then have no vectors.

    Raises
    ------
    InputError
        A file has another form or other tokens; two users or items have the same tokens; clusters or ranks have gaps;
        or the centroids do not match the clusters.
    OSError
        A file cannot be opened.
    """
    tables = {str(path): _read(Path(path)) for path in (users, items)}
    (user_ids, user_codes), (item_ids, item_codes) = (tables[str(path)] for path in (users, items))
    codes = np.concatenate([user_codes, item_codes])
    _check_codes(codes, [*user_ids, *item_ids], f"{users}, {items}")
    sizes = (codes.max(axis=0) + 1).tolist()
    vocabulary = Vocabulary(sizes, "metaid")
    vectors = _centroids(Path(centroids), sizes[0]) if centroids else np.zeros((sizes[0], 0), np.float32)
    nowhere = np.zeros((len(codes), vectors.shape[1]), np.float16)  # the files hold no vectors of users and items
    return ClusterTokens(
        vocabulary,
        members_of(user_ids, user_codes, nowhere[: len(user_ids)], vocabulary),
        members_of(item_ids, item_codes, nowhere[len(user_ids) :], vocabulary),
        vectors,
        None,
        {"user": (0, sizes[0]), "item": (0, sizes[0]), "reserved": (sizes[0], sizes[0])},
        {},
        {"imported_from": [Path(users).name, Path(items).name]},
    )


def metaid_lines(ids: Iterable[str], tokens: Iterable[str]) -> Iterator[str]:
    """Yield the lines of an index file in META ID's text form, without line ends.

    Raises
    ------
    InputError
        An id is empty or holds blanks.

    >>> list(metaid_lines(["B1"], ["<CT0><1001>"]))
    ['B1 <CT0><1001>']
    """
    for one, text in zip(ids, tokens, strict=True):
        if not one or any(character.isspace() for character in one):
            raise InputError(f"id {one!r} holds blanks, which end an id in META ID's files. Rename it.")
        yield f"{one} {text}"


def _read(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return sorted ids and their codes int64 [N, 2]."""
    ids, codes = _read_text(path) if path.suffix == ".txt" else _read_json(path)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[row] for row in order], codes[order]


def _read_json(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    index = read_index(path)
    if index.templates != TEMPLATES or (index.codes < 0).any():
        shown = "".join(index.tokens[0])
        raise InputError(f"{path}: tokens like {shown}; expected <CT79><1220>. Other systems: semid import.")
    return index.item_ids, index.codes - np.array([0, FIRST_RANK])


def _read_text(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    problems = Problems(str(path))
    found: dict[str, list[int]] = {}
    with open(path, encoding="utf-8") as stream:
        for line, text in enumerate(stream, 1):
            match = LINE.fullmatch(text.rstrip("\r\n"))
            if match is None:
                problems.add(line, f"{quote(text.strip())}: expected an id, a blank and <CT79><1220>.")
            elif match[1] in found:
                problems.add(line, f"{quote(match[1])} is repeated. Keep one line.")
            else:
                found[match[1]] = [int(match[2]), int(match[3])]
    if not found:
        problems.add(None, "holds no ID.")
    problems.raise_if_any()
    return list(found), np.array(list(found.values()), np.int64) - np.array([0, FIRST_RANK])


def _check_codes(codes: npt.NDArray[np.int64], ids: list[str], where: str) -> None:
    if codes.min() < 0:
        raise InputError(f"{where}: {ids[int(codes.min(axis=1).argmin())]!r} has a rank below {FIRST_RANK}.")
    _, first, count = np.unique(codes, axis=0, return_index=True, return_counts=True)
    if (count > 1).any():
        n, example = int((count - 1).sum()), ids[int(first[count > 1][0])]
        raise InputError(
            f"{where}: {n} ids share their tokens with another, {example!r} for one. Expected distinct tokens."
        )
    for level, name in enumerate(("clusters", "ranks")):
        used, highest = len(np.unique(codes[:, level])), int(codes[:, level].max())
        if used <= highest:
            raise InputError(f"{where}: {used} {name} are used, but the highest is {highest}. Expected no gaps.")


def _centroids(path: Path, n_clusters: int) -> npt.NDArray[np.float32]:
    """Read the centroids, float32 [C, D], in the order of the clusters."""
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"tokens", "vectors"} - set(arrays)
        if missing:
            raise InputError(f"{path}: has no {' and no '.join(sorted(missing))}; expected tokens and vectors.")
        tokens, vectors = arrays["tokens"].tolist(), arrays["vectors"].astype(np.float32)
    rows = {token: row for row, token in enumerate(tokens)}
    lacking = [number for number in range(n_clusters) if f"<CT{number}>" not in rows]
    if lacking or len(vectors) != len(tokens):
        what = f"no vector for <CT{lacking[0]}>" if lacking else f"{len(tokens)} tokens and {len(vectors)} vectors"
        raise InputError(f"{path}: {what}; expected one for each cluster.")
    return vectors[[rows[f"<CT{number}>"] for number in range(n_clusters)]]
