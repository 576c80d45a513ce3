"""Mask the logits of each row so that only valid items can follow: the core of every logits processor here.

The masker keeps no state between steps. It reads everything off a row's own token ids: the last L - 1 tokens show how
much of an item has begun, and the tokens after the prompt show which items are complete, where items are counted or
must not repeat. So beams may be reordered, batches rebuilt and slots moved, and the rows of one batch may be at
different depths. A node is offered only if an admitted item lies below it, so no row ever reaches a dead end.

Not here: transformers (`logits_processor.py`), serving engines (`tokenizer_exports/serving/vllm.py`,
`tokenizer_exports/serving/sglang.py`). Nothing waits for the device. R rows, T tokens, V vocabulary, L levels, B
requests, W the most children of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.constraint import Constraints
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors

__all__ = ["TokenMasker"]

MINUS_INFINITY = float("-inf")


@dataclass(frozen=True, eq=False)
class _Allowed:
    """The items that each row may still generate."""

    filters: tuple[FilterTensors, torch.Tensor] | None  # and the request of each row, int64 [R]; None: no filter
    banned: torch.Tensor | None = None  # int64 [R, k] - ascending distinct ranks that the filter admits, padded with N

    @property
    def all(self) -> bool:
        """Whether every row may generate every item."""
        return self.filters is None and self.banned is None

    def before(self, ranks: torch.Tensor) -> torch.Tensor:
        """Count the allowed items at ranks below these [R, W], 0 ... N, as int64 [R, W]."""
        count = ranks
        if self.filters is not None:
            filters, requests = self.filters
            count = filters.before(ranks, requests)
        return count if self.banned is None else count - torch.searchsorted(self.banned, ranks)


class TokenMasker:
    """Set to -inf every logit that would leave the catalog or break the constraints.

    Parameters
    ----------
    trie
        The trie on the device of the logits; its `base` must be known.
    constraints
        What may stand around the items. Default `Constraints()`: items one after the other without end, so the caller
        stops after L tokens per item.
    eos_ids
        All token ids that end a sequence, as in the generation config. Default: none.

    Raises
    ------
    ConfigError
        The trie has no base; the constraints may end a sequence but `eos_ids` is empty; or an id in `eos_ids` or
        `markers` is the token of a code or given twice.

    >>> from semid.trie import Trie
    >>> trie = TrieTensors(Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10))
    >>> masker = TokenMasker(trie, Constraints(max_items=1), eos_ids=[1])
    >>> rows = torch.tensor([[5, 5, 5], [5, 5, 10], [5, 10, 16]])      # nothing, begun, finished
    >>> logits = masker.mask_(torch.zeros(3, 20), rows, prompt_lengths=1)
    >>> [row.isfinite().nonzero().flatten().tolist() for row in logits]
    [[10, 13], [15, 16], [1]]
    """

    def __init__(
        self, trie: TrieTensors, constraints: Constraints | None = None, *, eos_ids: Sequence[int] = ()
    ) -> None:
        self.trie = trie
        self.constraints = constraints or Constraints()
        self.eos_ids = tuple(dict.fromkeys(int(each) for each in eos_ids))
        self.block = trie.base, trie.base + trie.trie.offsets[-1]
        if self.constraints.ends and not self.eos_ids:
            raise ConfigError(
                "eos_ids=() but these constraints may end a sequence. Give the end-of-sequence token ids, for instance "
                "[tokenizer.eos_token_id]."
            )
        specials = [*self.eos_ids, *(self.constraints.markers or ())]
        for each in specials:
            if self.block[0] <= each < self.block[1]:
                raise ConfigError(f"token id {each} is a code of an item, so it cannot be an end or a marker.")
        if len(set(specials)) < len(specials):
            raise ConfigError(f"eos_ids={list(self.eos_ids)} markers={self.constraints.markers} should be distinct.")
        self.needed = max([self.block[1], *(each + 1 for each in specials)])  # columns that logits must have
        self._specials = torch.tensor(specials, dtype=torch.long, device=trie.device)
        self._eos = self._specials[: len(self.eos_ids)]
        starts = trie.trie.level_starts
        self._starts = torch.tensor(starts[:-1], device=trie.device)

    def mask_(
        self,
        logits: torch.Tensor,
        token_ids: torch.Tensor,
        *,
        prompt_lengths: int | torch.Tensor | None = None,
        filters: FilterTensors | None = None,
        requests: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Set every forbidden logit to -inf in place. Every row keeps at least one, and kept logits stay bit-equal.

        Parameters
        ----------
        logits
            Floating point [R, V] of any precision; V may be padded.
        token_ids
            Integers [R, T]: the prompt and what was generated, aligned at the right, so the last column holds the last
            token of each row. Padding on the left may be any id that is not the token of a code, such as -1.
        prompt_lengths
            Number of columns before the first generated one, padding included: one number, or int [R] on the device.
            Required if `constraints.counts`. Without it a row that has ended looks like a prompt that ends in an
            end-of-sequence token, so the caller must ignore what is sampled for ended rows (`generate` and all engines
            do).
        filters
            The filters of B requests. Default: all items are admitted.
        requests
            int64 [R] on the device: the request of each row. Default: row r belongs to request r // (R / B).

        Returns
        -------
        Tensor
            `logits` itself.

        Raises
        ------
        InputError
            V is too small for the tokens of the IDs; R is not a multiple of B; `prompt_lengths` is missing or beyond T.
        ConfigError
            The filters were made from another trie.
        """
        if logits.shape[1] < self.needed:
            raise InputError(
                f"logits: vocabulary={logits.shape[1]} should be at least {self.needed}, the tokens of the IDs "
                "included. Extend the model: semid.extend(tokenizer, model, ids)."
            )
        if filters is not None and not filters.origin.agrees(self.trie.trie.origin):
            raise ConfigError("filters: made from another trie. Make them again with FilterTensors and this one.")
        if not len(logits):
            return logits
        columns, legal, text = self._choices(token_ids, prompt_lengths, filters, requests)
        kept = logits.gather(1, columns).masked_fill_(~legal, MINUS_INFINITY)
        if text is None:
            logits.fill_(MINUS_INFINITY)
        else:
            logits.masked_fill_(~text.unsqueeze(1), MINUS_INFINITY)
            logits[:, slice(*self.block)] = MINUS_INFINITY
        return logits.scatter_(1, columns, kept)

    def allowed(
        self,
        token_ids: torch.Tensor,
        *,
        vocab_size: int | None = None,
        prompt_lengths: int | torch.Tensor | None = None,
        filters: FilterTensors | None = None,
        requests: torch.Tensor | None = None,
    ) -> list[list[int]]:
        """Return the token ids that `mask_` leaves in each row, ascending; no list is empty. Waits for the device.

        Parameters
        ----------
        vocab_size
            V. Required if the constraints allow text.
        token_ids, prompt_lengths, filters, requests
            As in `mask_`.

        Raises
        ------
        ConfigError
            Text is allowed and `vocab_size` is missing; or as `mask_`.
        InputError
            As `mask_`.
        """
        if self.constraints.text and vocab_size is None:
            raise ConfigError("vocab_size=None but free text may be any token. Give model.config.vocab_size.")
        logits = torch.zeros(len(token_ids), vocab_size or self.needed, device=self.trie.device)
        self.mask_(logits, token_ids, prompt_lengths=prompt_lengths, filters=filters, requests=requests)
        return [row.nonzero().flatten().tolist() for row in (logits == 0).cpu()]

    # ---- one step: columns int64 [R, C] of the logits, which of them are legal, bool [R, C], and which rows [R] may
    # take text as well (None: no row)

    def _choices(
        self,
        token_ids: torch.Tensor,
        prompt_lengths: int | torch.Tensor | None,
        filters: FilterTensors | None,
        requests: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        constraints, n_rows = self.constraints, len(token_ids)
        filtered = None
        if filters is not None:
            filtered = filters, self._requests(n_rows, filters) if requests is None else requests
        count, allowed, finished = self._history(token_ids, prompt_lengths, _Allowed(filtered))
        nodes = self.trie.nodes_at_end(token_ids)
        left = self._leads(torch.zeros_like(nodes), allowed)  # is there an item to begin?
        inside = ~finished & (nodes > 0) & self._leads(nodes, allowed)
        nodes = torch.where(inside, nodes, 0)
        opened, closing = self._at_markers(token_ids, ~finished & ~inside)
        opened &= left
        free = ~(finished | inside | opened | closing)
        begin = free & left if constraints.max_items is None else free & left & (count < constraints.max_items)
        end = finished | (free & (~left if constraints.least is None else ~left | (count >= constraints.least)))
        codes, legal_codes = self._codes(nodes, allowed)
        legal_codes &= (inside | opened | (begin if constraints.markers is None else False)).unsqueeze(1)
        specials = [end] * len(self.eos_ids) + ([begin, closing] if constraints.markers else [])
        columns = torch.cat([codes, self._specials.expand(n_rows, -1)], dim=1)
        legal = torch.cat([legal_codes, *(each.unsqueeze(1) for each in specials)], dim=1)
        return columns, legal, free if constraints.text else None

    def _requests(self, n_rows: int, filters: FilterTensors) -> torch.Tensor:
        n_requests = len(filters.first)
        if n_rows % n_requests:
            raise InputError(
                f"filter: {n_requests} filters for {n_rows} rows, not a multiple of them. Give one filter, or one for "
                "each prompt of the batch."
            )
        return torch.arange(n_rows, device=self.trie.device) // (n_rows // n_requests)

    def _leads(self, nodes: torch.Tensor, allowed: _Allowed) -> torch.Tensor:
        """Return whether an allowed item lies below each node, bool [R]."""
        if allowed.all:
            return torch.ones_like(nodes, dtype=torch.bool)
        ends = self.trie.first_ranks(torch.stack([nodes, nodes + 1], dim=1))
        return allowed.before(ends).diff(dim=1).squeeze(1) > 0

    def _codes(self, nodes: torch.Tensor, allowed: _Allowed) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token ids int64 [R, W] of the children of inner nodes [R], and which lead to an allowed item.

        Columns past the last child repeat the first child, so writing them twice does no harm.
        """
        trie = self.trie
        start, stop = (each.unsqueeze(1) for each in trie.bounds(nodes))
        # On a CPU the widest node at hand costs nothing to know; on a device, asking for it would wait.
        width = int((stop - start).max()) if trie.device.type == "cpu" else max(trie.trie.fanout)
        ends = start + torch.arange(width + 1, device=trie.device)
        child = torch.where(ends < stop, ends, start)[:, :-1]
        level = torch.bucketize(nodes, self._starts, right=True) - 1
        token_ids = trie.codes[child] + (trie.base + trie.offsets[level]).unsqueeze(1)
        if allowed.all:
            return token_ids, torch.ones_like(child, dtype=torch.bool)
        leads = allowed.before(trie.first_ranks(torch.minimum(ends, stop))).diff(dim=1) > 0
        return token_ids, torch.where(ends[:, :-1] < stop, leads, leads[:, :1])

    def _at_markers(self, token_ids: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of these rows bool [R] end in a begin marker, and which end in one followed by a whole ID."""
        n_levels, never = self.trie.trie.n_levels, torch.zeros_like(rows)
        if self.constraints.markers is None or not token_ids.shape[1]:
            return never, never
        opened = rows & (token_ids[:, -1] == self.constraints.markers[0])
        if token_ids.shape[1] <= n_levels:
            return opened, never
        in_order = self.trie.levels(token_ids[:, -n_levels:]) == torch.arange(n_levels, device=rows.device)
        return opened, rows & (token_ids[:, -n_levels - 1] == self.constraints.markers[0]) & in_order.all(dim=1)

    def _history(
        self, token_ids: torch.Tensor, prompt_lengths: int | torch.Tensor | None, allowed: _Allowed
    ) -> tuple[torch.Tensor, _Allowed, torch.Tensor]:
        """Return the number of items generated, int64 [R]; what is allowed after them; which rows ended, bool [R]."""
        n_rows, width = token_ids.shape
        count = torch.zeros(n_rows, dtype=torch.long, device=self.trie.device)
        if prompt_lengths is None:
            if self.constraints.counts:
                raise InputError(
                    "prompt_lengths=None but min_items, max_items and repeats=False look at what was generated. Give "
                    "the length of the prompt."
                )
            return count, allowed, torch.zeros_like(count, dtype=torch.bool)
        if isinstance(prompt_lengths, int):
            if not 0 <= prompt_lengths <= width:
                raise InputError(f"prompt_lengths={prompt_lengths} should be inside 0..{width}, the tokens of a row.")
            unread = max(prompt_lengths - self.trie.trie.n_levels + 1, 0)  # an item may have begun in the prompt
            token_ids = token_ids[:, unread:]
            first = torch.full_like(count, prompt_lengths - unread)
        else:
            first = prompt_lengths
        generated = torch.arange(token_ids.shape[1], device=self.trie.device) >= first.unsqueeze(1)
        finished = (torch.isin(token_ids, self._eos) & generated).any(dim=1)
        if not self.constraints.counts:
            return count, allowed, finished
        nodes = self._items(token_ids, generated)
        if not self.constraints.repeats:
            allowed = _Allowed(allowed.filters, self._banned(nodes, allowed))
        return (nodes >= 0).sum(dim=1), allowed, finished

    def _items(self, token_ids: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
        """Return the nodes int64 [R, k] of the items whose last token was generated, padded with -1."""
        n_levels = self.trie.trie.n_levels
        windows = token_ids.shape[1] - n_levels + 1
        if windows <= 0:
            return torch.full_like(token_ids[:, :0], -1)
        levels = self.trie.levels(token_ids)
        whole = generated[:, n_levels - 1 :]
        for level in range(n_levels):
            whole = whole & (levels[:, level : level + windows] == level)
        places = torch.where(whole, torch.arange(windows, device=token_ids.device), -1)
        places = places.topk(-(-windows // n_levels), dim=1).values  # whole IDs do not overlap, so there are no more
        nodes = torch.where(places >= 0, 0, -1)
        for level in range(n_levels):
            token = token_ids.gather(1, places.clamp(min=0) + level)
            nodes = self.trie.child(nodes, token - self.trie.base - self.trie.offsets[level])
        return nodes

    def _banned(self, nodes: torch.Tensor, allowed: _Allowed) -> torch.Tensor:
        """Return the distinct ranks int64 [R, k] of the items among nodes [R, k], ascending, padded with N.

        Ranks that the filter bans are left out: the filter's counts exclude them already.
        """
        nobody = len(self.trie.trie)
        ranks = (nodes - self.trie.trie.level_starts[-2]).clamp(min=0)
        items = (nodes >= 0) & (allowed.before(ranks + 1) > allowed.before(ranks))
        ranks = torch.where(items, ranks, nobody).sort(dim=1).values
        twice = torch.zeros_like(items)
        twice[:, 1:] = ranks[:, 1:] == ranks[:, :-1]
        return ranks.masked_fill_(twice, nobody).sort(dim=1).values
