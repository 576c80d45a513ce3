"""Mask the logits of a server's batch, in which every request may have other constraints. Shared by all engines.

One `TokenMasker` masks all rows with the same constraints; their filters may differ. If all rows of the batch have the
same constraints, which is usual, the logits are changed in place; otherwise each group's rows are copied out and back.

Not here: the options of a request (`requests.py`), engines (`vllm.py`, `sglang.py`). R rows, T tokens, L levels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from semid.errors import ConfigError
from semid.tokenizer_exports.generate.constraint import Constraints, marker_ids
from semid.tokenizer_exports.generate.token_masker import TokenMasker
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.tokenizer_exports.serving.requests import Catalog, RequestOptions
from semid.trie import Filter

__all__ = ["BatchMasker", "Group", "History", "RequestConstraint", "constraints_of", "tail_length"]

logger = logging.getLogger("semid")

MAX_MASKERS = 64  # kept for reuse; each is a few numbers on the device
PADDING = -1  # fills rows on the left; not a token id

History = tuple[Sequence[int], Sequence[int]]  # token ids of the prompt, token ids generated after it


def tail_length(n_levels: int) -> int:
    """Return how many last tokens show where a row stands in an item: a begin marker and a whole ID, L + 1."""
    return n_levels + 1


def constraints_of(options: RequestOptions, markers: tuple[int, int] | None = None) -> Constraints:
    """Return the constraints of a request, which are all its options except the choice of items.

    Parameters
    ----------
    options
        The options of the request.
    markers
        Token ids of the begin and the end marker, if every item stands between them. Default: no markers.

    Raises
    ------
    ConfigError
        The options contradict each other.

    >>> constraints_of(RequestOptions(mode="items", min_items=2)).max_items
    2
    """
    most = options.max_items
    if options.mode == "items" and most is None:
        most = max(options.min_items or 0, 1)
    return Constraints(
        text=options.mode == "text",
        markers=markers,
        min_items=options.min_items,
        max_items=most,
        repeats=options.repeats,
    )


@dataclass(frozen=True, eq=False)
class RequestConstraint:
    """What one running request may generate."""

    constraints: Constraints
    filter: Filter | None  # the items it may generate; None: the whole catalog


@dataclass(frozen=True, eq=False)
class Group:
    """Rows with the same constraints."""

    masker: TokenMasker
    rows: list[int]  # ascending
    filters: FilterTensors | None  # the distinct filters of the group; None if no row has one
    places: list[int]  # which of them each row has


class BatchMasker:
    """Mask the logits of batches for the catalog of one server.

    Parameters
    ----------
    catalog
        The artifact that the server serves.
    device
        The device of the logits. Default: "cpu".
    eos_ids
        The token ids at which the engine ends a sequence.
    vocab_size
        Columns of the logits. If given, a model that lacks the tokens is refused here instead of at the first request.

    Raises
    ------
    ConfigError
        There is no end-of-sequence token, the token ids of the codes are unknown, or the vocabulary is too small.
    """

    def __init__(
        self,
        catalog: Catalog,
        device: torch.device | str = "cpu",
        *,
        eos_ids: Sequence[int],
        vocab_size: int | None = None,
    ) -> None:
        self.catalog = catalog
        self.trie = TrieTensors(catalog.trie, device)
        self.eos_ids = tuple(eos_ids)
        self._maskers: dict[Constraints, TokenMasker] = {}  # least recently used first
        needed = self._token_masker(Constraints(text=True)).needed
        if vocab_size is not None and vocab_size < needed:
            raise ConfigError(
                f"the model has {vocab_size} tokens, the artifact's end at {needed}: they do not belong together. "
                "Serve the folder that semid extend wrote."
            )
        self._last_filters: dict[Constraints, tuple[dict[int, Filter | None], FilterTensors]] = {}  # id -> filter

    def request_constraint(self, options: RequestOptions) -> RequestConstraint | None:
        """Return what a request may generate; None if it is not constrained. Call it once, when the request enters.

        Never raises ConfigError, which would stop the server: a request that cannot be fulfilled gets `refusal`.
        """
        if options.mode == "off":
            return None
        try:
            markers = marker_ids(self.catalog.ids.vocabulary, self.trie.base) if options.markers else None
            return RequestConstraint(constraints_of(options, markers), self.catalog.filter(options))
        except ConfigError as error:
            return self.refusal(error)

    def refusal(self, error: ConfigError) -> RequestConstraint:
        """Log why a request cannot be fulfilled, and return a constraint that ends it at once."""
        logger.error("a request ends without items: %s", error)
        return RequestConstraint(Constraints(), self.catalog.nothing)

    def groups(self, row_constraints: Sequence[RequestConstraint | None]) -> Iterator[Group]:
        """Group the rows of a batch by their constraints; rows of None are in no group."""
        members: dict[Constraints, list[tuple[int, Filter | None]]] = {}
        for row, request in enumerate(row_constraints):
            if request is not None:
                members.setdefault(request.constraints, []).append((row, request.filter))
        for gone in self._last_filters.keys() - members.keys():
            del self._last_filters[gone]
        for constraints, rows in members.items():
            filters, places = self._filters(constraints, [filter for _, filter in rows])
            yield Group(self._token_masker(constraints), [row for row, _ in rows], filters, places)

    def _token_masker(self, constraints: Constraints) -> TokenMasker:
        """Return the masker for these constraints; the `MAX_MASKERS` used last are kept."""
        masker = self._maskers.pop(constraints, None) or TokenMasker(self.trie, constraints, eos_ids=self.eos_ids)
        self._maskers[constraints] = masker
        if len(self._maskers) > MAX_MASKERS:
            del self._maskers[next(iter(self._maskers))]
        return masker

    def _filters(
        self, constraints: Constraints, filters: Sequence[Filter | None]
    ) -> tuple[FilterTensors | None, list[int]]:
        """Return the filters on the device, and which of them each row has; reused until a new filter comes."""
        if all(each is None for each in filters):
            self._last_filters.pop(constraints, None)
            return None, []
        distinct = {id(each): each for each in filters}
        last, tensors = self._last_filters.get(constraints, ({}, None))
        if (
            tensors is None or not distinct.keys() <= last.keys()
        ):  # rows move and leave all the time, which changes nothing here
            tensors = FilterTensors(list(distinct.values()), self.trie, len(distinct))
            last = distinct
            self._last_filters[constraints] = last, tensors
        places = {key: place for place, key in enumerate(last)}
        return tensors, [places[id(each)] for each in filters]

    def mask_(
        self,
        logits: torch.Tensor,
        row_constraints: Sequence[RequestConstraint | None],
        histories: Sequence[History | None],
    ) -> torch.Tensor:
        """Mask the first rows of logits [>= R, V] in place, for engines that keep histories on the host.

        Parameters
        ----------
        logits
            Floating point; rows after the first R are left alone.
        row_constraints
            What each row may generate; None leaves the row alone.
        histories
            The tokens of each row so far; may be None where `row_constraints` is. Negative ids at the end of what was
            generated stand for tokens not known yet and are ignored.

        Returns
        -------
        Tensor
            `logits` itself.

        Raises
        ------
        ConfigError
            A filter was made from another trie.
        """
        for group in self.groups(row_constraints):
            mine = [histories[row] or ((), ()) for row in group.rows]
            arrays = _table(mine, self.trie.trie.n_levels, group.masker.constraints.counts)
            self.apply_(logits, group, *(torch.from_numpy(each).to(logits.device) for each in arrays))
        return logits

    def apply_(self, logits: torch.Tensor, group: Group, token_ids: torch.Tensor, prompt_lengths: torch.Tensor) -> None:
        """Mask the rows of one group in place.

        Parameters
        ----------
        logits
            The whole batch, [>= R, V].
        group
            One of `groups`.
        token_ids
            int64 [rows of the group, T], aligned at the right.
        prompt_lengths
            int64 [rows of the group]: columns before the first generated one.
        """
        masker, device = group.masker, logits.device
        filters = group.filters
        rows = None if len(group.rows) == len(logits) else torch.tensor(group.rows, device=device)
        mine = logits if rows is None else logits.index_select(0, rows)
        masker.mask_(
            mine,
            token_ids,
            prompt_lengths=prompt_lengths if masker.constraints.counts else None,  # the engine knows which rows ended
            filters=filters,
            requests=None if filters is None else _numbers(group.places, device),
        )
        if rows is not None:
            logits.index_copy_(0, rows, mine)


def _numbers(places: list[int], device: torch.device) -> torch.Tensor:
    """Return the numbers as int64 on the device; no transfer if all are 0."""
    if any(places):
        return torch.tensor(places, device=device)
    return torch.zeros(len(places), dtype=torch.long, device=device)


def _table(
    histories: Sequence[History], n_levels: int, counts: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return token ids int64 [R, T], aligned at the right, and the columns before the generated ones, int64 [R].

    Only what the masker reads: the tail of each row, and all generated tokens if items are counted.

    >>> _table([([7, 8, 9], [10, 11]), ([7], [-1])], n_levels=2, counts=False)[0].tolist()
    [[9, 10, 11], [-1, -1, 7]]
    """
    tail = tail_length(n_levels)
    rows, generated = [], []
    for prompt, output in histories:
        known = len(output)
        while known and output[known - 1] < 0:
            known -= 1
        after = output[0 if counts else max(known - tail, 0) : known]
        before = tail if counts else tail - len(after)
        rows.append([*prompt[max(len(prompt) - before, 0) :], *after])
        generated.append(len(after))
    width = max(1, *map(len, rows))
    table = np.full((len(rows), width), PADDING, np.int64)
    for row, tokens in zip(table, rows, strict=True):
        row[width - len(tokens) :] = tokens
    return table, width - np.array(generated, np.int64)
