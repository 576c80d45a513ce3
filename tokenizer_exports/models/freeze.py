"""Train only the new rows of a model, without PEFT: everything else stays exactly as it is.

A gradient mask alone is not enough: an optimizer also moves rows without a gradient, by weight decay and by momentum
of earlier steps. So rows outside the range are restored after every step of an optimizer that holds them.

For sharded training (FSDP, DeepSpeed ZeRO-3) use PEFT's `trainable_token_indices` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from semid.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from semid.tokenizer_exports.models.plan import Extended

__all__ = ["Frozen", "train_only_new_rows"]


class Frozen:
    """The hooks that `train_only_new_rows` has set; `remove` takes them away."""

    def __init__(self, undo: list[Callable[[], object]]) -> None:
        self._undo = undo

    def remove(self) -> None:
        """Remove the hooks, and let the parameters require gradients as before. Trained rows keep their values."""
        while self._undo:
            self._undo.pop()()


def train_only_new_rows(model: PreTrainedModel, new: Extended | range) -> Frozen:
    """Freeze a model except for the rows `new` of its input embedding and output head (and the head's bias).

    Weight decay still acts on the new rows. Takes memory for a copy of the two matrices.

    Parameters
    ----------
    model : PreTrainedModel
        The model that will be trained.
    new : Extended or range
        What `extend` returned, or a range of token ids.

    Returns
    -------
    Frozen
        Its `remove` ends the freeze.

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
    undo.append(register_optimizer_step_post_hook(_restore_rows(kept, rows)).remove)
    return Frozen(undo)


def _per_token_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the input embedding, the head if it is another matrix, and the head's bias if there is one."""
    from torch.nn import Parameter

    head = model.get_output_embeddings()
    found = (model.get_input_embeddings().weight, getattr(head, "weight", None), getattr(head, "bias", None))
    return list({id(one): one for one in found if isinstance(one, Parameter)}.values())


def _masked(rows: range) -> Callable[[torch.Tensor], torch.Tensor]:
    def mask(gradient: torch.Tensor) -> torch.Tensor:
        masked = gradient.new_zeros(gradient.shape)
        masked[rows.start : rows.stop] = gradient[rows.start : rows.stop]
        return masked

    return mask


def _restore_rows(kept: dict[int, tuple[torch.nn.Parameter, torch.Tensor]], rows: range) -> Callable[..., None]:
    def restore_rows(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in kept and kept[id(parameter)][0] is parameter:
                    old = kept[id(parameter)][1].to(parameter.device)
                    parameter.data[: rows.start] = old[: rows.start]
                    parameter.data[rows.stop :] = old[rows.stop :]

    return restore_rows
