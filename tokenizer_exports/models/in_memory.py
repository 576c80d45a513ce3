"""An artifact's tokens become part of a loaded model: tokenizer and rows, in place; and training only those rows.

    extended = extend(tokenizer, model, ids)                   # decoder-only or encoder-decoder, tied or not
    LoraConfig(trainable_token_indices=extended.trainable_token_indices, ...)            # PEFT
    frozen = train_only_new_rows(model, extended)                                        # or without PEFT

Not here: folders too big to load (`on_disk.py`), what the rows start as (`init_rows.py`).
V old rows, H dims.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.clusters.tokens import ClusterTokens
from semid.encoders.checkpoint import Blocks, block_bounds
from semid.errors import ConfigError
from semid.tokenizer_exports.models.add_tokens import add_tokens, highest_id
from semid.tokenizer_exports.models.cluster_rows import centroid_shifts, isometry
from semid.tokenizer_exports.models.init_rows import Init, Texts, check_choices, first_rows, measure, read_texts
from semid.tokenizer_exports.models.row_report import MatrixRows, report_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["Extended", "Initializer", "NewRows", "Plan", "extend"]

logger = logging.getLogger("semid")

OTHER_DRAW = 1 << 32  # added to the seed: clusters and items in one model would lie along the same axes


@dataclass(frozen=True)
class Extended:
    """What was added, and where.

    `trainable_token_indices` is what PEFT's `LoraConfig` takes: a list of token ids, or where input embedding and
    head are untied, a dict of both modules (a list alone would leave the head's new rows as they are).
    """

    base: int  # token id of the first code
    n_tokens: int  # codes of all levels and markers
    n_rows: int  # of the embedding now, padding included
    initialized: bool  # False: tokens and rows were there already, and nothing was changed
    init: str
    modules: tuple[str, ...]  # names of the embedding, and of the head if it is a matrix of its own
    matrices: tuple[MatrixRows, ...]  # how the new rows start

    @property
    def token_ids(self) -> range:
        """All new token ids."""
        return range(self.base, self.base + self.n_tokens)

    @property
    def trainable_token_indices(self) -> list[int] | dict[str, list[int]]:
        """For `peft.LoraConfig(trainable_token_indices=...)`."""
        if len(self.modules) < 2:
            return list(self.token_ids)
        return {name: list(self.token_ids) for name in self.modules}

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "base": self.base,
            "n_tokens": self.n_tokens,
            "n_rows": self.n_rows,
            "initialized": self.initialized,
            "init": self.init,
            "modules": list(self.modules),
            "matrices": [matrix.to_dict() for matrix in self.matrices],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        last = self.base + self.n_tokens - 1
        if not self.initialized:
            return [f"{self.n_tokens} tokens, ids {self.base} to {last}: already there, rows left as they are"]
        first = f"{self.n_tokens} tokens, ids {self.base} to {last}; {self.n_rows} rows; init {self.init}"
        return [first, *(line for matrix in self.matrices for line in matrix.lines())]


@dataclass(frozen=True)
class Plan:
    """Which rows a matrix of V rows gets; made once the tokens are in the tokenizer."""

    base: int
    n_tokens: int
    n_rows: int  # afterwards: never fewer than V
    fresh: bool  # the rows of the block are to be initialized
    known: npt.NDArray[np.bool_]  # (V,) - rows of the tokenizer's other tokens

    @classmethod
    def make(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        ids: SemanticIDTokenizer | ClusterTokens,
        n_old_rows: int,
        pad_to: int,
        model: str,
    ) -> Plan:
        """Add the tokens and plan the rows; ConfigError, before anything is added, if tokenizer and model differ.

        Rows are new if their tokens are, or if the matrix ends before the block does. Otherwise the block was there
        and so were its rows: they may be trained, and stay.
        """
        vocabulary = ids.vocabulary
        highest, before = highest_id(tokenizer, vocabulary), len(tokenizer)
        if highest >= n_old_rows:
            raise ConfigError(
                f"wrong tokenizer for this model: it has token ids up to {highest}, {model} has {n_old_rows} rows. "
                "Load tokenizer and model from the same folder."
            )
        base = add_tokens(tokenizer, vocabulary)
        end = max(base + len(vocabulary), highest + 1)
        known = np.zeros(n_old_rows, bool)
        ours = range(base, base + len(vocabulary))
        known[[i for i in tokenizer.get_vocab().values() if i not in ours]] = True
        fresh = len(tokenizer) > before or n_old_rows < base + len(vocabulary)
        n_rows = max(n_old_rows, -(-end // pad_to) * pad_to) if fresh else n_old_rows
        return cls(base, len(vocabulary), n_rows, fresh, known)


@dataclass(frozen=True)
class NewRows:
    """What is written into a matrix: the block's rows, and the one for padding behind all tokens."""

    block: npt.NDArray[np.float32]  # (n_tokens, H)
    padding: npt.NDArray[np.float32]  # (H,) - the mean: its logit is never the largest
    report: MatrixRows


class Initializer:
    """Makes the new rows of any matrix of one model; what the items say is read once."""

    def __init__(
        self,
        ids: SemanticIDTokenizer | ClusterTokens,
        tokenizer: PreTrainedTokenizerBase,
        plan: Plan,
        *,
        init: Init,
        alpha: float,
        seed: int,
        progress: bool,
    ) -> None:
        self.ids, self.tokenizer, self.plan, self.init, self.alpha, self.seed = ids, tokenizer, plan, init, alpha, seed
        self.texts: Texts | None = None
        if plan.fresh and init in ("text", "mix"):
            self.texts = read_texts(ids, tokenizer, plan.known, progress=progress)

    def __call__(self, matrix: str, blocks: Blocks) -> NewRows:
        """New rows of the matrix whose old rows are `blocks`."""
        cloud = measure(blocks, self.plan.known)
        vocabulary = self.ids.vocabulary
        # without codebooks there is no geometry: codes without items then get distinct random rows
        without = [np.zeros((size, 0)) for size in vocabulary.sizes]
        levels = self.ids.codebooks.levels if self.ids.is_fitted else without
        seed = self.seed + (OTHER_DRAW if isinstance(self.ids, ClusterTokens) else 0)
        rows = first_rows(vocabulary, levels, cloud, init=self.init, seed=seed, texts=self.texts, blocks=blocks)
        if self.alpha and matrix == "input":  # as in META ID: what is read, not what is foretold
            turned = isometry(rows.shape[1], self.ids.centroids.shape[1], length=cloud.norm, seed=self.seed)
            rows += centroid_shifts(self.ids, turned, alpha=self.alpha)
        report = report_rows(
            matrix, rows, cloud, vocabulary, blocks, self.plan.known, self.tokenizer.convert_ids_to_tokens
        )
        return NewRows(rows, cloud.mean.astype(np.float32), report)


def extend(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    ids: SemanticIDTokenizer | ClusterTokens,
    *,
    init: Init = "auto",
    alpha: float = 0.0,
    pad_to: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> Extended:
    """Add the tokens of the IDs to a tokenizer and its model, in place, and initialize their rows.

    Rows that the model has already keep their values, padding too; it never gets fewer. Rows of padding that are new
    start as the mean row. Called again with the same IDs, nothing changes.

    Parameters
    ----------
    model : any transformers model with an input embedding, loaded, unquantized at the embedding
    init : "auto", "text", "codebook", "mix" or "default"
        What the rows start as; see `init_rows.py`. "auto" is the items' texts, or the codebooks where there are none.
    alpha : float
        Of clusters: how much of each centroid is added to the row in the input embedding; see `cluster_rows.py`.
    pad_to : int
        Afterwards the number of rows is a multiple of this, unless the model had more already.
    seed : int
        Of the random directions; equal seeds give equal rows.

    Raises
    ------
    ConfigError
        The tokenizer is not the model's; a name is taken (`add_tokens`); an impossible choice; weights that are not
        plain floats or not in memory.
    """
    init = check_choices(init, pad_to, ids, alpha)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    _check_weight(embedding.weight, "the input embedding")
    separate = head is not None and head.weight is not embedding.weight
    if separate:
        _check_weight(head.weight, "the output head")
    plan = Plan.make(tokenizer, ids, len(embedding.weight), pad_to, "its embedding")
    modules = _module_names(model, [embedding, head] if separate else [embedding])
    if not plan.fresh:
        return Extended(plan.base, plan.n_tokens, plan.n_rows, False, init, modules, ())
    rows_of = Initializer(ids, tokenizer, plan, init=init, alpha=alpha, seed=seed, progress=progress)
    new = [rows_of("input", _blocks(embedding.weight))]
    if separate:
        new.append(rows_of("head", _blocks(head.weight)))
    _resize(model, plan.n_rows, separate)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    n_old = len(plan.known)
    for module, rows in zip([embedding, head], new, strict=False):
        _write(module.weight, rows, plan)
    if getattr(head, "bias", None) is not None:
        mean = float(head.bias.detach()[:n_old].float().cpu()[plan.known].mean())
        head.bias.data[plan.base : plan.base + plan.n_tokens] = mean
        head.bias.data[max(n_old, plan.base + plan.n_tokens) :] = mean
    return Extended(plan.base, plan.n_tokens, plan.n_rows, True, init, modules, tuple(rows.report for rows in new))


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
    """A matrix in memory, read as float32 blocks."""

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
    """Resize whatever the architecture keeps per token; a head of its own stays one.

    transformers ties the head by the configuration when it resizes. A T5 1.1 checkpoint has a head of its own though
    its configuration, in transformers 5, always says tied: its head would be lost.
    """
    import torch

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if len(embedding.weight) == n_rows:
        return
    old = head.weight if separate else None
    model.resize_token_embeddings(n_rows, mean_resizing=False)
    head = model.get_output_embeddings()
    if old is not None and head.weight is model.get_input_embeddings().weight:
        grown = torch.empty((n_rows, old.shape[1]), dtype=old.dtype, device=old.device)
        grown[: len(old)] = old.detach()
        head.weight = torch.nn.Parameter(grown, requires_grad=old.requires_grad)


def _module_names(model: PreTrainedModel, modules: list[torch.nn.Module]) -> tuple[str, ...]:
    names = {id(module): name for name, module in model.named_modules()}
    return tuple(names[id(module)] for module in modules)
