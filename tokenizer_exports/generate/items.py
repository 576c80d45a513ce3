"""generate_items: the best items of a catalog under a language model, by beam search over the trie.

An item is L tokens, and the trie says which codes may follow which. So the search is L selections with L - 1 short
forwards between them; it needs the head's rows of one level at a time, and it can only end in items. The prompt is read
once. `tree_decoder.py` runs the beams through the model or, where that does not fit, `repeat_decoder.py`;
`choose_decoder.py` decides which.

Not here: sampling, items inside free text (`logits_processor.py`). B prompts, M beams, n items returned, L levels, K
codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

import torch
from transformers import PreTrainedModel

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.beam_search import Score, Search
from semid.tokenizer_exports.generate.choose_decoder import Method, choose_decoder
from semid.tokenizer_exports.generate.lm_head import EncodedPrompts
from semid.tokenizer_exports.generate.prompts import Inputs, Prompts, read_prompts
from semid.tokenizer_exports.generate.transformers_versions import embedding_rows
from semid.tokenizer_exports.generate.trie_tensors import FilterTensors, TrieTensors
from semid.trie import Filter, Trie

if TYPE_CHECKING:
    from transformers.generation import GenerationConfig

__all__ = ["Generated", "generate_items", "items_custom_generate"]

Filters = Filter | Sequence[Filter | None]
USUAL_BEAMS = 50  # beam width by default


@dataclass(frozen=True)
class Generated:
    """Items for B prompts, best first. Tensors are on the CPU, padded with -1 where a filter left fewer than n."""

    item_ids: list[list[str]] | None  # B lists of up to n; None if the trie was made from codes
    rows: torch.Tensor  # (B, n) int64 - rows of the table of items; -1 for none
    scores: torch.Tensor  # (B, n) float32 - log-probabilities as `score` defines them; -inf for none
    codes: torch.Tensor  # (B, n, L) int64
    token_ids: torch.Tensor  # (B, n, L) int64 - whole IDs, including tokens that the prompt ended with
    method: str  # the decoder used: "tree" or "repeat"

    def __len__(self) -> int:
        """Return B."""
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
    """Return the `num_return` best items for each prompt.

    A prompt that ends inside an ID is continued: the result holds the items that begin with it, and the scores are
    those of the missing tokens. All prompts of a call must then lack the same number of tokens.

    Parameters
    ----------
    model
        A causal or encoder-decoder language model of transformers that has the tokens of the IDs. It is run in
        evaluation mode and then restored to the mode it was in.
    inputs
        What a tokenizer returned (`input_ids`, `attention_mask`; padded on either side), or token ids, integers [B, P],
        without padding.
    trie
        `Trie.from_tokenizer(ids, tokenizer)`.
    num_beams
        Beam width M, the prefixes kept at each level. Default: 50, or `num_return` if that is larger. The result is
        exact if M is at least the number of items.
    num_return
        Items per prompt, n. Default: 10.
    filter
        A `trie.filter(...)` for all prompts, or one (or None) for each. Default: the whole catalog. A prompt whose
        filter admits fewer than `num_return` items gets only those.
    score
        Over what each token's logit is normalized. "level" (default): the codes of its level. "vocab": the whole
        vocabulary, so the score is the log-probability of the item's tokens under the model, as in `model.generate`;
        this needs the whole head at every step. Scores are sums over the levels; ties are ordered by codes.
    method
        "tree" runs all beams of a prompt as one sequence over one cache; "repeat" copies the cache for each beam.
        "auto" (default) takes "tree" if the model allows it. `Generated.method` says which was used.

    Raises
    ------
    ConfigError
        `num_return` exceeds the items of the trie or `num_beams`; a filter was made from another trie; the model lacks
        the tokens, cannot be run, or gives logits that are not finite.
    InputError
        There are no prompts, one is empty, token ids are out of range, or prompts end at different levels.

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
    """Run `generate_items` as `model.generate(**inputs, custom_generate=items_custom_generate, trie=trie)`.

    Leave `num_beams` and `num_return_sequences` at 1: `generate` would copy every prompt that often before this
    function sees it. So the options here have other names. Logits processors and stopping criteria have no effect.

    Parameters
    ----------
    model, input_ids, generation_config, model_kwargs
        As `generate` passes them.
    trie, item_beams, item_count, item_filter, item_score
        `trie`, `num_beams`, `num_return`, `filter` and `score` of `generate_items`.

    Returns
    -------
    Tensor or Generated
        int64 [B·item_count, T + L]: each prompt followed by an item, best first, as `generate` with that many return
        sequences; padding tokens where a filter left fewer items. A `Generated` if `return_dict_in_generate=True`.

    Raises
    ------
    ConfigError, InputError
        As `generate_items`; also if `num_beams` or `num_return_sequences` is not 1, or `trie` is missing.
    """
    if trie is None:
        raise ConfigError(
            "trie is missing. Call model.generate(..., custom_generate=items_custom_generate, trie=trie)."
        )
    for name in ("num_beams", "num_return_sequences"):
        if (getattr(generation_config, name) or 1) != 1:
            raise ConfigError(
                f"{name}={getattr(generation_config, name)} should be 1: generate would copy the prompts. "
                "Set item_beams and item_count instead."
            )
    model = _bare(model)
    beams = _check_choices(model, trie, item_beams, item_count, item_score, "auto")
    # Not named parameters: generate would then pass both the user's and its own.
    mask, encoder_outputs = model_kwargs.get("attention_mask"), model_kwargs.get("encoder_outputs")
    with _evaluating(model):
        if encoder_outputs is None:  # mask is None, too, where it would be all ones
            prompts = read_prompts(model, {"input_ids": input_ids, "attention_mask": mask})
        else:
            states = cast(Sequence[torch.Tensor], encoder_outputs)[0]
            seen = states.new_ones(states.shape[:2]) if mask is None else cast(torch.Tensor, mask)
            prompts = Prompts(input_ids, torch.ones_like(input_ids), EncodedPrompts(states, seen.long()))
        found = _generate(model, prompts, trie, beams, item_count, item_filter, item_score, "auto")
    if generation_config.return_dict_in_generate:
        return found
    filler = next((t for t in (generation_config.pad_token_id, model.config.get_text_config().pad_token_id) if t), 0)
    items = found.token_ids.masked_fill(found.token_ids < 0, filler).flatten(0, 1)
    return torch.cat([input_ids.repeat_interleave(item_count, dim=0), items.to(input_ids)], dim=1)


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """Return the transformers model inside a wrapper of torch.compile or PEFT; its adapters stay in place."""
    model = getattr(model, "_orig_mod", model)
    base_model = getattr(model, "get_base_model", None)
    if callable(base_model):
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise ConfigError("model: its adapter is a learned prompt, which is not part of the model. Use LoRA.")
        model = base_model()
    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        raise ConfigError(
            f"model: {type(model).__name__} should be a transformers model with a language modeling head. "
            "Load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM."
        )
    return model


def _check_choices(
    model: PreTrainedModel, trie: Trie, num_beams: int | None, num_return: int, score: str, method: str
) -> int:
    """Check the arguments and return the number of beams."""
    for name, value, choices in (("score", score, get_args(Score)), ("method", method, get_args(Method))):
        if value not in choices:
            raise ConfigError(f"{name}={value!r} should be one of {', '.join(map(repr, choices))}.")
    if not 1 <= num_return <= len(trie):
        raise ConfigError(f"num_return={num_return} should be 1..{len(trie)}, the number of items in the trie.")
    if num_beams is not None and num_beams < num_return:
        raise ConfigError(f"num_beams={num_beams} should be >= num_return={num_return}. Leave it out, or raise it.")
    base = TrieTensors.on(trie, model.device).base
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = min(embedding_rows(part) for part in embeddings if part is not None and hasattr(part, "weight"))
    if base + trie.offsets[-1] > rows:
        raise ConfigError(
            f"the IDs' tokens are {base}..{base + trie.offsets[-1] - 1}, the model has {rows} rows: it was not "
            "extended with these tokens. Extend it with: semid extend BASE DIR -o OUT"
        )
    return max(USUAL_BEAMS, num_return) if num_beams is None else num_beams


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and afterwards on again in exactly the modules that were in training mode."""
    training = [part for part in model.modules() if part.training] if model.training else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _filter_tensors(filters: Filters | None, trie: TrieTensors, n_prompts: int) -> FilterTensors | None:
    if filters is None:
        return None
    each = [filters] if isinstance(filters, Filter) else list(filters)
    wrong = next((one for one in each if one is not None and not isinstance(one, Filter)), None)
    if wrong is not None:
        raise ConfigError(
            f"filter: got a {type(wrong).__name__}. Make filters with trie.filter(only=..., without=...)."
        )
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
    tensors = TrieTensors.on(trie, prompts.input_ids.device)
    restriction = _filter_tensors(filters, tensors, len(prompts))
    begun = tensors.nodes_at_end(prompts.input_ids) if prompts.encoded is None else None
    begun = prompts.input_ids.new_zeros(len(prompts)) if begun is None else begun
    depth = _depth(trie, begun)
    choice = choose_decoder(model, method)
    search = Search(*choice.begin(model, prompts), tensors, restriction, score)
    nodes, scores = search.run(begun, depth, num_beams)
    scores, order = scores.sort(dim=1, descending=True, stable=True)  # beams are in the order of their codes
    return _gathered(tensors, nodes.gather(1, order), scores, num_return, choice.method)


def _depth(trie: Trie, begun: torch.Tensor) -> int:
    """Return how many tokens of an ID the prompts end with; InputError unless it is the same number for all."""
    starts = torch.tensor(trie.level_starts, device=begun.device)
    depths = (torch.bucketize(begun, starts, right=True) - 1).tolist()
    for prompt, depth in enumerate(depths):
        if depth != depths[0]:
            raise InputError(
                f"prompt 0 ends after {depths[0]} tokens of an unfinished ID, prompt {prompt} after {depth}. "
                "Generate for them in separate calls."
            )
    return depths[0]


def _gathered(
    tensors: TrieTensors, nodes: torch.Tensor, scores: torch.Tensor, num_return: int, method: str
) -> Generated:
    """Return the first `num_return` live beams of [B, M] as items."""
    trie = tensors.trie
    nodes, scores = nodes[:, :num_return].cpu(), scores[:, :num_return].cpu()
    missing = (0, num_return - nodes.shape[1])
    nodes = torch.nn.functional.pad(nodes, missing, value=-1)
    scores = torch.nn.functional.pad(scores, missing, value=-torch.inf)
    alive = scores > -torch.inf
    ranks = (nodes - trie.level_starts[-2]).clamp(min=0)
    codes = torch.from_numpy(trie.codes_of(ranks.flatten().numpy())).view(*ranks.shape, trie.n_levels)
    rows = torch.from_numpy(trie.rows_of(nodes.flatten().numpy())).view(ranks.shape).masked_fill(~alive, -1)
    token_ids = codes + (tensors.base + torch.tensor(trie.offsets[:-1]))
    dead = ~alive.unsqueeze(-1)
    item_ids = None
    if trie.ledger is not None:
        item_ids = [[trie.ledger.item_ids[row] for row in live.tolist()] for live in (row[row >= 0] for row in rows)]
    return Generated(item_ids, rows, scores, codes.masked_fill(dead, -1), token_ids.masked_fill(dead, -1), method)
