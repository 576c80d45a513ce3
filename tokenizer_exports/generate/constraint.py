"""Which tokens each row may take next, applied to its logits in place: the core of every logits processor here.

Nothing is remembered between steps. All a row needs is read off its own token ids: how much of an item the last
L - 1 of them have begun, and, where items are counted or must not repeat, what was generated after the prompt.
So beams may be reordered, batches re-made and slots moved, and rows of one batch may be at different depths.
A node is offered only if an admitted item lies below it, so no row ever comes to a dead end.

Not here: transformers (`logits_processor.py`), serving engines (`tokenizer_exports/serving/vllm.py`,
`tokenizer_exports/serving/sglang.py`). Nothing waits for the device. R rows, T tokens, V vocabulary, L levels, B
requests, W the most children of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.tokens.vocabulary import Vocabulary

__all__ = ["Constraint", "Rules", "marker_ids"]

MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class Rules:
    """What a row may consist of.

    Raises
    ------
    ConfigError
        Impossible values.

    >>> Rules(max_items=3).counts, Rules().counts            # three items, then the end; items without end
    (True, False)
    >>> try:
    ...     Rules(min_items=3, max_items=2)
    ... except ConfigError as error:
    ...     print(error)
    min_items=3 should be at most max_items=2.
    """

    text: bool = False  # free text before, between and after the items; else items alone
    markers: tuple[int, int] | None = None  # token ids of begin and end (`marker_ids`): every item stands between
    min_items: int | None = None  # no end of sequence before; by default 0 with text, max_items without
    max_items: int | None = None  # no item after so many; None: no limit
    repeats: bool = True  # False: no item twice among those generated

    def __post_init__(self) -> None:
        for name, smallest in (("min_items", 0), ("max_items", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < smallest):
                raise ConfigError(f"{name}={value!r} should be None or an integer of at least {smallest}.")
        if None not in (self.min_items, self.max_items) and self.min_items > self.max_items:
            raise ConfigError(f"min_items={self.min_items} should be at most max_items={self.max_items}.")
        if self.markers is not None:
            markers = self.markers if isinstance(self.markers, Sequence) else ()
            if len(markers) != 2 or not all(isinstance(each, int) for each in markers) or markers[0] == markers[1]:
                raise ConfigError(
                    f"markers={self.markers!r} should be None or two token ids. Get them with "
                    "marker_ids(ids.vocabulary, trie.base)."
                )
            object.__setattr__(self, "markers", tuple(markers))

    @property
    def least(self) -> int | None:
        """Items before the sequence may end; None: it never ends while there are items."""
        if self.min_items is not None:
            return self.min_items
        return 0 if self.text else self.max_items

    @property
    def counts(self) -> bool:
        """Do the rules ask what was generated since the prompt's end? Then prompt lengths are needed."""
        return bool(self.min_items) or self.max_items is not None or not self.repeats

    @property
    def ends(self) -> bool:
        """Can a sequence end by itself? Then the end-of-sequence token must be known."""
        return self.text or self.min_items is not None or self.counts


def marker_ids(vocabulary: Vocabulary, base: int) -> tuple[int, int]:
    """Token ids of the begin and the end marker; ConfigError if the vocabulary lacks one.

    >>> marker_ids(Vocabulary([256, 256]), base=1000)
    (1512, 1513)
    """
    if not (vocabulary.begin and vocabulary.end):
        raise ConfigError(
            f"begin={vocabulary.begin!r} end={vocabulary.end!r}: this vocabulary lacks a marker. Leave markers out."
        )
    begin = base + int(vocabulary.offsets[-1])
    return begin, begin + 1


@dataclass(frozen=True, eq=False)
class _Live:
    """What is still to be had, of each row; None stands for "all of it"."""

    filters: FilterTensors | None
    requests: torch.Tensor | None  # int64 [R]
    banned: torch.Tensor | None = None  # int64 [R, k] - ascending distinct ranks that the filter admits; N fills up

    @property
    def whole(self) -> bool:
        """Is all of it still to be had, by every row?"""
        return self.filters is None and self.banned is None

    def before(self, ranks: torch.Tensor) -> torch.Tensor:
        """int64 [R, W]: how many items there are at ranks smaller than these [R, W], 0 ... N."""
        items = ranks if self.filters is None else self.filters.before(ranks, self.requests)
        if self.banned is None:
            return items
        return items - torch.searchsorted(self.banned, ranks)


class Constraint:
    """Lets through items of a trie and what the rules allow besides.

    Parameters
    ----------
    trie
        With `base`. Its device is that of the logits.
    rules
        `Rules()` by default: items one after the other without end; the caller stops after L tokens an item.
    eos_ids
        The tokens that end a sequence, all those of the generation config.

    Raises
    ------
    ConfigError
        The trie has no base, the rules can end a sequence and there is no `eos_ids`, or an id lies among the codes.

    >>> from semid.trie.trie import Trie
    >>> trie = TrieTensors(Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10))
    >>> constraint = Constraint(trie, Rules(max_items=1), eos_ids=[1])
    >>> rows = torch.tensor([[5, 5, 5], [5, 5, 10], [5, 10, 16]])      # nothing, begun, finished
    >>> logits = constraint.mask_(torch.zeros(3, 20), rows, prompt_lengths=1)
    >>> [row.isfinite().nonzero().flatten().tolist() for row in logits]
    [[10, 13], [15, 16], [1]]
    """

    def __init__(self, trie: TrieTensors, rules: Rules | None = None, *, eos_ids: Sequence[int] = ()) -> None:
        self.trie = trie
        self.rules = rules or Rules()
        self.eos_ids = tuple(dict.fromkeys(int(each) for each in eos_ids))
        self.block = trie.base, trie.base + trie.trie.offsets[-1]
        if self.rules.ends and not self.eos_ids:
            raise ConfigError(
                "eos_ids=() but these rules end a sequence. Give the end-of-sequence token ids, for instance "
                "[tokenizer.eos_token_id]."
            )
        specials = [*self.eos_ids, *(self.rules.markers or ())]
        for each in specials:
            if self.block[0] <= each < self.block[1]:
                raise ConfigError(f"token id {each} is a code of an item, so it cannot be an end or a marker.")
        if len(set(specials)) < len(specials):
            raise ConfigError(f"eos_ids={list(self.eos_ids)} markers={self.rules.markers} should be distinct.")
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
        """Set every forbidden logit to -inf, in place; the others keep their bits. Every row keeps at least one.

        Parameters
        ----------
        logits
            Floating [R, V], any precision; V may be padded.
        token_ids
            int [R, T], prompt and what was generated, aligned at the right: the last column is each row's last
            token. Padding on the left may be any id that is no code, -1 say.
        prompt_lengths
            Columns before the first generated one, padding included: one number, or int [R] on the device.
            Needed if `rules.counts`. Without it a row that has ended is not told from a prompt that ends in an
            end-of-sequence token, so the caller has to ignore what is drawn for rows that have ended (`generate`
            and all engines do).
        filters
            Admitted items of B requests.
        requests
            int64 [R] on the device: the request of each row. By default row r belongs to request r // (R / B).

        Returns
        -------
        Tensor
            `logits` itself.

        Raises
        ------
        InputError
            V is too small for the tokens of the items, R no multiple of B, or prompt_lengths missing or beyond T.
        ConfigError
            Filters of another trie.
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
        columns, allowed, text = self._choices(token_ids, prompt_lengths, filters, requests)
        kept = logits.gather(1, columns).masked_fill_(~allowed, MINUS_INFINITY)
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
        """What `mask_` leaves of each row, as ascending token ids, for engines that ask for lists; never empty.

        V has to be given if the rules allow text. Waits for the device.
        """
        if self.rules.text and vocab_size is None:
            raise ConfigError("vocab_size=None but free text may be any token. Give model.config.vocab_size.")
        logits = torch.zeros(len(token_ids), vocab_size or self.needed, device=self.trie.device)
        self.mask_(logits, token_ids, prompt_lengths=prompt_lengths, filters=filters, requests=requests)
        return [row.nonzero().flatten().tolist() for row in (logits == 0).cpu()]

    # ---- one step, with columns [R, C] of which those `allowed` [R, C] may be taken; `text` [R] rows take words too

    def _choices(
        self,
        token_ids: torch.Tensor,
        prompt_lengths: int | torch.Tensor | None,
        filters: FilterTensors | None,
        requests: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        rules, n_rows = self.rules, len(token_ids)
        if filters is not None and requests is None:
            requests = self._requests(n_rows, filters)
        count, live, finished = self._history(token_ids, prompt_lengths, _Live(filters, requests))
        nodes = self.trie.nodes_at_end(token_ids)
        left = self._leads(torch.zeros_like(nodes), live)  # is there an item to begin?
        inside = ~finished & (nodes > 0) & self._leads(nodes, live)
        nodes = torch.where(inside, nodes, 0)
        opened, closing = self._at_markers(token_ids, ~finished & ~inside)
        opened &= left
        free = ~(finished | inside | opened | closing)
        begin = free & left if rules.max_items is None else free & left & (count < rules.max_items)
        end = finished | (free & (~left if rules.least is None else ~left | (count >= rules.least)))
        codes, codes_allowed = self._codes(nodes, live)
        codes_allowed &= (inside | opened | (begin if rules.markers is None else False)).unsqueeze(1)
        specials = [end] * len(self.eos_ids) + ([begin, closing] if rules.markers else [])
        columns = torch.cat([codes, self._specials.expand(n_rows, -1)], dim=1)
        allowed = torch.cat([codes_allowed, *(each.unsqueeze(1) for each in specials)], dim=1)
        return columns, allowed, free if rules.text else None

    def _requests(self, n_rows: int, filters: FilterTensors) -> torch.Tensor:
        n_requests = len(filters.first)
        if n_rows % n_requests:
            raise InputError(
                f"filter: {n_requests} filters for {n_rows} rows, which are no multiple. Give one filter, or one for "
                "each prompt of the batch."
            )
        return torch.arange(n_rows, device=self.trie.device) // (n_rows // n_requests)

    def _leads(self, nodes: torch.Tensor, live: _Live) -> torch.Tensor:
        """bool [R]: does an item that is still to be had lie below each node?"""
        if live.whole:
            return torch.ones_like(nodes, dtype=torch.bool)
        ends = self.trie.first_ranks(torch.stack([nodes, nodes + 1], dim=1))
        return live.before(ends).diff(dim=1).squeeze(1) > 0

    def _codes(self, nodes: torch.Tensor, live: _Live) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids int64 [R, W] of the children of nodes [R], none of them an item, and which of them lead on.

        Columns past the last child repeat the first one: what is written there twice is the same.
        """
        trie = self.trie
        start, stop = (each.unsqueeze(1) for each in trie.bounds(nodes))
        # The widest node at hand is known at no cost on a CPU alone; asking a device for it would wait.
        width = int((stop - start).max()) if trie.device.type == "cpu" else max(trie.trie.fanout)
        ends = start + torch.arange(width + 1, device=trie.device)
        child = torch.where(ends < stop, ends, start)[:, :-1]
        level = torch.bucketize(nodes, self._starts, right=True) - 1
        token_ids = trie.codes[child] + (trie.base + trie.offsets[level]).unsqueeze(1)
        if live.whole:
            return token_ids, torch.ones_like(child, dtype=torch.bool)
        leads = live.before(trie.first_ranks(torch.minimum(ends, stop))).diff(dim=1) > 0
        return token_ids, torch.where(ends[:, :-1] < stop, leads, leads[:, :1])

    def _at_markers(self, token_ids: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of these rows bool [R]: those that end in a begin marker, and those that end in one and a whole ID."""
        n_levels, never = self.trie.trie.n_levels, torch.zeros_like(rows)
        if self.rules.markers is None or not token_ids.shape[1]:
            return never, never
        opened = rows & (token_ids[:, -1] == self.rules.markers[0])
        if token_ids.shape[1] <= n_levels:
            return opened, never
        in_order = self.trie.levels(token_ids[:, -n_levels:]) == torch.arange(n_levels, device=rows.device)
        return opened, rows & (token_ids[:, -n_levels - 1] == self.rules.markers[0]) & in_order.all(dim=1)

    def _history(
        self, token_ids: torch.Tensor, prompt_lengths: int | torch.Tensor | None, live: _Live
    ) -> tuple[torch.Tensor, _Live, torch.Tensor]:
        """What was generated: items int64 [R]; `live` without them if they must not repeat; ended rows, bool [R]."""
        n_rows, width = token_ids.shape
        count = torch.zeros(n_rows, dtype=torch.long, device=self.trie.device)
        if prompt_lengths is None:
            if self.rules.counts:
                raise InputError(
                    "prompt_lengths=None but min_items, max_items and repeats=False look at what was generated. Give "
                    "the length of the prompt."
                )
            return count, live, torch.zeros_like(count, dtype=torch.bool)
        if isinstance(prompt_lengths, int):
            if not 0 <= prompt_lengths <= width:
                raise InputError(f"prompt_lengths={prompt_lengths} should be inside 0..{width}, the tokens of a row.")
            unread = max(prompt_lengths - self.trie.trie.n_levels + 1, 0)  # an item may have begun in the prompt
            token_ids, first = token_ids[:, unread:], prompt_lengths - unread
            first = torch.full_like(count, first)
        else:
            first = prompt_lengths
        generated = torch.arange(token_ids.shape[1], device=self.trie.device) >= first.unsqueeze(1)
        finished = (torch.isin(token_ids, self._eos) & generated).any(dim=1)
        if not self.rules.counts:
            return count, live, finished
        nodes = self._items(token_ids, generated)
        if not self.rules.repeats:
            live = _Live(live.filters, live.requests, self._banned(nodes, live))
        return (nodes >= 0).sum(dim=1), live, finished

    def _items(self, token_ids: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
        """Nodes int64 [R, k] of the items whose last token was generated; -1 elsewhere."""
        n_levels = self.trie.trie.n_levels
        windows = token_ids.shape[1] - n_levels + 1
        if windows <= 0:
            return torch.full_like(token_ids[:, :0], -1)
        levels = self.trie.levels(token_ids)
        whole = generated[:, n_levels - 1 :]
        for level in range(n_levels):
            whole = whole & (levels[:, level : level + windows] == level)
        places = torch.where(whole, torch.arange(windows, device=token_ids.device), -1)
        places = places.topk(-(-windows // n_levels), dim=1).values  # whole IDs do not overlap: no more can be there
        nodes = torch.where(places >= 0, 0, -1)
        for level in range(n_levels):
            token = token_ids.gather(1, places.clamp(min=0) + level)
            nodes = self.trie.child(nodes, token - self.trie.base - self.trie.offsets[level])
        return nodes

    def _banned(self, nodes: torch.Tensor, live: _Live) -> torch.Tensor:
        """Ranks int64 [R, k] of the items among nodes [R, k], each once, ascending; N elsewhere.

        Only ranks that the filter admits: another would be subtracted from a count that lacks it already.
        """
        nobody = len(self.trie.trie)
        ranks = (nodes - self.trie.trie.level_starts[-2]).clamp(min=0)
        items = (nodes >= 0) & (live.before(ranks + 1) > live.before(ranks))
        ranks = torch.where(items, ranks, nobody).sort(dim=1).values
        twice = torch.zeros_like(items)
        twice[:, 1:] = ranks[:, 1:] == ranks[:, :-1]
        return ranks.masked_fill_(twice, nobody).sort(dim=1).values
