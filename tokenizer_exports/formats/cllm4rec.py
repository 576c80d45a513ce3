"""Read CLLM4Rec's published data: interactions from its .npz matrices, and reviews converted from its pickles.

    split = read_cllm4rec("dataset/beauty")              # train_matrix.npz, val_matrix.npz, test_matrix.npz
    names = EntityNames(split.n_users, split.n_items)
    prompts.recommendation(17, split.train.of(17))
    for user, item, text in read_cllm4rec_reviews("review.jsonl"):
        prompts.review(user, item, text)

Rows are users and columns items, numbered as in its tokens `user_17` and `item_4`. The files hold no other ids and no
times, so items are in the order of their numbers. A matrix is what `scipy.sparse.save_npz` writes, in any of its
formats; explicit zeros are ignored.

`review.pkl` and `meta.pkl` are pickles, and loading a pickle runs whatever code its author put into it, so semid
refuses them. `meta.pkl` is not needed: the shapes of the matrices give the numbers of users and items. If you trust the
author, convert the reviews to JSON with `CONVERSION`, a line of shell. Tables in `user_embeddings_*.pt` can be read
safely with `torch.load(path, weights_only=True)["weight"]`, for `EntityVectors`.

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

from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.errors import InputError
from semid.files.problems import Problems

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
DAMAGE = (  # what NumPy, zipfile and scipy raise on damaged or foreign files
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, MemoryError, OverflowError, RuntimeError,
    OSError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
MOST = 1 << 30  # users or items; there can be no more tokens
Source = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class MetItems:
    """The items of each user, by number: user u met `items[offsets[u]:offsets[u + 1]]`, not in order of time."""

    offsets: npt.NDArray[np.int64]  # (U + 1,)
    items: npt.NDArray[np.int64]  # (n,)

    def of(self, user: int) -> npt.NDArray[np.int64]:
        """Return the item numbers of one user."""
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
        """Return one part as `Interactions`; ids are the numbers as strings. Users without items are left out.

        Parameters
        ----------
        part
            "train" (default), "valid" or "test".

        Raises
        ------
        InputError
            The part is unknown or empty.
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
    """Read the three matrices of a data set.

    Parameters
    ----------
    folder
        Holds train_matrix.npz, val_matrix.npz and test_matrix.npz.

    Raises
    ------
    InputError
        A file is not such a matrix, is damaged, or holds pickled objects; or the matrices differ in shape.
    OSError
        A file cannot be opened.
    """
    matrices = {part: _matrix(Path(folder) / name) for part, name in PARTS.items()}
    shapes = {PARTS[part]: matrix.shape for part, matrix in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{folder}: matrices have different shapes {shapes}; expected the same (users, items) in all.")
    n_users, n_items = matrices["train"].shape
    if not 1 <= min(n_users, n_items) <= max(n_users, n_items) <= MOST:
        raise InputError(f"{folder}: {n_users} users and {n_items} items; expected 1 to {MOST:,} of each.")
    met = {
        part: MetItems(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
        for part, matrix in matrices.items()
    }
    return PublishedSplit(int(n_users), int(n_items), **met)


def read_cllm4rec_reviews(path: Source) -> Iterator[tuple[int, int, str]]:
    """Yield user number, item number and text of each review in a file made with `CONVERSION`.

    Raises
    ------
    InputError
        The file is a pickle, or lines have another form; lists the first ten of them.
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
    """Read a matrix as canonical CSR without explicit zeros."""
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
                f"{path}: not a matrix that scipy.sparse.save_npz wrote ({reason}). Download it again."
            ) from None
    return matrix


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path}: is a pickle, and loading it would run its author's code. If you trust the author, convert "
            f"reviews to JSON with: {CONVERSION}   meta.pkl is not needed."
        )
