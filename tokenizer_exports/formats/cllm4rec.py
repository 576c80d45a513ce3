"""CLLM4Rec's published data: who met what, from its .npz matrices, and reviews, once they are no pickle any more.

    split = read_cllm4rec("dataset/beauty")              # train_matrix.npz, val_matrix.npz, test_matrix.npz
    names = EntityNames(split.n_users, split.n_items)
    prompts.recommendation(17, split.train.of(17))
    for user, item, text in read_cllm4rec_reviews("review.jsonl"):
        prompts.review(user, item, text)

Rows are users and columns items, under the numbers that its tokens `user_17` and `item_4` have. The files hold no other
ids and no times: items stand in the order of their numbers. A matrix is what `scipy.sparse.save_npz` writes, in any of
its formats; entries that are zero do not count.

`review.pkl` and `meta.pkl` are pickles: to load one is to run whatever code its author put into it. semid refuses them.
Nothing of `meta.pkl` is missed, for the matrices have the numbers of users and items. Reviews of an author whom you
trust become JSON with `CONVERSION`, a line of shell; tables in `user_embeddings_*.pt` are read safely with
`torch.load(path, weights_only=True)["weight"]`, for `EntityVectors`.

Not here: making documents (`tokenizer_exports/entities/soft_prompts.py`). U users, I items, n interactions.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Interactions, read_interactions
from semid.data.problems import Problems
from semid.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["CONVERSION", "MetItems", "PublishedSplit", "read_cllm4rec", "read_cllm4rec_reviews"]

PARTS = {"train": "train_matrix.npz", "valid": "val_matrix.npz", "test": "test_matrix.npz"}
PICKLES = {".pkl", ".pickle"}
REVIEW = re.compile(r"\s*user_([0-9]{1,10}) writes the following review for item_([0-9]{1,10}):?\s*")
CONVERSION = (
    "python -c \"import json, pickle; [print(json.dumps(list(pair))) for pair in pickle.load(open('review.pkl', "
    "'rb'))]\" > review.jsonl"
)
DAMAGE = (  # what NumPy, zipfile and scipy raise on files that are none of theirs
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, MemoryError, OverflowError, RuntimeError,
    OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
MOST = 1 << 30  # users or items, as many as there can be tokens
Source = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class MetItems:
    """What each user met, by number; user u met `items[offsets[u]:offsets[u + 1]]`, in no order of time."""

    offsets: npt.NDArray[np.int64]  # (U + 1,)
    items: npt.NDArray[np.int64]  # (n,)

    def of(self, user: int) -> npt.NDArray[np.int64]:
        """Item numbers of one user."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]


@dataclass(frozen=True, eq=False)
class PublishedSplit:
    """The three parts of a data set of U users and I items."""

    n_users: int
    n_items: int
    train: MetItems
    valid: MetItems
    test: MetItems

    def interactions(self, part: str = "train") -> Interactions:
        """One part as `read_interactions` returns it, for all of semid: ids are the numbers, written out.

        Users without any item in it are left out; InputError if that is everybody, or for an unknown part.
        """
        if part not in PARTS:
            raise InputError(f"part={part!r} should be one of {', '.join(PARTS)}.")
        met: MetItems = getattr(self, part)
        everybody = ((user, met.of(user)) for user in range(self.n_users))
        return read_interactions(
            {"user": str(user), "items": [str(item) for item in items.tolist()]}
            for user, items in everybody
            if len(items)
        )


def read_cllm4rec(folder: Source) -> PublishedSplit:
    """The three matrices of a data set.

    Raises
    ------
    InputError
        A file that is no such matrix, is damaged, or holds pickled objects; matrices of unequal shapes.
    OSError
        A file cannot be opened.
    """
    matrices = {part: _matrix(Path(folder) / name) for part, name in PARTS.items()}
    shapes = {PARTS[part]: matrix.shape for part, matrix in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{folder}: matrices of unequal shapes {shapes}; expected (users, items), the same in all.")
    n_users, n_items = matrices["train"].shape
    if not 1 <= min(n_users, n_items) <= max(n_users, n_items) <= MOST:
        raise InputError(f"{folder}: {n_users} users and {n_items} items; expected 1 to {MOST:,} of each.")
    met = {
        part: MetItems(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
        for part, matrix in matrices.items()
    }
    return PublishedSplit(int(n_users), int(n_items), **met)


def read_cllm4rec_reviews(path: Source) -> Iterator[tuple[int, int, str]]:
    """User number, item number and text of each review of a file made with `CONVERSION`.

    Raises
    ------
    InputError
        A pickle; lines of another form, the first ten of them.
    OSError
        The file cannot be opened.
    """
    path = Path(path)
    _refuse_pickle(path)
    problems = Problems(str(path))
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line, text in enumerate(stream, 1):
            review = _review(text)
            if review is not None:
                yield review
            elif text.strip():
                problems.add(line, '["user_17 writes the following review for item_4:", "its text"] expected.')
    problems.raise_if_any()


def _review(line: str) -> tuple[int, int, str] | None:
    try:
        pair = json.loads(line)
    except ValueError:
        return None
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        return None
    match = REVIEW.fullmatch(pair[0])
    return match and (int(match[1]), int(match[2]), pair[1])


def _matrix(path: Path) -> csr_matrix:
    """A matrix as canonical CSR without zeros."""
    from scipy.sparse import load_npz

    _refuse_pickle(path)
    with open(path, "rb") as stream:
        try:
            matrix = load_npz(stream).tocsr()  # never unpickles
            matrix.check_format(full_check=True)
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
        except DAMAGE as error:
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise InputError(
                f"{path}: no matrix as scipy.sparse.save_npz writes it ({reason}). Fetch it again."
            ) from None
    return matrix


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path}: a pickle, and to load a pickle is to run code of its author. If you trust that author, turn "
            f"reviews into JSON with: {CONVERSION}   meta.pkl is not needed."
        )
