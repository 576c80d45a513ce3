"""The prompts of one call of `generate_items`, checked and aligned at the right.

Whichever side they were padded on, the last token of every prompt ends up in the last column, so one column serves all
of them. Not here: text, tokenizers. B prompts of at most P tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.generate.lm_head import EncodedPrompts, FullHead, SlicedHead
from semid.tokenizer_exports.generate.transformers_versions import embedding_rows, takes_positions

__all__ = ["Inputs", "Prompts", "read_prompts"]

Inputs = Mapping[str, object] | torch.Tensor
UNDERSTOOD = {"input_ids", "attention_mask", "token_type_ids"}  # some tokenizers return the last; it is not used
MAKE = 'Make them with: tokenizer(texts, return_tensors="pt", padding=True)'


@dataclass(frozen=True)
class Prompts:
    """The first input of the decoder: the prompts, or the start token of an encoder-decoder model."""

    input_ids: torch.Tensor  # (B, P) int64
    mask: torch.Tensor  # (B, P) int64, 1 for a token; the last column is all 1
    encoded: EncodedPrompts | None = None  # of an encoder-decoder model

    def __len__(self) -> int:
        """Return B."""
        return len(self.input_ids)

    @property
    def lengths(self) -> torch.Tensor:
        """Number of tokens of each prompt, int64 [B]."""
        return self.mask.sum(dim=1)

    def arguments(self, head: SlicedHead | FullHead) -> dict[str, torch.Tensor]:
        """Return the arguments of the first forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.mask}
        if self.encoded is None and takes_positions(head.arguments):
            inputs["position_ids"] = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        return inputs


def read_prompts(model: PreTrainedModel, inputs: Inputs) -> Prompts:
    """Check prompts, move them to the model's device and run the encoder if there is one.

    Parameters
    ----------
    model
        A causal or encoder-decoder language model.
    inputs
        What a tokenizer returned, or token ids, integers [B, P] or [P]. Padding may be on either side; without an
        attention mask every token counts.

    Raises
    ------
    InputError
        There is no prompt, one is empty, shapes are wrong, or token ids are out of range.
    ConfigError
        There are inputs of other kinds, such as images or embeddings.
    """
    input_ids, mask = _tensors(inputs)
    rows = embedding_rows(model.get_input_embeddings())
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= rows:
        raise InputError(f"input_ids: {low}..{high} should be inside 0..{rows - 1}, the model's rows. {MAKE}")
    empty = torch.nonzero(mask.sum(dim=1) == 0).flatten().tolist()
    if empty:
        raise InputError(f"prompt {empty[0]} is empty: its attention_mask is all 0. Give each at least one token.")
    input_ids, mask = input_ids.to(model.device), mask.to(model.device)
    if model.config.is_encoder_decoder:
        states = model.get_encoder()(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return start_prompts(model, EncodedPrompts(states, mask))
    return Prompts(*_flush_right(input_ids, mask))


def start_prompts(model: PreTrainedModel, encoded: EncodedPrompts) -> Prompts:
    """Return the start token of an encoder-decoder model as the prompt of its decoder."""
    places = (model.generation_config, model.config, model.config.get_text_config(decoder=True))
    names = ("decoder_start_token_id", "bos_token_id")
    starts = [getattr(place, name, None) for name in names for place in places]
    start = next((token_id for token_id in starts if token_id is not None), None)
    if start is None:
        raise ConfigError("the model names no decoder_start_token_id. Set model.config.decoder_start_token_id.")
    column = torch.full((len(encoded.states), 1), int(start), device=encoded.states.device)
    return Prompts(column, torch.ones_like(column), encoded)


def _tensors(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask, both int64 [B, P]."""
    if isinstance(inputs, Mapping):
        unknown = sorted(name for name in inputs.keys() - UNDERSTOOD if inputs[name] is not None)
        if unknown or inputs.get("input_ids") is None:
            raise ConfigError(
                f"inputs: has {', '.join(sorted(inputs))}; expected input_ids and, where there is padding, "
                f"attention_mask. {MAKE}"
            )
        input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    else:
        input_ids, mask = inputs, None
    input_ids = _integers("input_ids", input_ids)
    mask = torch.ones_like(input_ids) if mask is None else _integers("attention_mask", mask)
    if mask.shape != input_ids.shape:
        raise InputError(
            f"attention_mask: shape={list(mask.shape)} should be that of input_ids, {list(input_ids.shape)}."
        )
    return input_ids, (mask != 0).long()


def _integers(name: str, values: object) -> torch.Tensor:
    """Return int64 [B, P] from a tensor or lists; a single prompt may be [P]."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: should be integers [B, P], one length for all prompts ({error}). {MAKE}") from error
    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.dim() != 2 or not tensor.numel() or tensor.is_floating_point() or tensor.is_complex():
        raise InputError(
            f"{name}: shape={list(tensor.shape)} dtype={tensor.dtype} should be integers [B, P], at least one prompt "
            f"and one token. {MAKE}"
        )
    return tensor.long()


def _flush_right(input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate each row so that it ends with its last token."""
    width = mask.shape[1]
    columns = torch.arange(width, device=mask.device)
    last = (columns * mask).amax(dim=1, keepdim=True)
    source = (columns + last + 1) % width
    return input_ids.gather(1, source), mask.gather(1, source)
