"""Prefix indexes beside each other: semid's, and those that constrained decoders are built on.

Each is a class that is built from codes uint16 [N, L] in any order, and answers two questions for R rows:

- `walk(prefixes)`: the nodes that prefixes int [R, d] lead to, in the index's own terms;
- `children(nodes, depth)`: the codes that may follow; `codes_of_child` makes sets of them, which is not timed.

`bytes_per_index()` counts what the arrays hold; Python objects answer None and are measured by tracemalloc. GENRE's
`Trie` is a nested dict with the dict's time and memory, so `NestedDict` stands for both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from semid.trie import Trie

__all__ = ["LAYOUTS", "SIZE"]

SIZE = 256  # codes of every level
Codes = npt.NDArray[np.integer]


class Semid:
    """This package, in NumPy."""

    name = "**semid**"
    most = 10**8  # items beyond which building it takes too long or too much memory
    map_bytes = 4  # an item, for the map from its rank to its row; an artifact's own array where no item is retired

    def __init__(self, codes: Codes) -> None:
        self.trie = Trie.from_codes(codes, [SIZE] * codes.shape[1])

    def bytes_per_index(self) -> int | None:
        return self.trie.nbytes

    def walk(self, prefixes: Codes):
        return self.trie.walk(prefixes)

    def children(self, nodes, depth: int):
        return self.trie.children(nodes)

    def codes_of_child(self, children) -> list[set[int]]:
        codes, _, valid = children
        return [set(row[good].tolist()) for row, good in zip(codes, valid, strict=True)]

    def save_and_load(self, path: Path):
        """Write the index; what opens it again, mapped."""
        self.trie.save(path)
        return lambda: Trie.load(path)


class SemidTorch(Semid):
    """The same on a torch device; codes as int32."""

    name = "**semid**, torch"
    save_and_load = None

    def __init__(self, codes: Codes) -> None:
        from semid.tokenizer_exports.generate.trie_tensors import TrieTensors

        super().__init__(codes)
        self.tensors = TrieTensors(self.trie)

    def bytes_per_index(self) -> int | None:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.tensors.codes, self.tensors.ptr))

    def walk(self, prefixes: Codes):
        import torch

        columns = torch.from_numpy(prefixes.astype(np.int64)).unbind(1)
        nodes = torch.zeros(len(prefixes), dtype=torch.long)
        for column in columns:
            nodes = self.tensors.child(nodes, column)
        return nodes

    def children(self, nodes, depth: int):
        return self.tensors.children(nodes, self.trie.fanout[depth])

    def codes_of_child(self, children) -> list[set[int]]:
        return super().codes_of_child([tensor.numpy() for tensor in children])


class Static:
    """STATIC's layout by its description (arXiv 2602.22647), in NumPy: pairs (code, next state) in rows by state.

    The first two levels are dense. The codes of all levels share one small vocabulary, which is its best case: the
    dense part takes 5 bytes for each pair of tokens.
    """

    name = "STATIC layout"
    most = 10**8
    map_bytes = 0

    def __init__(self, codes: Codes) -> None:
        keys = np.zeros(len(codes), np.uint64)
        for column in codes.T:
            keys = keys * np.uint64(SIZE) + column.astype(np.uint64)
        ordered = codes[np.argsort(keys)]
        first = np.zeros(len(ordered), bool)
        first[0] = True
        parents, pairs, counts, self.widest, n_states = np.zeros(len(ordered), np.int64), [], [], [], 1
        for level, column in enumerate(ordered.T):
            first[1:] |= column[1:] != column[:-1]
            starts = np.flatnonzero(first)
            states = n_states + np.cumsum(first) - 1  # of each item at this level
            branches = np.bincount(parents[starts] - parents[0])
            self.widest.append(int(branches.max()))
            if level >= 2:
                pairs.append(np.stack([column[starts], states[starts]], axis=1).astype(np.int32))
                counts.append(branches)
            elif level == 1:
                self.dense_states = np.zeros((SIZE, SIZE), np.int32)
                self.dense_states[ordered[starts, 0], ordered[starts, 1]] = states[starts]
                self.dense_mask = self.dense_states > 0
                self.first_state = n_states  # states before have no row of pairs
            parents, n_states = states, n_states + len(starts)
        self.pairs = np.concatenate(pairs)
        self.indptr = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int32)

    def bytes_per_index(self) -> int | None:
        return sum(array.nbytes for array in (self.pairs, self.indptr, self.dense_states, self.dense_mask))

    def walk(self, prefixes: Codes):
        if prefixes.shape[1] == 1:
            return prefixes[:, 0]  # a state of the dense part is the code itself
        states = self.dense_states[prefixes[:, 0], prefixes[:, 1]]
        for depth in range(2, prefixes.shape[1]):
            codes, following, valid = self.children(states, depth)
            found = valid & (codes == prefixes[:, depth, None])
            states = np.where(found, following, 0).max(axis=1)
        return states

    def children(self, nodes, depth: int):
        if depth == 1:
            return np.arange(SIZE)[None], self.dense_states[nodes], self.dense_mask[nodes]
        at = nodes - self.first_state
        start = self.indptr[at]
        offsets = np.arange(self.widest[depth])
        valid = offsets < (self.indptr[at + 1] - start)[:, None]
        pairs = self.pairs[np.minimum(start[:, None] + offsets, len(self.pairs) - 1)]
        return pairs[..., 0], pairs[..., 1], valid

    def codes_of_child(self, children) -> list[set[int]]:
        codes, _, valid = children
        return [set(row[good].tolist()) for row, good in zip(np.broadcast_to(codes, valid.shape), valid, strict=True)]

    save_and_load = None


class NestedDict:
    """Dicts of dicts, what a prefix function usually looks into; GENRE's Trie is the same inside."""

    name = "nested dict (GENRE)"
    most = 10**6
    map_bytes = 0

    def __init__(self, codes: Codes) -> None:
        self.root: dict = {}
        for row in codes.tolist():
            node = self.root
            for code in row:
                node = node.setdefault(code, {})

    def bytes_per_index(self) -> int | None:
        return None

    def walk(self, prefixes: Codes):
        nodes = []
        for row in prefixes.tolist():
            node = self.root
            for code in row:
                node = node[code]
            nodes.append(node)
        return nodes

    def children(self, nodes, depth: int):
        return [list(node) for node in nodes]

    def codes_of_child(self, children) -> list[set[int]]:
        return [set(codes) for codes in children]

    save_and_load = None


class Marisa:
    """marisa-trie over one character a code; what follows is read off all keys below, as GENRE's MarisaTrie does."""

    name = "marisa-trie (GENRE)"
    most = 10**6
    map_bytes = 0

    def __init__(self, codes: Codes) -> None:
        import marisa_trie

        self.trie = marisa_trie.Trie(map("".join, zip(*(map(chr, column) for column in (codes.T + 1).tolist()))))  # noqa: B905

    def bytes_per_index(self) -> int | None:
        return len(self.trie.tobytes())

    def walk(self, prefixes: Codes):
        prefixes = ["".join(map(chr, row)) for row in (prefixes + 1).tolist()]
        return [prefix if self.trie.has_keys_with_prefix(prefix) else None for prefix in prefixes]

    def children(self, nodes, depth: int):
        return [list({key[depth] for key in self.trie.iterkeys(prefix)}) for prefix in nodes]

    def codes_of_child(self, children) -> list[set[int]]:
        return [{ord(character) - 1 for character in characters} for characters in children]

    def save_and_load(self, path: Path):
        import marisa_trie

        self.trie.save(str(path))
        return lambda: marisa_trie.Trie().mmap(str(path))


class Rectokens:
    """rectokens' CompactCSRTrie: STATIC's layout in torch, int64; its step also masks logits [R, V], here V = 256."""

    name = "rectokens"
    most = 10**7
    map_bytes = 0

    def __init__(self, codes: Codes) -> None:
        import torch
        from rectokens.schemas.compact_csr_trie import CompactCSRTrie

        order = np.lexsort(codes.T[::-1])  # it wants sorted rows
        self.trie = CompactCSRTrie.from_sorted_batch(torch.from_numpy(codes[order].astype(np.int64)), SIZE)
        self.logits = torch.zeros(1, SIZE)

    def bytes_per_index(self) -> int | None:
        trie = self.trie
        tensors = [trie.row_ptrs, trie.stacked_cols_vals, trie.dense_states, *trie.dense_mask_by_layer]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def walk(self, prefixes: Codes):
        import torch

        columns = torch.from_numpy(prefixes.astype(np.int64)).unbind(1)
        if len(columns) == 1:
            return columns[0]
        nodes = self.trie.dense_states[columns[0], columns[1]]
        for depth, column in enumerate(columns[2:], start=2):
            following, codes, _ = self.children(nodes, depth)
            nodes = following[codes == column.unsqueeze(1)]
        return nodes

    def children(self, nodes, depth: int):
        from rectokens.decoding.vntk import vtnk_pytorch

        if depth == 1:
            return None, self.trie.dense_mask_by_layer[1][nodes], None
        return vtnk_pytorch(self.logits.expand(len(nodes), -1), nodes, self.trie, depth)

    def codes_of_child(self, children) -> list[set[int]]:
        following, codes, _ = children
        if following is None:
            return [set(row.nonzero().view(-1).tolist()) for row in codes]
        return [set(row[row >= 0].tolist()) for row in codes]

    save_and_load = None


LAYOUTS = {layout.__name__: layout for layout in (Semid, SemidTorch, Static, Rectokens, Marisa, NestedDict)}
