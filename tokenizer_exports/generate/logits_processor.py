"""Only real items from `transformers`' own `generate`: a logits processor, and the same as a prefix function.

Both are stateless: the next tokens follow from the token ids so far, whoever reorders or repeats the rows. They
make generation exact, not fast: what `generate` does besides (the prompt again for every beam, the whole head,
passes over the vocabulary) remains, and `generate_items` avoids it.

`constraint.py` has the rules; this file knows `generate`. B prompts, R rows, n beams or sequences a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from transformers import LogitsProcessor

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.constraint import Constraint, Rules, marker_ids
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.tokens.vocabulary import Vocabulary
from semid.trie.filters import Filter
from semid.trie.trie import Trie

__all__ = ["TrieLogitsProcessor", "prefix_allowed_tokens_fn"]


class KnowsEos(Protocol):
    """A tokenizer, `model.generation_config`, `model.config`."""

    eos_token_id: int | list[int] | None


Eos = KnowsEos | int | Sequence[int] | None
Filters = Filter | Sequence[Filter | None] | None
Markers = Vocabulary | tuple[int, int] | None


class TrieLogitsProcessor(LogitsProcessor):
    """For `generate(..., logits_processor=[TrieLogitsProcessor(trie, tokenizer)])`: greedy, beams or sampling.

    By default items follow each other without end, so `max_new_tokens=L` gives one item. An item that the
    prompt has begun is completed; whole items in the prompt have no effect. Not for continuous batching
    (`generate_batch`), whose processors see no history.

    Parameters
    ----------
    trie
        With the tokens of the model: `Trie.from_tokenizer(ids, tokenizer)`. As `TrieTensors`, its arrays are
        shared by all the processors made of it.
    eos
        What ends a sequence: the tokenizer, `model.generation_config`, or token ids. Needed for all but the
        default rules.
    filter
        Admitted items (`trie.filter`): for all rows, or one (or None) for each prompt of the batch, in order. The
        processor sees rows, not prompts, and takes n = R / B: give exactly as many filters as prompts.
    prompt_length
        Where generation begins in the rows: `inputs["input_ids"].shape[1]`, padding included; 1 for an encoder-
        decoder (its start token); 0 if the prompt was given as embeddings. `generate` does not tell it and a
        row does not show it, so `min_items`, `max_items` and `repeats=False` need it.
    text, markers, min_items, max_items, repeats
        See `Rules`. `markers` may be `ids.vocabulary`.
    copy
        Write into a new tensor. In greedy search and sampling, `generate(output_logits=True)` returns the very
        tensor that it hands to the processors, which would show -inf. Costs a pass over [R, V], no small one.

    Raises
    ------
    ConfigError
        Rules that need `eos` or `prompt_length` without it; a trie without token ids; a foreign filter.
    InputError
        When called: a model without the tokens of the IDs; filters for another number of prompts.

    Notes
    -----
    Beams that find no item of their own are filled up by `generate` with scores of about -1e9 divided by the
    length; drop them, and set `length_penalty=0.0` wherever lengths differ::

        out = model.generate(**inputs, max_new_tokens=L, num_beams=50, num_return_sequences=50, length_penalty=0.0,
                             logits_processor=[processor], return_dict_in_generate=True, output_scores=True)
        real = out.sequences[out.sequences_scores > -1e8]
        codes = ids.vocabulary.codes_of_token_ids(real[:, prompt_length:].cpu(), trie.base)      # [n, L]
        items = trie.item_ids(trie.rows_of(trie.walk(codes)))

    >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10)
    >>> processor = TrieLogitsProcessor(trie, filter=trie.filter(without=[0]))
    >>> processor(torch.tensor([[7, 13], [7, 10]]), torch.zeros(2, 20)).isfinite().nonzero().tolist()
    [[0, 14], [1, 16]]
    """

    supports_continuous_batching = False  # asked by transformers

    def __init__(
        self,
        trie: Trie | TrieTensors,
        eos: Eos = None,
        *,
        filter: Filters = None,
        prompt_length: int | None = None,
        text: bool = False,
        markers: Markers = None,
        min_items: int | None = None,
        max_items: int | None = None,
        repeats: bool = True,
        copy: bool = False,
    ) -> None:
        trie = _tensors(trie)
        rules = Rules(text, _marker_ids(markers, trie), min_items, max_items, repeats)
        self._bound = _Bound(trie, rules, eos, filter, prompt_length)
        self.copy = copy

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores [R, V] with -inf wherever no item goes on, given token ids [R, T]."""
        constraint, filters = self._bound.on(scores.device)
        scores = scores.clone() if self.copy else scores
        return constraint.mask_(scores, input_ids, prompt_lengths=self._bound.prompt_length, filters=filters)


def prefix_allowed_tokens_fn(
    trie: Trie | TrieTensors,
    eos: Eos = None,
    *,
    filter: Filters = None,
    prompt_length: int | None = None,
    vocab_size: int | None = None,
    text: bool = False,
    markers: Markers = None,
    min_items: int | None = None,
    max_items: int | None = None,
    repeats: bool = True,
) -> Callable[[int, torch.Tensor], list[int]]:
    """The same as a function (prompt's number, token ids [T]) -> allowed token ids, for code that takes only that.

    Wherever a logits processor can be given, give `TrieLogitsProcessor`: a call per row and a list per call are
    slow, with free text (lists as long as the vocabulary) very slow.

    Parameters
    ----------
    filter
        As there, except that filters for each prompt are refused under sampling with several sequences a prompt:
        `generate` then numbers the rows, not the prompts, and would apply the wrong ones.
    vocab_size
        Rows of the model's output head, `model.config.vocab_size`; needed with `text`.
    trie, eos, prompt_length, text, markers, min_items, max_items, repeats
        As in `TrieLogitsProcessor`.

    >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10)
    >>> allowed = prefix_allowed_tokens_fn(trie)
    >>> allowed(0, torch.tensor([7])), allowed(0, torch.tensor([7, 10]))
    ([10, 13], [15, 16])
    """
    trie = _tensors(trie)
    rules = Rules(text, _marker_ids(markers, trie), min_items, max_items, repeats)
    if rules.text and vocab_size is None:
        raise ConfigError("text=True needs vocab_size, since text may be any token. Give model.config.vocab_size.")
    bound = _Bound(trie, rules, eos, filter, prompt_length)
    n_prompts = bound.n_filters

    def allowed(batch_id: int, input_ids: torch.Tensor) -> list[int]:
        if n_prompts > 1 and batch_id >= n_prompts:
            raise InputError(
                f"filter: asked for prompt {batch_id}, there are filters for {n_prompts}. Under sampling with several "
                "sequences a prompt, generate numbers the rows instead of the prompts: use TrieLogitsProcessor."
            )
        constraint, filters = bound.on(input_ids.device)
        request = torch.tensor([batch_id if n_prompts > 1 else 0], device=input_ids.device)
        rows = constraint.allowed(
            input_ids.unsqueeze(0),
            vocab_size=vocab_size,
            prompt_lengths=bound.prompt_length,
            filters=filters,
            requests=request,
        )
        return rows[0]

    return allowed


class _Bound:
    """The choices of a caller, checked at once, and their tensors on each device that asks."""

    def __init__(self, trie: TrieTensors, rules: Rules, eos: Eos, filter: Filters, prompt_length: int | None) -> None:
        if rules.counts and prompt_length is None:
            raise ConfigError(
                "min_items, max_items and repeats=False look at what was generated, and a row does not show where the "
                'prompt ends. Give prompt_length=inputs["input_ids"].shape[1], or 1 for an encoder-decoder model.'
            )
        self.prompt_length = prompt_length
        self.n_filters = 1 if filter is None or isinstance(filter, Filter) else len(filter)
        self._rules, self._eos_ids, self._filter = rules, _eos_ids(eos), filter
        self._trie = trie.trie
        self._devices = {trie.device: self._bind(trie)}

    def on(self, device: torch.device) -> tuple[Constraint, FilterTensors | None]:
        """The constraint and the filters on a device."""
        if device not in self._devices:
            self._devices[device] = self._bind(TrieTensors(self._trie, device))
        return self._devices[device]

    def _bind(self, trie: TrieTensors) -> tuple[Constraint, FilterTensors | None]:
        constraint = Constraint(trie, self._rules, eos_ids=self._eos_ids)
        return constraint, None if self._filter is None else FilterTensors(self._filter, trie, self.n_filters)


def _tensors(trie: Trie | TrieTensors) -> TrieTensors:
    return trie if isinstance(trie, TrieTensors) else TrieTensors(trie)


def _marker_ids(markers: Markers, trie: TrieTensors) -> tuple[int, int] | None:
    return marker_ids(markers, trie.base) if isinstance(markers, Vocabulary) else markers


def _eos_ids(eos: Eos) -> tuple[int, ...]:
    """Token ids of whatever tells them."""
    if eos is None:
        return ()
    if not isinstance(eos, int | Sequence):
        known = eos.eos_token_id
        if known is None:
            raise ConfigError(f"eos: this {type(eos).__name__} has no eos_token_id. Give the token ids.")
        eos = known
    return (eos,) if isinstance(eos, int) else tuple(eos)
