"""Choose the fastest decoder and head that reproduce a model's own logits, by trying them once per model.

Only a model's own forward knows what it does with positions, masks, caches and logits. So before a decoder is used, it
continues two short prompts by a few beams, and its logits are compared with those of the model's own forward on the
same sequences, one at a time and without a cache. The first combination that agrees is used:

1. `tree` with the sliced head: one copy of the cache, K rows of the head;
2. `tree` with the full head: if the head is not a linear map with a known transformation after it;
3. `repeat` with the sliced or the full head: if tree attention is impossible.

The config decides what short prompts cannot show, such as a window longer than they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from semid.errors import ConfigError
from semid.tokenizer_exports.generate.lm_head import EncodedPrompts, FullHead, SlicedHead
from semid.tokenizer_exports.generate.prompts import Prompts, start_prompts
from semid.tokenizer_exports.generate.repeat_decoder import RepeatDecoder
from semid.tokenizer_exports.generate.transformers_versions import (
    argument_names,
    attention_kind,
    embedding_rows,
    is_stateful,
    takes_cache,
    takes_positions,
)
from semid.tokenizer_exports.generate.tree_decoder import TreeDecoder, relative_bias, windows

__all__ = ["DecoderChoice", "Method", "choose_decoder"]

logger = logging.getLogger("semid")

Method = Literal["auto", "tree", "repeat"]
# Root mean square of the difference, divided by the spread of the logits. Measured on random models of 2 to 6 layers:
# correct decoders up to 3e-6 in float32 and 0.004 in bfloat16; beams that see each other 0.1 and more. The tolerance
# for float32 leaves room for TF32.
TOLERANCES = {torch.float32: 0.005, torch.float64: 1e-6}
COARSE = 0.05  # for every other dtype
# What a model's forward may raise on arguments that it was not written for.
FORWARD_ERRORS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
LOW_IDS = 24  # the trial's tokens are among the first so many

Head = SlicedHead | FullHead
Decoder = TreeDecoder | RepeatDecoder

# Kept here and not on the model: the model is the user's, and a copy of it would take a choice along that was not tried
# on the copy. An entry goes when its model goes; a choice holds no reference to the model.
_choices: WeakKeyDictionary[PreTrainedModel, dict[tuple[object, ...], DecoderChoice]] = WeakKeyDictionary()


@dataclass(frozen=True)
class DecoderChoice:
    """A decoder and a head that were found to reproduce the model's own logits."""

    decoder: type[TreeDecoder] | type[RepeatDecoder]
    head: type[SlicedHead] | type[FullHead]
    reason: str = ""  # why no faster combination was chosen

    @property
    def method(self) -> str:
        """The decoder's name for the user: "tree" or "repeat"."""
        return self.decoder.name

    def begin(self, model: PreTrainedModel, prompts: Prompts) -> tuple[Decoder, Head]:
        """Return a decoder at the start of these prompts, and the head that reads its states."""
        head = self.head(model)
        return self.decoder(model, head, prompts), head


def choose_decoder(model: PreTrainedModel, method: Method) -> DecoderChoice:
    """Return the fastest decoder and head that reproduce this model's logits; tried once per model.

    Parameters
    ----------
    model
        A language model in evaluation mode.
    method
        "tree", "repeat", or "auto" for the first of them that fits.

    Raises
    ------
    ConfigError
        None reproduces the logits, or the requested method does not.
    """
    head = type(model.get_output_embeddings())  # PEFT replaces it
    key = (method, model.dtype, attention_kind(model), embedding_rows(model.get_input_embeddings()), head)
    known = _choices.setdefault(model, {})
    if key not in known:
        with torch.autocast(model.device.type, enabled=False):  # its rounding would look like a difference
            known[key] = _choose(model, method)
        if known[key].reason:
            logger.warning("%s: generate_items runs slower than it could: %s", type(model).__name__, known[key].reason)
    return known[key]


def _choose(model: PreTrainedModel, method: Method) -> DecoderChoice:
    trial = _Trial.of(model)
    reasons: list[str] = []
    for decoder, head in _candidates(method):
        reason = _why_no_tree(model) if decoder is TreeDecoder else ""
        reason = reason or trial.disagreement(decoder, head)
        if not reason:
            return DecoderChoice(decoder, head, "; ".join(reasons))
        if reason not in reasons:
            reasons.append(reason)
    raise ConfigError(
        f"generate_items cannot run {type(model).__name__} (method={method!r}): {'; '.join(reasons)}. "
        "Use model.generate with semid's TrieLogitsProcessor instead."
    )


def _candidates(method: Method) -> Iterator[tuple[type[Decoder], type[Head]]]:
    for decoder in (TreeDecoder, RepeatDecoder):
        if method in ("auto", decoder.name):
            yield from ((decoder, head) for head in (SlicedHead, FullHead))


def _why_no_tree(model: PreTrainedModel) -> str:
    """Return why the config rules out tree attention; "" if it does not."""
    config = model.config.get_text_config(decoder=True)
    if attention_kind(model) not in ("sdpa", "eager"):
        return (
            f"attention {attention_kind(model)!r} takes no mask per beam; load the model with "
            'attn_implementation="sdpa"'
        )
    if is_stateful(model):
        return "its layers keep one running state, which must be copied for each beam"
    if model.config.is_encoder_decoder:
        return "" if relative_bias(model) else "its decoder counts positions itself"
    arguments = argument_names(model)
    if not takes_positions(arguments):
        return "its forward takes no position_ids"
    if not takes_cache(arguments):
        return "its forward takes no cache"
    if windows(config) is None:
        kinds = sorted(set(getattr(config, "layer_types", None) or ["chunked"]))
        return f"it has layers of the kinds {', '.join(kinds)}"
    return ""


@dataclass(frozen=True)
class _Trial:
    """Two prompts of 3 and 5 tokens; two beams each, then three, of which two have the same parent."""

    model: PreTrainedModel
    prompts: Prompts
    tokens: Sequence[torch.Tensor]  # (2, 2), (2, 3) - of the two steps
    parents: Sequence[torch.Tensor]  # of the same shapes
    expected: Sequence[torch.Tensor]  # (2, 1, V), (2, 2, V), (2, 3, V) - logits

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Trial:
        ids = _ordinary_ids(model)
        mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], device=model.device)
        prompt = ids[torch.arange(10).view(2, 5) % len(ids)].to(model.device)
        tokens = [ids[(torch.arange(n).view(2, -1) + n) % len(ids)].to(model.device) for n in (4, 6)]
        parents = (
            torch.zeros(2, 2, dtype=torch.long, device=model.device),
            torch.tensor([[1, 0, 1], [0, 1, 1]], device=model.device),
        )
        encoded = None
        if model.config.is_encoder_decoder:
            encoded = EncodedPrompts(model.get_encoder()(input_ids=prompt, attention_mask=mask).last_hidden_state, mask)
        prompts = Prompts(prompt, mask) if encoded is None else start_prompts(model, encoded)
        paths = (
            torch.zeros(2, 1, 0, dtype=torch.long, device=model.device),
            tokens[0].unsqueeze(-1),
            torch.stack([tokens[0].gather(1, parents[1]), tokens[1]], dim=-1),
        )
        return cls(model, prompts, tokens, parents, [_plain_logits(model, prompts, path) for path in paths])

    def disagreement(self, decoder: type[Decoder], head: type[Head]) -> str:
        """Return what is wrong with a decoder and a head; "" if nothing is."""
        n_tokens = self.expected[0].shape[-1]
        try:
            reader = head(self.model)
            run = decoder(self.model, reader, self.prompts)
            states = [run.start()]
            states += [run.step(tokens, parents) for tokens, parents in zip(self.tokens, self.parents, strict=True)]
            found = [reader.logits(state, 0, n_tokens) for state in states]
            normalizers = [reader.log_normalizer(state) for state in states]
        except FORWARD_ERRORS as error:
            return f"{decoder.name} with the {head.name} head fails ({type(error).__name__}: {str(error)[:120]})"
        pairs = list(zip(found, self.expected, strict=True))
        pairs += [(sums, logits.logsumexp(-1)) for sums, logits in zip(normalizers, self.expected, strict=True)]
        if any(mine.shape != theirs.shape for mine, theirs in pairs):
            return f"{decoder.name} with the {head.name} head gives logits of another shape"
        spread = max(float(self.expected[0].std()), 1e-6)
        # The normalizer is one number per row, judged on the same scale.
        gap = max(float((mine - theirs.to(mine.device)).square().mean().sqrt()) / spread for mine, theirs in pairs)
        if gap <= TOLERANCES.get(self.model.dtype, COARSE):
            return ""
        return f"{decoder.name} with the {head.name} head gives other logits than the model itself (by {gap:.1g})"


def _ordinary_ids(model: PreTrainedModel) -> torch.Tensor:
    """Return some token ids, without those to which the config gives a meaning (padding, images)."""
    configs = (model.config, model.config.get_text_config(decoder=True))
    meant = [value for config in configs for name, value in vars(config).items() if name.endswith("_token_id")]
    rows = embedding_rows(model.get_input_embeddings())
    ids = [token_id for token_id in range(min(rows, LOW_IDS)) if token_id not in meant]
    return torch.tensor(ids or [0])


def _plain_logits(model: PreTrainedModel, prompts: Prompts, paths: torch.Tensor) -> torch.Tensor:
    """Return the model's own logits after each path [B, M, d], float32 [B, M, V]: separate sequences, no cache."""
    n_beams, depth = paths.shape[1:]
    rows = torch.arange(len(prompts), device=paths.device).repeat_interleave(n_beams)
    input_ids = torch.cat([prompts.input_ids[rows], paths.flatten(0, 1)], dim=1)
    mask = torch.cat([prompts.mask[rows], prompts.mask.new_ones(len(rows), depth)], dim=1)
    if prompts.encoded is not None:
        encoded = prompts.encoded.select(rows)
        outputs = model(
            encoder_outputs=(encoded.states,), attention_mask=encoded.mask, decoder_input_ids=input_ids, use_cache=False
        )
    else:
        arguments = Prompts(input_ids, mask).arguments(FullHead(model))
        outputs = model(**arguments, use_cache=False)
    return outputs.logits[:, -1].float().view(len(prompts), n_beams, -1)
