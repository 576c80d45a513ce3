"""TopKCache: recommendations computed ahead of time, one row per user, read from a memory-mapped file.

    cache = TopKCache.open("cache", fingerprint)    # refused if it was made for other IDs
    found = cache.get("u1", history)                # None if u1 is unknown or has met another item since
    ids.decode(found.codes)                         # item ids, best first

A language model takes a second where a look-up takes microseconds. Each row stores a hash of the history for which it
was computed, and the folder the fingerprint of the artifact, so an outdated answer is never taken for a current one.
`stale` lists the users whose rows are outdated; `tokenizer_exports/generate/top_k.py` computes rows, for those users
only if asked.

Users are sorted by a 64-bit hash of their names. `starts` divides the hashes into at least as many buckets as there are
users, so a look-up reads one bucket of about one user: its time does not grow with U. The folder is an artifact as
`store.py` writes it, with checksums, replaced atomically.

U users, up to k items each, L levels. Not here: models, prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.artifact.store import load, save
from semid.data.interactions import Interactions
from semid.data.strings import PackedStrings
from semid.errors import ArtifactError, InputError
from semid.ledger.lookup import hash_ids, hashes_of

__all__ = ["TopK", "TopKCache", "history_hash", "save_top_k"]

ARRAYS = ("codes", "counts", "scores", "histories", "hashes", "starts", "users.data", "users.offsets")


class TopK(NamedTuple):
    """The items of one user, best first, as views into the mapped file."""

    codes: npt.NDArray[np.uint16]  # (n, L)
    scores: npt.NDArray[np.float32]  # (n,)


@dataclass(frozen=True, eq=False)
class TopKCache:
    """An open cache, made by `open`. Rows are in the order of `users`.

    >>> import tempfile
    >>> codes, scores = np.array([[[0, 1], [2, 3]]], np.uint16), np.array([[-0.1, -0.7]], np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_top_k(f"{folder}/cache", ["u1"], codes, scores, histories=[["a", "b"]], fingerprint="sha256:1")
    ...     cache = TopKCache.open(f"{folder}/cache", "sha256:1")
    >>> cache.get("u1", ["a", "b"]).codes.tolist(), cache.get("u1", ["a", "b", "c"]), cache.get("u2", [])
    ([[0, 1], [2, 3]], None, None)
    """

    users: PackedStrings  # U names
    codes: npt.NDArray[np.uint16]  # (U, k, L)
    scores: npt.NDArray[np.float32]  # (U, k)
    counts: npt.NDArray[np.uint32]  # (U,) - how many of the k items each user has
    histories: npt.NDArray[np.uint64]  # (U,) - `history_hash` of each user's history
    hashes: npt.NDArray[np.uint64]  # (U,) - of the user names, ascending
    starts: npt.NDArray[np.uint32]  # (2^b + 1,) - where the hashes with each leading b bits begin
    fingerprint: str  # of the artifact whose IDs these are
    notes: dict[str, object]  # as given to `save_top_k`

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None) -> TopKCache:
        """Open a cache.

        Parameters
        ----------
        folder
            The folder that `save_top_k` wrote.
        fingerprint
            The fingerprint of the artifact for which it must have been made; None accepts any.

        Raises
        ------
        ArtifactError
            The cache is missing, damaged, or was made for another artifact.
        InputError
            The folder holds another kind of artifact.
        """
        loaded = load(folder)
        kinds.check_kind(folder, loaded.manifest, kinds.TOP_K)
        made_for = str(loaded.manifest.get("artifact"))
        if fingerprint is not None and made_for != fingerprint:
            raise ArtifactError(
                f"{folder}: was made for the IDs {made_for}, these are {fingerprint}: the artifact has changed since. "
                "Compute the cache again."
            )
        missing = [name for name in ARRAYS if name not in loaded.arrays]
        if missing:
            raise ArtifactError(f"{folder}: array {missing[0]} is missing. Compute the cache again.")
        arrays = {name: loaded.arrays[name] for name in ARRAYS}
        users = PackedStrings(arrays.pop("users.data"), arrays.pop("users.offsets"))
        _check_shapes(folder, arrays, len(users))
        return cls(users=users, **arrays, fingerprint=made_for, notes=dict(loaded.manifest.get("notes") or {}))

    def __len__(self) -> int:
        """Return the number of users, U."""
        return len(self.hashes)

    @property
    def k(self) -> int:
        """Largest number of items per user."""
        return int(self.codes.shape[1])

    def get(self, user: str, history: Sequence[str]) -> TopK | None:
        """Return the items of a user; None if the user is unknown or the row was computed for another history.

        Parameters
        ----------
        user
            The user's name.
        history
            The ids of all items that the user has met by now, oldest first.
        """
        row = self.row_of(user)
        if row < 0 or int(self.histories[row]) != history_hash(history):
            return None
        count = int(self.counts[row])
        return TopK(self.codes[row, :count], self.scores[row, :count])

    def row_of(self, user: str) -> int:
        """Return the row of a user, -1 if there is none, whatever the history."""
        encoded = user.encode("utf-8", "surrogatepass")
        (sought,) = hashes_of([encoded]).tolist()
        stretch = sought >> (64 - _bits(len(self)))
        for row in range(int(self.starts[stretch]), int(self.starts[stretch + 1])):
            if int(self.hashes[row]) == sought and self.users[row] == user:
                return row
        return -1

    def stale(self, log: Interactions) -> Iterator[str]:
        """Yield the users of a log who have no row for their present history."""
        for number, user in enumerate(log.users):
            if self.get(user, log.history(number)) is None:
                yield user


def history_hash(item_ids: Iterable[str]) -> int:
    """Return a 64-bit hash of the items of a history and their order."""
    digest = hashlib.blake2b(digest_size=8)
    for item_id in item_ids:
        encoded = item_id.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little")


def save_top_k(
    folder: str | Path,
    users: Iterable[str],
    codes: npt.NDArray[np.integer],
    scores: npt.NDArray[np.floating],
    *,
    histories: Iterable[Sequence[str]],
    fingerprint: str,
    counts: npt.NDArray[np.integer] | None = None,
    notes: Mapping[str, object] | None = None,
    force: bool = False,
) -> str:
    """Write a cache atomically and return its own fingerprint.

    Parameters
    ----------
    folder
        Where to write.
    users
        The names of U users.
    codes, scores
        Integers [U, k, L] and floating point [U, k], best first.
    histories
        The item ids of each user's history when the row was computed, in the order of `users`.
    fingerprint
        The fingerprint of the artifact to which the codes belong.
    counts
        Integers [U]: how many of a row's k items count; the others are not read. Default: all.
    notes
        JSON data to keep with the cache. Default: none.
    force
        Replace an existing cache. Default: False.

    Raises
    ------
    InputError
        Arrays have different lengths, codes are out of range, or a user comes twice.
    OutputExistsError
        The folder is not empty and `force` is not given.
    """
    packed = PackedStrings.pack(users)
    met = np.fromiter(map(history_hash, histories), np.uint64)
    codes, scores = np.asarray(codes), np.asarray(scores, np.float32)
    counts = np.full(len(packed), scores.shape[-1]) if counts is None else np.asarray(counts)
    _check_given(packed, codes, scores, counts, met)
    hashes = hash_ids(packed)
    order = np.argsort(hashes, kind="stable")
    bits = _bits(len(packed))
    stretches = (hashes[order] >> np.uint64(64 - bits)).astype(np.int64)
    sorted_users = packed.take(order)
    arrays = {
        "codes": codes[order].astype(np.uint16),
        "scores": scores[order],
        "counts": counts[order].astype(np.uint32),
        "histories": met[order],
        "hashes": hashes[order],
        "starts": np.searchsorted(stretches, np.arange((1 << bits) + 1)).astype(np.uint32),
        "users.data": sorted_users.data,
        "users.offsets": sorted_users.offsets,
    }
    manifest = {"kind": kinds.TOP_K, "artifact": fingerprint, "notes": dict(notes or {})}
    return save(folder, manifest, arrays, force=force)


def _bits(n_users: int) -> int:
    """Return how many leading bits of a hash number its bucket: at least as many buckets as users, at least two."""
    return max(1, (max(1, n_users) - 1).bit_length())


def _check_given(
    users: PackedStrings, codes: np.ndarray, scores: np.ndarray, counts: np.ndarray, histories: np.ndarray
) -> None:
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or scores.shape != codes.shape[:2]:
        raise InputError(
            f"codes: shape={codes.shape} dtype={codes.dtype}, scores: shape={scores.shape}; expected integers "
            "[U, k, L] and numbers [U, k]."
        )
    for name, one in (("codes", codes), ("counts", counts), ("histories", histories)):
        if len(one) != len(users):
            raise InputError(f"{name}: {len(one)} rows for {len(users)} users; expected one each.")
    there = np.arange(codes.shape[1]) < counts[:, None]
    if codes[there].size and (codes[there].min() < 0 or codes[there].max() > np.iinfo(np.uint16).max):
        raise InputError("codes: should be within 0..65535 in the first `counts` items of each row.")
    again, _ = users.repeats()
    if len(again):
        raise InputError(f"users: {users[int(again[0])]!r} comes twice. Give each once.")


def _check_shapes(folder: str | Path, arrays: dict[str, np.ndarray], n_users: int) -> None:
    n_rows = {name: len(array) for name, array in arrays.items() if name != "starts"}
    whole = arrays["codes"].ndim == 3 and arrays["scores"].shape == arrays["codes"].shape[:2]
    if not whole or set(n_rows.values()) != {n_users} or len(arrays["starts"]) != (1 << _bits(n_users)) + 1:
        raise ArtifactError(f"{folder}: its arrays do not fit together: {n_rows}. Compute the cache again.")
