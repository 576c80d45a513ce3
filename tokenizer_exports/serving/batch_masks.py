"""The logits of a server's batch, where every request may ask for something else: shared by all serving engines.

Rows with the same rules are masked together by one `Constraint`; their filters may differ. Where all rows have the
same rules, which is usual, the logits are changed in place; otherwise the rows of each group are copied out and back.

Not here: what a request may ask for (`requests.py`), and engines (`vllm.py`, `sglang.py`). R rows, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from semid.errors import ConfigError
from semid.tokenizer_exports.generate.constraint import Constraint, Rules, marker_ids
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.tokenizer_exports.serving.requests import Catalog, RequestOptions
from semid.trie.filters import Filter

__all__ = ["BatchMasks", "Demand", "Group", "History", "rules_of", "tail_length"]

log = logging.getLogger("semid")

KINDS_OF_RULES = 64  # constraints kept, each a few numbers
PADDING = -1  # left of a row; no token

History = tuple[Sequence[int], Sequence[int]]  # token ids of the prompt, and generated after it


def tail_length(n_levels: int) -> int:
    """The last tokens of a row that tell where it is: a begin marker and a whole ID."""
    return n_levels + 1


def rules_of(options: RequestOptions, markers: tuple[int, int] | None = None) -> Rules:
    """The rules of a request, that is, all but which items; ConfigError if they contradict each other.

    >>> rules_of(RequestOptions(mode="items", min_items=2)).max_items
    2
    """
    most = options.max_items
    if options.mode == "items" and most is None:
        most = max(options.min_items or 0, 1)
    return Rules(
        text=options.mode == "text",
        markers=markers,
        min_items=options.min_items,
        max_items=most,
        repeats=options.repeats,
    )


@dataclass(frozen=True, eq=False)
class Demand:
    """What one running request asks for."""

    rules: Rules
    filter: Filter | None  # None: the whole catalog


@dataclass(frozen=True, eq=False)
class Group:
    """Rows with the same rules."""

    constraint: Constraint
    rows: list[int]  # ascending
    filters: FilterTensors | None  # the distinct filters of the group; None: no row has one
    places: list[int]  # of each row's filter among them


class BatchMasks:
    """Masks the logits of batches for the catalog of one server.

    Parameters
    ----------
    eos_ids
        The tokens at which the engine ends a sequence.
    vocab_size
        Columns of the logits, if known: told at the start rather than at the first request.

    Raises
    ------
    ConfigError
        No end-of-sequence token, no token ids of the codes, or a vocabulary without room for them.
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
        self._constraint = lru_cache(KINDS_OF_RULES)(lambda rules: Constraint(self.trie, rules, eos_ids=eos_ids))
        needed = self._constraint(Rules(text=True)).needed
        if vocab_size is not None and vocab_size < needed:
            raise ConfigError(
                f"the model has {vocab_size} tokens, the artifact's end at {needed}: they do not belong together. "
                "Serve the folder that semid extend wrote."
            )
        self._last_filters: dict[Rules, tuple[dict[int, Filter | None], FilterTensors]] = {}  # id -> filter

    def demand(self, options: RequestOptions) -> Demand | None:
        """What a request asks for, made once when it enters; None if it is not constrained.

        Never raises, since that would stop the server: what should have been refused before is refused here.
        """
        if options.mode == "off":
            return None
        try:
            markers = marker_ids(self.catalog.ids.vocabulary, self.trie.base) if options.markers else None
            return Demand(rules_of(options, markers), self.catalog.filter(options))
        except ConfigError as error:
            return self.refusal(error)

    def refusal(self, error: ConfigError) -> Demand:
        """For a request that cannot be fulfilled: it ends at once, and the log says why."""
        log.error("a request ends without items: %s", error)
        return Demand(Rules(), self.catalog.nothing)

    def groups(self, demands: Sequence[Demand | None]) -> Iterator[Group]:
        """The rows of a batch by their rules; rows of None are in no group."""
        rows_of: dict[Rules, list[int]] = {}
        for row, demand in enumerate(demands):
            if demand is not None:
                rows_of.setdefault(demand.rules, []).append(row)
        for gone in self._last_filters.keys() - rows_of.keys():
            del self._last_filters[gone]
        for rules, rows in rows_of.items():
            filters, places = self._filters(rules, [demands[row].filter for row in rows])
            yield Group(self._constraint(rules), rows, filters, places)

    def _filters(self, rules: Rules, filters: Sequence[Filter | None]) -> tuple[FilterTensors | None, list[int]]:
        """Filters on the device, and which of them each row has; kept from step to step while no new one comes."""
        if all(each is None for each in filters):
            self._last_filters.pop(rules, None)
            return None, []
        distinct = {id(each): each for each in filters}
        last, tensors = self._last_filters.get(rules, ({}, None))
        if not distinct.keys() <= last.keys():  # rows change places and leave all the time: no reason to begin anew
            tensors = FilterTensors(list(distinct.values()), self.trie, len(distinct))
            last = distinct
            self._last_filters[rules] = last, tensors
        places = {key: place for place, key in enumerate(last)}
        return tensors, [places[id(each)] for each in filters]

    def mask_(
        self, logits: torch.Tensor, demands: Sequence[Demand | None], histories: Sequence[History | None]
    ) -> torch.Tensor:
        """Mask the first rows of logits [>= R, V] in place, for engines that keep histories on the host.

        `histories` may be None where the demand is. Negative ids at the end of what was generated stand for
        tokens not known yet and are left out.
        """
        for group in self.groups(demands):
            mine = [histories[row] for row in group.rows]
            arrays = _table(mine, self.trie.trie.n_levels, group.constraint.rules.counts)
            self.apply_(logits, group, *(torch.from_numpy(each).to(logits.device) for each in arrays))
        return logits

    def apply_(self, logits: torch.Tensor, group: Group, token_ids: torch.Tensor, prompt_lengths: torch.Tensor) -> None:
        """Mask the rows of one group in place, given token ids [its rows, T] and columns before what was generated."""
        constraint, device = group.constraint, logits.device
        filters = group.filters
        rows = None if len(group.rows) == len(logits) else torch.tensor(group.rows, device=device)
        mine = logits if rows is None else logits.index_select(0, rows)
        constraint.mask_(
            mine,
            token_ids,
            prompt_lengths=prompt_lengths if constraint.rules.counts else None,  # the engine knows which rows ended
            filters=filters,
            requests=None if filters is None else _numbers(group.places, device),
        )
        if rows is not None:
            logits.index_copy_(0, rows, mine)


def _numbers(places: list[int], device: torch.device) -> torch.Tensor:
    """int64 on the device, without a transfer where all are 0."""
    if any(places):
        return torch.tensor(places, device=device)
    return torch.zeros(len(places), dtype=torch.long, device=device)


def _table(
    histories: Sequence[History], n_levels: int, counts: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Histories as token ids int64 [R, T], aligned at the right, and columns before what was generated, int64 [R].

    Holds only what is looked at: the tail of a row, and all that was generated if that is counted.

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
