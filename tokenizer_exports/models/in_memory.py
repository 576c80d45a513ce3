"""Extend a loaded model: the tokens of an artifact become tokens and rows, in place.

    extended = extend(tokenizer, model, ids)                   # decoder-only or encoder-decoder, tied or not
    LoraConfig(trainable_token_indices=extended.trainable_token_indices, ...)            # PEFT
    frozen = train_only_new_rows(model, extended)                                        # or without PEFT

Not here: folders too big to load (`on_disk.py`), what the rows start as (`init_rows.py`).
V old rows, H dims.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.encoders.checkpoint import Blocks, block_bounds
from semid.errors import ConfigError
from semid.tokenizer_exports.models.init_rows import Init, check_choices
from semid.tokenizer_exports.models.plan import Extended, Initializer, NewRows, Plan
from semid.tokens.source import TokenSource

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["extend"]


def extend(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    ids: TokenSource,
    *,
    init: Init = "auto",
    alpha: float = 0.0,
    pad_to: int = 64,
    seed: int = 0,
) -> Extended:
    """Add the tokens of the IDs to a tokenizer and its model, in place, and initialize their rows.

    Old rows keep their values, padding rows too, and the model never gets fewer rows. New padding rows start as the
    mean row. Calling it again with the same IDs changes nothing.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    model : PreTrainedModel
        Any transformers model with an input embedding, loaded, and not quantized at the embedding.
    ids : SemanticIDTokenizer, ClusterTokens, EntityNames or EntityVectors
        The tokens to add.
    init : "auto", "text", "codebook", "text+codebook" or "default"
        What the rows start as: see `init_rows.py`. "auto" (the default) means the items' texts, or the codebooks where
        there are no texts.
    alpha : float
        For cluster tokens: how much of each centroid is added to the row in the input embedding, by default 0; see
        `cluster_rows.py`.
    pad_to : int
        The number of rows becomes a multiple of this, 64 by default, unless the model has more already.
    seed : int
        Of the random directions; equal seeds give equal rows.

    Returns
    -------
    Extended
        Where the tokens are, and how their rows start.

    Raises
    ------
    ConfigError
        The tokenizer is not the model's; a token name is taken (see `add_tokens`); a choice that is impossible; weights
        that are not plain floats or not in memory.
    """
    init = check_choices(init, pad_to, ids, alpha)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    _check_weight(_weight(embedding), "the input embedding")
    separate = head is not None and head.weight is not embedding.weight
    if separate:
        _check_weight(_weight(head), "the output head")
    plan = Plan.make(tokenizer, ids, len(_weight(embedding)), pad_to, "its embedding")
    modules = _module_names(model, [embedding, head] if separate else [embedding])
    if not plan.fresh:
        return Extended(plan.base, plan.n_tokens, plan.n_rows, False, init, modules, ())
    rows_of = Initializer(ids, tokenizer, plan, init=init, alpha=alpha, seed=seed)
    new = [rows_of("input", _blocks(_weight(embedding)))]
    if separate:
        new.append(rows_of("head", _blocks(_weight(head))))
    _resize(model, plan.n_rows, separate)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    n_old = len(plan.known)
    for module, rows in zip([embedding, head], new, strict=False):
        _write(_weight(module), rows, plan)
    if getattr(head, "bias", None) is not None:
        mean = float(head.bias.detach()[:n_old].float().cpu()[plan.known].mean())
        head.bias.data[plan.base : plan.base + plan.n_tokens] = mean
        head.bias.data[max(n_old, plan.base + plan.n_tokens) :] = mean
    return Extended(plan.base, plan.n_tokens, plan.n_rows, True, init, modules, tuple(rows.report for rows in new))


def _weight(module: torch.nn.Module) -> torch.nn.Parameter:
    """Return the matrix of an embedding or a linear layer."""
    import torch

    weight = module.weight
    assert isinstance(weight, torch.nn.Parameter)
    return weight


def _check_weight(weight: torch.Tensor, what: str) -> None:
    if weight.ndim != 2 or not weight.is_floating_point() or weight.element_size() < 2:
        raise ConfigError(
            f"{what} is {list(weight.shape)} of {weight.dtype}, expected [V, H] of a plain float: it is quantized. "
            "Extend the model before quantizing it, or leave the embedding out of the quantization."
        )
    if weight.device.type == "meta":
        raise ConfigError(
            f"{what} is not in memory (device meta). Load the model whole, or extend its folder with: "
            "semid extend BASE DIR -o OUT"
        )


def _blocks(weight: torch.Tensor) -> Blocks:
    """Return a reader of a matrix in memory, in float32 blocks."""

    def blocks() -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        for start, stop in block_bounds(*weight.shape):
            yield start, weight.detach()[start:stop].float().cpu().numpy()

    return blocks


def _write(weight: torch.Tensor, rows: NewRows, plan: Plan) -> None:
    import torch

    end = plan.base + plan.n_tokens
    with torch.no_grad():
        weight[plan.base : end] = torch.from_numpy(rows.block).to(weight)
        weight[max(len(plan.known), end) :] = torch.from_numpy(rows.padding).to(weight)


def _resize(model: PreTrainedModel, n_rows: int, separate: bool) -> None:
    """Resize whatever the architecture keeps per token; a head that is a matrix of its own stays one.

    When it resizes, transformers ties the head if the configuration says so. A T5 1.1 checkpoint has a separate head,
    although its configuration, in transformers 5, always says tied: the head would be lost.
    """
    import torch

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if len(_weight(embedding)) == n_rows:
        return
    old = _weight(head) if separate else None
    model.resize_token_embeddings(n_rows, mean_resizing=False)
    head = model.get_output_embeddings()
    if old is not None and head.weight is model.get_input_embeddings().weight:
        grown = torch.empty((n_rows, old.shape[1]), dtype=old.dtype, device=old.device)
        grown[: len(old)] = old.detach()
        head.weight = torch.nn.Parameter(grown, requires_grad=old.requires_grad)


def _module_names(model: PreTrainedModel, modules: list[torch.nn.Module]) -> tuple[str, ...]:
    names = {id(module): name for name, module in model.named_modules()}
    return tuple(names[id(module)] for module in modules)
