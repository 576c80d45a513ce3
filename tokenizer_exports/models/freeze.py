"""Training only the new rows of a model, without PEFT: all else is frozen, exactly.

A gradient mask alone is not enough: an optimizer moves rows without gradient too, by weight decay and by momentum
from earlier steps. So rows outside the range are also put back after every step of an optimizer that holds them.

For sharded training (FSDP, DeepSpeed ZeRO-3) use PEFT's `trainable_token_indices` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from semid.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from semid.tokenizer_exports.models.in_memory import Extended

__all__ = ["Frozen", "train_only_new_rows"]


class Frozen:
    """What `train_only_new_rows` has set up; `remove` undoes it."""

    def __init__(self, undo: list[Callable[[], object]]) -> None:
        self._undo = undo

    def remove(self) -> None:
        """Take the hooks away, and let the parameters require gradients as before. Trained rows stay trained."""
        while self._undo:
            self._undo.pop()()


def train_only_new_rows(model: PreTrainedModel, new: Extended | range) -> Frozen:
    """Freeze all of a model but the rows `new` of its input embedding and output head (and the head's bias).

    Weight decay does act on the new rows, as it should. Costs a copy of the two matrices.

    Parameters
    ----------
    new : what `extend` returned, or a range of token ids

    Raises
    ------
    ConfigError
        The range is empty, or not inside the embedding.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    rows = new if isinstance(new, range) else new.token_ids
    held = _per_token_parameters(model)
    n_rows = len(held[0])
    if rows.step != 1 or not 0 <= rows.start < rows.stop <= n_rows:
        raise ConfigError(f"new={rows} should be rows of the embedding, which has {n_rows}. Pass what extend returned.")
    undo: list[Callable[[], object]] = []
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore() -> None:
        for parameter, required in before:
            parameter.requires_grad_(required)

    undo.append(restore)
    for parameter, _ in before:
        parameter.requires_grad_(False)
    for parameter in held:
        parameter.requires_grad_(True)
        undo.append(parameter.register_hook(_masked(rows)).remove)
    kept = {id(parameter): (parameter, parameter.detach().clone()) for parameter in held}
    undo.append(register_optimizer_step_post_hook(_put_back(kept, rows)).remove)
    return Frozen(undo)


def _per_token_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Input embedding, head if it is not the same, and the head's bias if there is one."""
    held = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not held[0]:
        held.append(head.weight)
    if getattr(head, "bias", None) is not None:
        held.append(head.bias)
    return held


def _masked(rows: range) -> Callable[[torch.Tensor], torch.Tensor]:
    def mask(gradient: torch.Tensor) -> torch.Tensor:
        masked = gradient.new_zeros(gradient.shape)
        masked[rows.start : rows.stop] = gradient[rows.start : rows.stop]
        return masked

    return mask


def _put_back(kept: dict[int, tuple[torch.nn.Parameter, torch.Tensor]], rows: range) -> Callable[..., None]:
    def put_back(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in kept and kept[id(parameter)][0] is parameter:
                    old = kept[id(parameter)][1].to(parameter.device)
                    parameter.data[: rows.start] = old[: rows.start]
                    parameter.data[rows.stop :] = old[rows.stop :]

    return put_back
