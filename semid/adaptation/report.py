"""What adapting is worth: plain, whitened and adapted vectors side by side, at predicting the next item.

A user is the mean of the vectors of their last three items, and every item of the catalog that they have not met is
ranked. Whitening uses no interactions at all, so it shows how much of a gain is not behavior. N items, D dims, n users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from semid.data.interactions import Histories
from semid.runtime.arrays import sample_rows, unit_rows
from semid.runtime.devices import pick_device

__all__ = ["NextItems", "Scores", "neighbors_kept", "whitened"]

LAST = 3  # items of a user that are averaged
TOP = 10
HEAD = 0.2  # share of the items that are most popular
USERS = 256  # ranked at a time
ASKED = 1000  # items whose neighbors are compared
RIDGE = 1e-6  # of the mean variance, below which a direction is noise

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Recall@10 and NDCG@10 for each kind of next item: all, head, tail and cold ones; None where there is none.

    Head items are the fifth of the catalog that was met most often in training, cold ones were never met there, tail
    ones are all others.
    """

    recall: dict[str, float | None]
    ndcg: dict[str, float | None]
    n: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, rounded to six digits."""
        figures = {"recall@10": self.recall, "ndcg@10": self.ndcg}
        return {
            name: {kind: None if value is None else round(value, 6) for kind, value in values.items()}
            for name, values in figures.items()
        } | {"users": dict(self.n)}

    def line(self) -> str:
        """Return `4.96 / 2.76` in percent for each kind."""
        return "".join(_cell(self.recall[kind], self.ndcg[kind]) for kind in self.recall)


def _cell(recall: float | None, ndcg: float | None) -> str:
    return f"{'-' if recall is None or ndcg is None else f'{100 * recall:.2f} / {100 * ndcg:.2f}':>16}"


@dataclass(frozen=True, eq=False)
class NextItems:
    """Next items to predict.

    Parameters
    ----------
    histories : Histories
        Everything that a user has met before the next item, as rows of the catalog.
    users : int64 [n]
        Whose next item is predicted.
    targets : int64 [n]
        The next items.
    met : int64 [N]
        How often each item was met in training.
    """

    histories: Histories
    users: Ints
    targets: Ints
    met: Ints

    @classmethod
    def of(cls, before: Histories, after: Histories, met: Ints, *, most: int, seed: int) -> NextItems:
        """Return the first item of `after` of each user as the next item, for at most `most` users.

        Users without a known item before it are left out, and so are next items that the catalog does not hold or that
        the user has met before.
        """
        has_next = np.diff(after.offsets) > 0
        users = np.flatnonzero(has_next & (np.diff(before.offsets) > 0))
        targets = after.rows[after.offsets[users]]
        pairs = zip(users.tolist(), targets.tolist(), strict=True)
        fits = np.array([_fits(before, user, row) for user, row in pairs], bool)
        users, targets = users[fits], targets[fits]
        chosen = sample_rows(len(users), most, seed)
        return cls(
            before, users if chosen is None else users[chosen], targets if chosen is None else targets[chosen], met
        )

    def __len__(self) -> int:
        return len(self.users)

    def ranks(self, vectors: Floats, device: str = "cpu", users: Floats | None = None) -> Ints:
        """Return the rank of each next item among the items not met before, from 0; int64 [n].

        Of items with equal scores, the one in the earlier row comes first.

        Parameters
        ----------
        vectors : float32 [N, D]
            Of the items.
        device : str
            "auto" or a torch device.
        users : float32 [n, D], optional
            Vectors of the users. Default: means of their last items.
        """
        import torch

        place = pick_device(device)
        table = torch.from_numpy(np.ascontiguousarray(vectors)).to(place)
        ranks = np.empty(len(self), np.int64)
        for start in range(0, len(self), USERS):
            part = slice(start, start + USERS)
            means, met = zip(*map(self._user, self.users[part].tolist()), strict=True)
            here = np.stack([vectors[rows].mean(axis=0) for rows in means]) if users is None else users[part]
            known = torch.from_numpy(here).to(place)
            scores = known @ table.T
            line = torch.from_numpy(np.repeat(np.arange(len(met)), [len(rows) for rows in met])).to(place)
            scores[line, torch.from_numpy(np.concatenate(met)).to(place)] = -torch.inf
            rows = torch.from_numpy(self.targets[part]).to(place)[:, None]
            wanted = scores.gather(1, rows)
            earlier = torch.arange(scores.shape[1], device=place) < rows
            ahead = (scores > wanted) | ((scores == wanted) & earlier)
            ranks[part] = ahead.sum(dim=1).cpu().numpy()
        return ranks

    def _user(self, user: int) -> tuple[Ints, Ints]:
        """Return the rows of the last items of a user, and of all they met."""
        history = self.histories
        rows = history.rows[history.offsets[user] : history.offsets[user + 1]]
        rows = rows[rows >= 0]
        return rows[-LAST:], rows

    def scores(self, vectors: Floats, device: str = "cpu", users: Floats | None = None) -> Scores:
        """Return Recall@10 and NDCG@10 of vectors, for all next items and for each kind; see `ranks`."""
        ranks = self.ranks(vectors, device, users)
        hit = ranks < TOP
        gain = np.where(hit, 1 / np.log2(ranks + 2.0), 0)
        popular = np.zeros(len(self.met), bool)
        order = np.lexsort((np.arange(len(self.met)), -self.met))
        popular[order[: int(np.ceil(HEAD * len(self.met)))]] = True
        popular &= self.met > 0
        cold = self.met[self.targets] == 0
        head = popular[self.targets]
        kinds = {"all": np.ones(len(self), bool), "head": head, "tail": ~head & ~cold, "cold": cold}
        return Scores(
            {kind: float(hit[rows].mean()) if rows.any() else None for kind, rows in kinds.items()},
            {kind: float(gain[rows].mean()) if rows.any() else None for kind, rows in kinds.items()},
            {kind: int(rows.sum()) for kind, rows in kinds.items()},
        )


def _fits(before: Histories, user: int, row: int) -> bool:
    """Return whether the user has a known item, and has not met this one."""
    rows = before.rows[before.offsets[user] : before.offsets[user + 1]]
    return row >= 0 and bool((rows >= 0).any()) and row not in rows


def whitened(vectors: Floats) -> Floats:
    """Return the vectors centered and with equal variance in all directions, then of unit length, float32 [N, D].

    Good for search by cosine, and bad for semantic IDs, whose first codes need the large directions. Directions without
    variance become zero; so does a row of zeros.

    >>> whitened(np.array([[1, 0], [-1, 0], [0, 9], [0, -9]], np.float32)).round(3).tolist()
    [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    """
    has_text = np.asarray(vectors.any(axis=1))
    mean = vectors[has_text].mean(axis=0, dtype=np.float64)
    centered = (vectors - mean).astype(np.float32)
    spread = centered[has_text].T.astype(np.float64) @ centered[has_text] / max(1, int(has_text.sum()))
    variances, directions = np.linalg.eigh(spread)
    kept = variances > RIDGE * variances.mean()
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1)), 0)
    turned = centered @ (directions * scale @ directions.T).astype(np.float32)  # ZCA: dims keep their meaning
    return unit_rows(np.where(has_text[:, None], turned, np.float32(0)))


def neighbors_kept(plain: Floats, adapted: Floats, seed: int = 0) -> float:
    """Return which share of the ten nearest items by plain vectors is among the ten nearest by adapted ones.

    The mean over a seeded sample of items; 1.0 for a catalog of one item. Vectors are of unit length.

    >>> one = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    >>> neighbors_kept(one, one[:, ::-1])
    1.0
    """
    chosen = sample_rows(len(plain), ASKED, seed)
    rows = np.arange(len(plain)) if chosen is None else chosen
    near = min(TOP, len(plain) - 1)
    if near < 1:
        return 1.0
    shared = 0
    for start in range(0, len(rows), USERS):
        block = rows[start : start + USERS]
        found = []
        for vectors in (plain, adapted):
            likeness = vectors[block] @ vectors.T
            likeness[np.arange(len(block)), block] = -np.inf
            found.append(np.argpartition(-likeness, near - 1, axis=1)[:, :near])
        shared += int((found[0][:, :, None] == found[1][:, None, :]).sum())
    return shared / (near * len(rows))
