"""Constrain `generate` of transformers to the items of a catalog: a logits processor, and a prefix function.

Both are stateless: the allowed tokens follow from the token ids of a row, so rows may be reordered or repeated. They
make generation exact, not fast: `generate` still runs the prompt for every beam, the whole head, and passes over the
vocabulary, which `generate_items` avoids.

`token_masker.py` does the masking; this file fits it to `generate`. B prompts, R rows, n beams or sequences per prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from transformers import LogitsProcessor

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.constraint import Constraints, marker_ids
from semid.tokenizer_exports.generate.token_masker import TokenMasker
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.tokens.vocabulary import Vocabulary
from semid.trie import Filter, Trie

__all__ = ["TrieLogitsProcessor", "prefix_allowed_tokens_fn"]


class KnowsEos(Protocol):
    """What names its end-of-sequence tokens: a tokenizer, `model.generation_config`, `model.config`."""

    eos_token_id: int | list[int] | None


Eos = KnowsEos | int | Sequence[int] | None
Filters = Filter | Sequence[Filter | None] | None
Markers = Vocabulary | tuple[int, int] | None


class TrieLogitsProcessor(LogitsProcessor):
    """Constrain `generate(..., logits_processor=[TrieLogitsProcessor(trie, tokenizer)])`: greedy, beams or sampling.

    By default items follow each other without end, so `max_new_tokens=L` gives one item. An item that the prompt has
    begun is completed; whole items in the prompt have no effect. Not for continuous batching (`generate_batch`), which
    shows processors no history.

    Parameters
    ----------
    trie
        `Trie.from_tokenizer(ids, tokenizer)`, or its `TrieTensors`.
    eos
        What ends a sequence: the tokenizer, `model.generation_config`, or token ids. Default: none, which only the
        default constraints allow.
    filter
        Items to admit (`trie.filter`): one filter for all rows, or one (or None) for each prompt of the batch, in
        order. The processor sees rows, not prompts, and assumes n = R / B, so give as many filters as prompts. Default:
        the whole catalog.
    prompt_length
        The column where generation begins: `inputs["input_ids"].shape[1]`, padding included; 1 for an encoder-decoder
        model (its start token); 0 if the prompt was given as embeddings. `min_items`, `max_items` and `repeats=False`
        require it, because neither `generate` nor a row shows it.
    text, markers, min_items, max_items, repeats
        See `Constraints`. `markers` may be `ids.vocabulary`.
    copy
        Write into a new tensor. Default: False, in place. In greedy search and sampling, `generate(output_logits=True)`
        returns the tensor that it passes to processors, so its logits would show -inf. Costs a pass over [R, V].

    Raises
    ------
    ConfigError
        The constraints need `eos` or `prompt_length`, the trie has no token ids, or a filter was made from another
        trie.
    InputError
        When called: the model lacks the tokens of the IDs, or the number of filters is not that of the prompts.

    Notes
    -----
    If there are fewer items than beams, `generate` fills up with beams whose scores are about -1e9 divided by the
    length. Drop them, and set `length_penalty=0.0` wherever lengths differ::

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

    supports_continuous_batching = False  # read by transformers

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
        constraints = Constraints(text, _marker_ids(markers, trie), min_items, max_items, repeats)
        self._bound = _Bound(trie, constraints, eos, filter, prompt_length)
        self.copy = copy

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores [R, V] with -inf for every token that must not follow, given token ids [R, T]."""
        masker, filters = self._bound.on(scores.device)
        masked = cast(torch.FloatTensor, scores.clone()) if self.copy else scores
        masker.mask_(masked, input_ids, prompt_lengths=self._bound.prompt_length, filters=filters)
        return masked


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
    """Return a function (number of the prompt, token ids [T]) -> allowed token ids, for code that takes only that.

    Prefer `TrieLogitsProcessor` wherever a logits processor can be given: one call per row and one list per call are
    slow, and very slow with free text, where lists are as long as the vocabulary.

    Parameters
    ----------
    vocab_size
        Rows of the model's output head, `model.config.vocab_size`. Required with `text`.
    filter
        As in `TrieLogitsProcessor`. One filter per prompt is refused under sampling with several sequences per prompt:
        `generate` then numbers the rows, not the prompts, and would apply the wrong filters.
    trie, eos, prompt_length, text, markers, min_items, max_items, repeats
        As in `TrieLogitsProcessor`.

    Raises
    ------
    ConfigError
        As `TrieLogitsProcessor`; also if `text` is set and `vocab_size` is missing.
    InputError
        When called: as `TrieLogitsProcessor`, or the filters do not fit the numbers of the rows.

    >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=10)
    >>> allowed = prefix_allowed_tokens_fn(trie)
    >>> allowed(0, torch.tensor([7])), allowed(0, torch.tensor([7, 10]))
    ([10, 13], [15, 16])
    """
    trie = _tensors(trie)
    constraints = Constraints(text, _marker_ids(markers, trie), min_items, max_items, repeats)
    if constraints.text and vocab_size is None:
        raise ConfigError("text=True requires vocab_size, since text may be any token. Give model.config.vocab_size.")
    bound = _Bound(trie, constraints, eos, filter, prompt_length)
    n_prompts = bound.n_filters

    def allowed(batch_id: int, input_ids: torch.Tensor) -> list[int]:
        if n_prompts > 1 and batch_id >= n_prompts:
            raise InputError(
                f"filter: asked for prompt {batch_id}, there are filters for {n_prompts}. Under sampling with several "
                "sequences per prompt, generate numbers the rows instead of the prompts: use TrieLogitsProcessor."
            )
        masker, filters = bound.on(input_ids.device)
        request = torch.tensor([batch_id if n_prompts > 1 else 0], device=input_ids.device)
        rows = masker.allowed(
            input_ids.unsqueeze(0),
            vocab_size=vocab_size,
            prompt_lengths=bound.prompt_length,
            filters=filters,
            requests=request,
        )
        return rows[0]

    return allowed


class _Bound:
    """The checked arguments of a caller, and their tensors on each device that is used."""

    def __init__(
        self, trie: TrieTensors, constraints: Constraints, eos: Eos, filter: Filters, prompt_length: int | None
    ) -> None:
        if constraints.counts and prompt_length is None:
            raise ConfigError(
                "min_items, max_items and repeats=False look at what was generated, and a row does not show where the "
                'prompt ends. Give prompt_length=inputs["input_ids"].shape[1], or 1 for an encoder-decoder model.'
            )
        self.prompt_length = prompt_length
        self.n_filters = 1 if filter is None or isinstance(filter, Filter) else len(filter)
        self._constraints, self._eos_ids, self._filter = constraints, _eos_ids(eos), filter
        self._trie = trie.trie
        self._devices = {trie.device: self._bind(trie)}

    def on(self, device: torch.device) -> tuple[TokenMasker, FilterTensors | None]:
        """Return the masker and the filters on a device."""
        if device not in self._devices:
            self._devices[device] = self._bind(TrieTensors.on(self._trie, device))
        return self._devices[device]

    def _bind(self, trie: TrieTensors) -> tuple[TokenMasker, FilterTensors | None]:
        masker = TokenMasker(trie, self._constraints, eos_ids=self._eos_ids)
        return masker, None if self._filter is None else FilterTensors(self._filter, trie, self.n_filters)


def _tensors(trie: Trie | TrieTensors) -> TrieTensors:
    return trie if isinstance(trie, TrieTensors) else TrieTensors.on(trie, "cpu")


def _marker_ids(markers: Markers, trie: TrieTensors) -> tuple[int, int] | None:
    return marker_ids(markers, trie.base) if isinstance(markers, Vocabulary) else markers


def _eos_ids(eos: Eos) -> tuple[int, ...]:
    """Return the end-of-sequence token ids."""
    if eos is None:
        return ()
    if not isinstance(eos, int | Sequence):
        known = eos.eos_token_id
        if known is None:
            raise ConfigError(f"eos: this {type(eos).__name__} has no eos_token_id. Give the token ids.")
        eos = known
    return (eos,) if isinstance(eos, int) else tuple(eos)
