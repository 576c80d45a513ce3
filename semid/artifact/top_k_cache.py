"""TopKCache: recommendations computed ahead of time, one row a user, read in place from a mapped file.

    cache = TopKCache.open("cache", fingerprint)    # refused if it was made for other IDs
    found = cache.get("u1", history)                # None if u1 is unknown or has met something since
    ids.decode(found.codes)                         # item ids, best first

A language model takes a second for what a look-up takes microseconds for. A row says for which history it was computed
(a hash of it) and the folder for which artifact, so that a stale answer is never taken for a fresh one. What has become
stale, `stale` lists; `tokenizer_exports/generate/top_k.py` computes rows, of those users alone if asked.

Users lie in the order of a 64-bit hash of their names, and `starts` says where each stretch of hashes begins. There are
as many stretches as users, at least, so a look-up reads one stretch of about one user: the time does not grow with U.
The folder is an artifact as `store.py` writes it, with checksums, replaced in one step.

U users, up to k items each, L levels. Not here: models, prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semid.artifact import kinds
from semid.artifact import store as artifact
from semid.data.interactions import Interactions
from semid.data.strings import PackedStrings
from semid.errors import ArtifactError, InputError
from semid.ledger.lookup import hash_ids, hashes_of

__all__ = ["TopK", "TopKCache", "history_hash", "save_top_k"]

ARRAYS = ("codes", "counts", "scores", "histories", "hashes", "starts", "users.data", "users.offsets")


class TopK(NamedTuple):
    """One user's items, best first: views into the mapped file."""

    codes: npt.NDArray[np.uint16]  # (n, L)
    scores: npt.NDArray[np.float32]  # (n,)


@dataclass(frozen=True, eq=False)
class TopKCache:
    """An open cache; see `open`. Rows are in the order of `users`.

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
    counts: npt.NDArray[np.uint32]  # (U,) - how many of the k are there
    histories: npt.NDArray[np.uint64]  # (U,) - hashes
    hashes: npt.NDArray[np.uint64]  # (U,) - of the users, ascending
    starts: npt.NDArray[np.uint32]  # (2^b + 1,) - where the hashes with each leading b bits begin
    fingerprint: str  # of the artifact whose IDs these are
    notes: dict[str, Any]  # what its maker wanted to be known

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None) -> TopKCache:
        """Open a cache for an artifact of this fingerprint; None to read it whatever its IDs are.

        Raises ArtifactError if it is missing, damaged, or made for another artifact; InputError if it is no cache.
        """
        loaded = artifact.load(folder)
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
        """U."""
        return len(self.hashes)

    @property
    def k(self) -> int:
        """Items a user at most."""
        return self.codes.shape[1]

    def get(self, user: str, history: Sequence[str]) -> TopK | None:
        """A user's items; None where the cache has not this user, or computed them for another history.

        Parameters
        ----------
        history
            The ids of all items that the user has met, oldest first: as it was when the row was made, or the row
            is stale.
        """
        row = self.row_of(user)
        if row < 0 or int(self.histories[row]) != history_hash(history):
            return None
        count = int(self.counts[row])
        return TopK(self.codes[row, :count], self.scores[row, :count])

    def row_of(self, user: str) -> int:
        """The row of a user, -1 if there is none; its history is not looked at."""
        encoded = user.encode("utf-8", "surrogatepass")
        (sought,) = hashes_of([encoded]).tolist()
        stretch = sought >> (64 - _bits(len(self)))
        for row in range(int(self.starts[stretch]), int(self.starts[stretch + 1])):
            if int(self.hashes[row]) == sought and self.users[row] == user:
                return row
        return -1

    def stale(self, log: Interactions) -> Iterator[str]:
        """The users of a log without a row for what they have met by now."""
        for number, user in enumerate(log.users):
            if self.get(user, log.history(number)) is None:
                yield user


def history_hash(item_ids: Iterable[str]) -> int:
    """64 bits that say which items somebody met, and in which order."""
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
    notes: dict[str, Any] | None = None,
    force: bool = False,
) -> str:
    """Write a cache, in one step as readers see it; returns its own fingerprint.

    Parameters
    ----------
    codes, scores : int [U, k, L], float [U, k]
        Best first; what lies behind the first `counts` [U] of a row is not read (default: all count).
    histories
        What each user had met when the row was computed, in the order of `users`.
    fingerprint
        Of the artifact whose IDs these are.

    Raises
    ------
    InputError
        Arrays of differing lengths, codes out of range, a user twice.
    OutputExistsError
        The folder holds something, unless `force` allows to replace a cache.
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
    return artifact.save(folder, manifest, arrays, force=force)


def _bits(n_users: int) -> int:
    """Leading bits of a hash that tell stretches apart: as many stretches as users, at least two."""
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
        raise InputError("codes: should be within 0..65535 wherever they count.")
    again, _ = users.repeats()
    if len(again):
        raise InputError(f"users: {users[int(again[0])]!r} comes twice. Give each once.")


def _check_shapes(folder: str | Path, arrays: dict[str, np.ndarray], n_users: int) -> None:
    n_rows = {name: len(array) for name, array in arrays.items() if name != "starts"}
    whole = arrays["codes"].ndim == 3 and arrays["scores"].shape == arrays["codes"].shape[:2]
    if not whole or set(n_rows.values()) != {n_users} or len(arrays["starts"]) != (1 << _bits(n_users)) + 1:
        raise ArtifactError(f"{folder}: its arrays do not fit together: {n_rows}. Compute the cache again.")
