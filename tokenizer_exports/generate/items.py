"""generate_items: the best items of a catalog under a language model, by beam search over the trie.

An item is L tokens, and the trie says which codes may follow which. So the search is L selections with L - 1 short
forwards between them, needs the head's rows of one level at a time, and can only end in items. The prompt is read
once. How the beams run through the model is the business of `tree_decoder.py` and, where that does not fit,
`repeat_decoder.py`; `choose_decoder.py` decides which.

Not here: sampling, items inside free text (`logits_processor.py`). B prompts, M beams, n items returned, L levels, K
codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.beam_search import Score, Search
from semid.tokenizer_exports.generate.choose_decoder import Method, choose_way
from semid.tokenizer_exports.generate.lm_head import Encoded
from semid.tokenizer_exports.generate.prompts import Inputs, Prompts, read_prompts
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.trie.filters import Filter
from semid.trie.trie import Trie

if TYPE_CHECKING:
    from transformers.generation import GenerationConfig

__all__ = ["Generated", "generate_items", "items_custom_generate"]

Filters = Filter | Sequence[Filter | None]
USUAL_BEAMS = 50

_tensors: WeakKeyDictionary[Trie, dict[torch.device, TrieTensors]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Generated:
    """Items for B prompts, best first; tensors on the CPU, padded with -1 where a filter left fewer than n."""

    item_ids: list[list[str]] | None  # B lists of up to n; None if the trie has no table of items
    rows: torch.Tensor  # (B, n) int64 - rows of the table of items; -1 for none
    scores: torch.Tensor  # (B, n) float32 - log-probabilities as `score` defines them; -inf for none
    codes: torch.Tensor  # (B, n, L) int64
    token_ids: torch.Tensor  # (B, n, L) int64 - whole IDs, also where the prompt began them
    method: str  # "tree", or "repeat" where the model cannot run beams as a tree

    def __len__(self) -> int:
        """B."""
        return len(self.rows)


@torch.no_grad()
def generate_items(
    model: PreTrainedModel,
    inputs: Inputs,
    trie: Trie,
    *,
    num_beams: int | None = None,
    num_return: int = 10,
    filter: Filters | None = None,
    score: Score = "level",
    method: Method = "auto",
) -> Generated:
    """The `num_return` best items for each prompt.

    Parameters
    ----------
    model
        A causal or encoder-decoder language model of transformers that has the tokens of the IDs. It is run in
        evaluation mode, and left in the mode in which it was.
    inputs
        What a tokenizer returned (`input_ids`, `attention_mask`; padded on either side), or token ids int [B, P],
        of which then every one counts.
    trie
        `Trie.from_tokenizer(ids, tokenizer)`.
    num_beams
        M, prefixes kept at each level; the larger of 50 and `num_return` by default. With M at least the number
        of items the result is exact.
    filter
        A `trie.filter(...)` for all prompts, or one (or None) for each. A prompt whose filter admits fewer than
        `num_return` items gets those.
    score
        What a token's logit is normalized by: "level", the codes of its level; "vocab", the whole vocabulary, so
        that the score is the log-probability of the item's tokens under the model and equals that of
        `model.generate`. The second needs the whole head at every step. Both sum over the levels; equal scores are
        ordered by codes.
    method
        "tree" runs all beams of a prompt in one sequence over one cache, "repeat" copies the cache for each beam.
        "auto" takes the first if the model allows it. `Generated.method` says which it was.

    A prompt that ends inside an ID is continued: the result has the items that begin so, and the scores are those
    of the tokens that were missing. All prompts of a call must then lack the same number of tokens.

    Raises
    ------
    ConfigError
        More items wanted than the trie has, fewer beams than items wanted, a filter of another trie, a model
        without the tokens, or one that cannot be run or gives logits that are no numbers.
    InputError
        No prompts, an empty prompt, token ids that the model does not have, prompts that end at different levels.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    ...                      num_attention_heads=2)
    >>> trie = Trie.from_codes([[0, 1], [0, 2], [3, 0]], sizes=(4, 4), base=30)
    >>> found = generate_items(LlamaForCausalLM(config), torch.tensor([[5, 6, 7]]), trie, num_return=3)
    >>> sorted(found.rows[0].tolist()), found.method
    ([0, 1, 2], 'tree')
    """
    model = _bare(model)
    num_beams = _check_choices(model, trie, num_beams, num_return, score, method)
    with _evaluating(model):
        prompts = read_prompts(model, inputs)
        return _generate(model, prompts, trie, num_beams, num_return, filter, score, method)


@torch.no_grad()
def items_custom_generate(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    *,
    generation_config: GenerationConfig,
    trie: Trie | None = None,
    item_beams: int | None = None,
    item_count: int = 10,
    item_filter: Filters | None = None,
    item_score: Score = "level",
    **model_kwargs: object,
) -> torch.Tensor | Generated:
    """`generate_items` as `model.generate(**inputs, custom_generate=items_custom_generate, trie=trie)`.

    Its own options have names of their own, because `generate` keeps `num_beams` for itself and would copy every
    prompt so many times before this function sees it: leave that and `num_return_sequences` at 1. Logits processors
    and stopping criteria have no effect.

    Returns
    -------
    int64 [B·item_count, T + L], as `generate` with so many return sequences would: each prompt followed by an
    item, best first. Where a filter left fewer items, the padding token stands instead. With
    `return_dict_in_generate=True` the `Generated`.

    Raises
    ------
    ConfigError, InputError
        As `generate_items`; also if `num_beams` or `num_return_sequences` is not 1, or `trie` is missing.
    """
    if trie is None:
        raise ConfigError(
            "trie: is missing. Call model.generate(..., custom_generate=items_custom_generate, trie=trie)."
        )
    for name in ("num_beams", "num_return_sequences"):
        if (getattr(generation_config, name) or 1) != 1:
            raise ConfigError(
                f"{name}={getattr(generation_config, name)} should be 1: generate would copy the prompts. "
                "Set item_beams and item_count instead."
            )
    model = _bare(model)
    beams = _check_choices(model, trie, item_beams, item_count, item_score, "auto")
    # Not parameters by name: generate would keep those that it is given from its own preparation, and pass both.
    mask, encoder_outputs = model_kwargs.get("attention_mask"), model_kwargs.get("encoder_outputs")
    with _evaluating(model):
        if encoder_outputs is None:  # the mask is None, too, where it would be all ones
            prompts = read_prompts(model, {"input_ids": input_ids, "attention_mask": mask})
        else:
            states = encoder_outputs[0]
            mask = states.new_ones(states.shape[:2]).long() if mask is None else mask.long()
            prompts = Prompts(input_ids, torch.ones_like(input_ids), Encoded(states, mask))
        found = _generate(model, prompts, trie, beams, item_count, item_filter, item_score, "auto")
    if generation_config.return_dict_in_generate:
        return found
    filler = next((t for t in (generation_config.pad_token_id, model.config.get_text_config().pad_token_id) if t), 0)
    items = found.token_ids.masked_fill(found.token_ids < 0, filler).flatten(0, 1)
    return torch.cat([input_ids.repeat_interleave(item_count, dim=0), items.to(input_ids)], dim=1)


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """The model of transformers inside torch.compile's or PEFT's wrapper; adapters stay where they are, in it."""
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "get_base_model"):
        if model.active_peft_config.is_prompt_learning:
            raise ConfigError("model: its adapter is a learned prompt, which lies outside the model. Use LoRA, say.")
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise ConfigError(
            f"model: a {type(model).__name__} should be a model of transformers with a language modelling head. "
            "Load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM."
        )
    return model


def _check_choices(
    model: PreTrainedModel, trie: Trie, num_beams: int | None, num_return: int, score: str, method: str
) -> int:
    """The number of beams, once everything has been found possible."""
    for name, value, choices in (("score", score, get_args(Score)), ("method", method, get_args(Method))):
        if value not in choices:
            raise ConfigError(f"{name}={value!r} should be one of {', '.join(map(repr, choices))}.")
    if not 1 <= num_return <= len(trie):
        raise ConfigError(f"num_return={num_return} should be 1..{len(trie)}, the items of the trie.")
    if num_beams is not None and num_beams < num_return:
        raise ConfigError(f"num_beams={num_beams} should be >= num_return={num_return}. Leave it out, or raise it.")
    base = trie_tensors(trie, model.device).base
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = min(part.weight.shape[0] for part in embeddings if part is not None and hasattr(part, "weight"))
    if base + trie.offsets[-1] > rows:
        raise ConfigError(
            f"the IDs' tokens are {base}..{base + trie.offsets[-1] - 1}, the model has {rows} rows: it was not "
            "extended with these tokens. Do it with: semid extend BASE DIR -o OUT"
        )
    return max(USUAL_BEAMS, num_return) if num_beams is None else num_beams


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout; afterwards the parts that were training are so again, and no others."""
    training = [part for part in model.modules() if part.training] if model.training else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def trie_tensors(trie: Trie, device: torch.device) -> TrieTensors:
    """The trie on a device, copied there once."""
    on_devices = _tensors.setdefault(trie, {})
    if device not in on_devices:
        on_devices[device] = TrieTensors(trie, device)
    return on_devices[device]


def _filter_tensors(filters: Filters | None, trie: TrieTensors, n_prompts: int) -> FilterTensors | None:
    if filters is None:
        return None
    each = [filters] if isinstance(filters, Filter) else list(filters)
    wrong = next((one for one in each if one is not None and not isinstance(one, Filter)), None)
    if wrong is not None:
        raise ConfigError(f"filter: a {type(wrong).__name__} should be made with trie.filter(only=..., without=...).")
    if all(one is None for one in each) and len(each) == n_prompts:
        return None
    return FilterTensors(filters, trie, n_prompts)


def _generate(
    model: PreTrainedModel,
    prompts: Prompts,
    trie: Trie,
    num_beams: int,
    num_return: int,
    filters: Filters | None,
    score: Score,
    method: Method,
) -> Generated:
    tensors = trie_tensors(trie, prompts.input_ids.device)
    restriction = _filter_tensors(filters, tensors, len(prompts))
    begun = tensors.nodes_at_end(prompts.input_ids) if prompts.encoded is None else None
    begun = prompts.input_ids.new_zeros(len(prompts)) if begun is None else begun
    depth = _depth(trie, begun)
    way = choose_way(model, method)
    search = Search(*way.begin(model, prompts), tensors, restriction, score)
    nodes, scores = search.run(begun, depth, num_beams)
    scores, order = scores.sort(dim=1, descending=True, stable=True)  # beams stand in the order of their codes
    return _gathered(trie, nodes.gather(1, order), scores, num_return, way.method)


def _depth(trie: Trie, begun: torch.Tensor) -> int:
    """How many tokens of an ID the prompts have begun with."""
    starts = torch.tensor(trie.level_starts, device=begun.device)
    depths = (torch.bucketize(begun, starts, right=True) - 1).tolist()
    for prompt, depth in enumerate(depths):
        if depth != depths[0]:
            raise InputError(
                f"prompt 0 ends after {depths[0]} tokens of an unfinished ID, prompt {prompt} after {depth}. "
                "Generate for them in separate calls."
            )
    return depths[0]


def _gathered(trie: Trie, nodes: torch.Tensor, scores: torch.Tensor, num_return: int, method: str) -> Generated:
    """The first `num_return` beams [B, M] that are alive, as items."""
    nodes, scores = nodes[:, :num_return].cpu(), scores[:, :num_return].cpu()
    missing = (0, num_return - nodes.shape[1])
    nodes = torch.nn.functional.pad(nodes, missing, value=-1)
    scores = torch.nn.functional.pad(scores, missing, value=-torch.inf)
    alive = scores > -torch.inf
    ranks = (nodes - trie.level_starts[-2]).clamp(min=0)
    codes = torch.from_numpy(trie.codes_of(ranks.flatten().numpy())).view(*ranks.shape, trie.n_levels)
    rows = torch.from_numpy(trie.rows_of(nodes.flatten().numpy())).view(ranks.shape).masked_fill(~alive, -1)
    token_ids = codes + (trie.base + torch.tensor(trie.offsets[:-1]))
    dead = ~alive.unsqueeze(-1)
    item_ids = None
    if trie.ledger is not None:
        item_ids = [trie.item_ids(row[row >= 0].tolist()) for row in rows]
    return Generated(item_ids, rows, scores, codes.masked_fill(dead, -1), token_ids.masked_fill(dead, -1), method)
