"""The trie on a torch device: the walk, children and filters of `semid/trie/trie.py`, which is the reference.

Nothing here waits for the device, so a step of generation is a few launches. Nodes are int64, numbered as in
`semid.trie`: 0 is the root, -1 means no node. R rows, d codes, K children, B requests, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from semid.errors import ConfigError, InputError
from semid.trie import Filter, Trie

__all__ = ["FilterTensors", "TrieTensors"]


class TrieTensors:
    """A trie's arrays on a device. Codes are int32, since few operations take uint16.

    Parameters
    ----------
    trie
        The trie to copy.
    device
        Where its arrays go. Default: "cpu".

    >>> trie = TrieTensors(Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10))
    >>> trie.nodes_at_end(torch.tensor([[7, 13], [10, 15], [10, 7]])).tolist()    # begun, finished, text
    [2, 0, 0]
    """

    def __init__(self, trie: Trie, device: torch.device | str = "cpu") -> None:
        self.trie = trie
        self.device = torch.device(device)
        self.codes = torch.from_numpy(trie.codes.astype(np.int32)).to(self.device)
        self.ptr = torch.from_numpy(np.array(trie.ptr)).to(self.device)
        self.offsets = torch.tensor(trie.offsets, device=self.device)
        self.n_inner = len(trie.ptr) - 1
        self.halvings = max(trie.fanout).bit_length()

    @classmethod
    def on(cls, trie: Trie, device: torch.device | str) -> TrieTensors:
        """Return the trie on a device, copied there at the first call; the copy lives as long as the trie.

        >>> trie = Trie.from_codes([[0, 1], [3, 0]], sizes=(4, 4))
        >>> TrieTensors.on(trie, "cpu") is TrieTensors.on(trie, torch.device("cpu"))
        True
        """
        device = torch.device(device)
        copied = trie.device_copies.get(device)
        if not isinstance(copied, TrieTensors):
            copied = trie.device_copies[device] = cls(trie, device)
        return copied

    @property
    def base(self) -> int:
        """Token id of the first code; ConfigError if the trie was made without one."""
        if self.trie.base is None:
            raise ConfigError(
                "the trie has no token ids. Make it with Trie.from_tokenizer(ids, tokenizer) or trie.with_base(base)."
            )
        return self.trie.base

    def bounds(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first child of each node and one past the last, int64; equal for items and for -1."""
        inner = (nodes >= 0) & (nodes < self.n_inner)
        at = torch.where(inner, nodes, 0)
        start = self.ptr[at].long()
        return start, torch.where(inner, self.ptr[at + 1].long(), start)

    def children(self, nodes: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the children of each node [...]: codes int64, nodes int64 and validity bool, all [..., width].

        `width` must be at least the largest number of children of any of them: `trie.fanout[depth]`. Where validity is
        False the codes and nodes are meaningless; scattering them would overwrite valid places.
        """
        start, stop = self.bounds(nodes)
        child = start.unsqueeze(-1) + torch.arange(width, device=self.device)
        valid = child < stop.unsqueeze(-1)
        child = child.clamp(max=self.codes.numel() - 1)
        return self.codes[child].long(), child, valid

    def child(self, nodes: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the child of each node with the given code, -1 if there is none; a fixed number of bisections."""
        low, end = self.bounds(nodes)
        high, last = end, self.codes.numel() - 1
        for _ in range(self.halvings):
            middle = (low + high) >> 1
            less = (low < high) & (self.codes[middle.clamp(max=last)] < codes)
            low, high = torch.where(less, middle + 1, low), torch.where(less, high, middle)
        found = (low < end) & (self.codes[low.clamp(max=last)] == codes)
        return torch.where(found, low, -1)

    def ranks(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first rank below each node and one past the last; no node may be -1."""
        low, high = nodes, nodes + 1
        for _ in range(self.trie.n_levels):
            inner = low < self.n_inner
            low, high = (
                torch.where(inner, self.ptr[torch.where(inner, low, 0)].long(), low),
                torch.where(inner, self.ptr[torch.where(inner, high, 0)].long(), high),
            )
        first = self.trie.level_starts[-2]
        return low - first, high - first

    def first_ranks(self, nodes: torch.Tensor) -> torch.Tensor:
        """Return the first rank below each of nodes [R, W]; a row's nodes are of one level, or one past its end."""
        real = nodes[:, :1]
        for _ in range(self.trie.n_levels):
            inner = real < self.n_inner  # one past the last inner node is not the first item
            real, nodes = (torch.where(inner, self.ptr[torch.where(inner, at, 0)].long(), at) for at in (real, nodes))
        return nodes - self.trie.level_starts[-2]

    def rows_of(self, nodes: torch.Tensor) -> torch.Tensor:
        """Return the row of each node in the table of items, int64 on the CPU; -1 for a node that is not a whole ID."""
        rows = self.trie.rows_of(nodes.cpu().numpy().reshape(-1)).reshape(tuple(nodes.shape))
        return torch.from_numpy(rows)

    def levels(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the level of each token id, int64; -1 for a token of the text."""
        places = token_ids.long() - self.base
        ours = (places >= 0) & (places < self.trie.offsets[-1])
        level = torch.bucketize(places, self.offsets, right=True) - 1
        return torch.where(ours, level, -1)

    def nodes_at_end(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the node that the last tokens of each row [R, T] have reached, int64 [R]; 0 where no ID has begun.

        Reads only the last L - 1 tokens. Levels have distinct tokens, so there is at most one k for which the last k
        tokens are of the levels 0 ... k - 1. A whole ID, text, malformed tokens and a prefix of no item all give 0.
        """
        length = token_ids.shape[1]
        token_ids = token_ids[:, max(length - self.trie.n_levels + 1, 0) :].long()
        levels, width = self.levels(token_ids), token_ids.shape[1]
        depth = torch.zeros(len(token_ids), dtype=torch.long, device=self.device)
        for k in range(1, width + 1):
            begun = (levels[:, width - k :] == torch.arange(k, device=self.device)).all(dim=1)
            depth = torch.where(begun, k, depth)
        nodes = torch.zeros_like(depth)
        for step in range(width):
            place = (width - depth + step).clamp(max=width - 1)
            token = token_ids.gather(1, place.unsqueeze(1)).squeeze(1)
            code = token - self.base - self.offsets[step]
            nodes = torch.where(step < depth, self.child(nodes, code), nodes)
        return nodes.clamp(min=0)


class FilterTensors:
    """The filters of B requests on a device. Filters that share their counts share them here too.

    Parameters
    ----------
    filters
        One filter for all requests, or a sequence of B, in which None admits all items.
    trie
        The trie from which the filters were made.
    n_requests
        B.

    Raises
    ------
    InputError
        The number of filters is not B.
    ConfigError
        A filter was made from another trie.
    """

    def __init__(self, filters: Filter | Sequence[Filter | None], trie: TrieTensors, n_requests: int) -> None:
        each = [filters] * n_requests if isinstance(filters, Filter) else list(filters)
        if len(each) != n_requests:
            raise InputError(f"filter: {len(each)} filters for {n_requests} requests. Give one, or one for each.")
        n_items = len(trie.trie)
        self.origin = trie.trie.origin
        whole = Filter(n_items, origin=self.origin)
        each = [one or whole for one in each]
        for one in each:
            one.check(self.origin, n_items, "filter")
        self.n_admitted = [one.n_admitted for one in each]
        device = trie.device
        distinct = {id(one.counts): one.counts for one in each}
        place = {key: number for number, key in enumerate(distinct)}
        everything = np.arange(n_items + 1, dtype=np.int32)
        rows = [everything if counts is None else counts for counts in distinct.values()]
        self.counts = torch.from_numpy(np.concatenate(rows)).to(device)
        self.first = torch.tensor([place[id(one.counts)] * (n_items + 1) for one in each], device=device)
        bans = [np.zeros(0, np.int64) if one.banned is None else one.banned for one in each]
        most = max(map(len, bans))
        self.banned = None
        if most:
            padded = np.stack([np.pad(ban, (0, most - len(ban)), constant_values=n_items) for ban in bans])
            self.banned = torch.from_numpy(padded).to(device)  # (B, most) - ascending; n_items is past every rank

    def admits(self, start: torch.Tensor, stop: torch.Tensor, requests: torch.Tensor) -> torch.Tensor:
        """Return whether start:stop holds a rank that the row's request [R] admits, bool [R, ...]."""
        return self.before(stop, requests) > self.before(start, requests)

    def before(self, ranks: torch.Tensor, requests: torch.Tensor) -> torch.Tensor:
        """Count the ranks below these, 0 ... N, that the row's request [R] admits, int64 [R, ...]."""
        first = self.first[requests].view(-1, *[1] * (ranks.dim() - 1))
        admitted = self.counts[first + ranks].long()
        if self.banned is not None:
            flat = ranks.unsqueeze(-1).flatten(1).contiguous()  # [R, ...] -> [R, K]
            admitted = admitted - torch.searchsorted(self.banned[requests], flat).view_as(admitted)
        return admitted
