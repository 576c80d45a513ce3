"""`ItemHead`: rank the whole catalog in one forward pass; nothing is generated, so every result is an item.

    head = ItemHead(TokenRows(model.get_input_embeddings(), entities.items))     # a row for every item
    head = ItemHead(CodeRows.of(model.get_input_embeddings(), ids, extended.base))   # rows made of semantic IDs
    states = last_states(model.base_model(**prompts).last_hidden_state, prompts["attention_mask"])
    loss = head.loss(states, batch["targets"], seen=batch["seen"])
    best = head.rank(states, 20, seen=batch["seen"])

The score of an item is the dot product of the state with the item's row. The loss is the multinomial likelihood of the
user's items, over items only: words do not compete. The rows are tied to the input embedding. An item's row is that of
its own token, or the sum of the rows of its codes: then the catalog needs sum(K) rows instead of N, and a new item has
a row as soon as it has a semantic ID.

Also here: `scored_loss`, for documents where only items or only words compete, and `mutual_regularization`, which keeps
two tables of the same entities close, one learned from interactions and one from texts.

Not here: making the prompts (`soft_prompts.py`), generating semantic IDs (`tokenizer_exports/generate/items.py`).
B prompts, T tokens, H dims, N items, L levels, M targets, S seen items; -1 pads rows of item numbers.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from semid.errors import ConfigError, InputError
from semid.tokenizer import SemanticIDTokenizer

__all__ = [
    "CodeRows", "ItemHead", "ItemRows", "Ranked", "TokenRows", "last_states", "mutual_regularization", "scored_loss",
]  # fmt: skip

NO_LABEL, NO_ITEM = -100, -1


class ItemRows(Protocol):
    """The rows of N items, wherever they come from."""

    n_items: int

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the dot products of states [..., H] with the rows of all items: [..., N]."""

    def rows(self) -> torch.Tensor:
        """Return the rows of all items: [N, H]."""


class TokenRows(nn.Module):
    """One row for each item: a block of an embedding's rows, tied to it.

    Parameters
    ----------
    embedding : nn.Embedding
        The model's input embedding.
    items : range
        Token ids of the items, such as `EntityTokens.items`.
    """

    def __init__(self, embedding: nn.Embedding, items: range) -> None:
        super().__init__()
        block = isinstance(items, range) and items.step == 1
        if not block or not 0 <= items.start < items.stop <= len(embedding.weight):
            raise ConfigError(
                f"items={items} should be rows of the embedding, which has {len(embedding.weight)}. Call extend first."
            )
        self.embedding, self.items, self.n_items = embedding, items, len(items)

    def rows(self) -> torch.Tensor:
        """Return the rows of all items: [N, H]."""
        return self.embedding.weight[self.items.start : self.items.stop]

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the dot products of states [..., H] with the rows of all items: [..., N]."""
        return functional.linear(states, self.rows())


class CodeRows(nn.Module):
    """One row for each item: the sum of the rows of its codes, multiplied by a square matrix if `projected`.

    States are multiplied with the rows of the codes in use, and an item's score is the sum of L of those products: the
    rows of N items are never computed.

    Parameters
    ----------
    embedding : nn.Embedding
        The model's input embedding.
    token_ids : int [N, L]
        The rows of the embedding that each item is made of.
    projected : bool
        Learn a matrix [H, H], which starts as the identity, so that codes may differ as input and as output. False by
        default.
    """

    used: torch.Tensor  # int64 [n]: the rows of the embedding that occur
    places: torch.Tensor  # int64 [N, L]: which of them each item is made of

    def __init__(self, embedding: nn.Embedding, token_ids: npt.ArrayLike, *, projected: bool = False) -> None:
        super().__init__()
        token_ids = np.asarray(token_ids)
        if token_ids.ndim != 2 or token_ids.dtype.kind not in "iu" or not token_ids.size:
            raise ConfigError(f"token_ids: shape={token_ids.shape} dtype={token_ids.dtype} should be integers [N, L].")
        used, places = np.unique(token_ids, return_inverse=True)
        if used[0] < 0 or used[-1] >= len(embedding.weight):
            raise ConfigError(
                f"token_ids are {used[0]} to {used[-1]}; the embedding has {len(embedding.weight)} rows. Call extend "
                "first."
            )
        width = embedding.weight.shape[1]
        self.embedding, self.n_items = embedding, len(token_ids)
        self.register_buffer("used", torch.from_numpy(used.astype(np.int64)), persistent=False)
        self.register_buffer("places", torch.from_numpy(places.reshape(token_ids.shape)), persistent=False)
        self.projection: nn.Linear | None = None
        if projected:
            self.projection = nn.Linear(width, width, bias=False).to(embedding.weight)
            nn.init.eye_(self.projection.weight)

    @classmethod
    def of(cls, embedding: nn.Embedding, ids: SemanticIDTokenizer, base: int, *, projected: bool = False) -> CodeRows:
        """Return the rows of all items of an artifact, in the order of its table; `base` is `extend(...).base`."""
        return cls(embedding, ids.vocabulary.token_ids(ids.codes, base), projected=projected)

    def rows(self) -> torch.Tensor:
        """Return the rows of all items: [N, H]."""
        rows = self.embedding.weight[self.used][self.places].sum(1)
        return rows if self.projection is None else self.projection(rows)

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the dot products of states [..., H] with the rows of all items: [..., N]."""
        if self.projection is not None:  # s . W r = (W' s) . r
            states = states @ self.projection.weight
        parts = functional.linear(states, self.embedding.weight[self.used])
        return reduce(torch.add, (parts[..., place] for place in self.places.unbind(1)))


class Ranked(NamedTuple):
    """The best k items of B prompts, best first; padded with -1 and -inf if there are fewer."""

    items: torch.Tensor  # (B, k) int64
    scores: torch.Tensor  # (B, k) float32


class ItemHead(nn.Module):
    """Scores all items from the state at the end of a prompt.

    Parameters
    ----------
    rows : ItemRows
        `TokenRows`, `CodeRows`, or another module with their methods.
    bias : float [N], optional
        Initial score of each item, such as the log of its popularity; it is trained.
    scale : float
        Factor of the scores, not of the bias; 1 by default. If all rows have about the same length, only large states
        give sharp distributions; H**-0.5 suits rows as long as those of a random embedding with deviation 1.

    Raises
    ------
    ConfigError
        A bias of another shape, or one that is not finite; a scale that is not a number above 0.
    """

    def __init__(self, rows: ItemRows, *, bias: torch.Tensor | None = None, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ConfigError(f"scale={scale!r} should be a number above 0.")
        if bias is not None:
            bias = torch.as_tensor(bias).detach().clone().float()
            if bias.shape != (rows.n_items,):
                raise ConfigError(f"bias: shape={tuple(bias.shape)} should be ({rows.n_items},), one for each item.")
            if not bias.isfinite().all():
                raise ConfigError("bias: not all finite. If some counts are 0, use log(count + 0.5).")
        self.rows, self.scale = rows, scale
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, states: torch.Tensor, *, seen: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits of states [B, H], float32 [B, N]; -inf for the items in `seen` int64 [B, S]."""
        logits = self.rows.scores(states).float() * self.scale
        if self.bias is not None:
            logits = logits + self.bias
        if seen is None or not seen.shape[1]:
            return logits
        return logits.masked_fill(self._marked(seen, logits), -torch.inf)

    def loss(
        self,
        states: torch.Tensor,
        targets: torch.Tensor,
        *,
        seen: torch.Tensor | None = None,
        each: Literal["user", "interaction"] = "user",
    ) -> torch.Tensor:
        """Return the mean negative multinomial log-likelihood of the targets, a scalar; 0 without any target.

        Parameters
        ----------
        states : float [B, H]
            State at the end of each prompt.
        targets : int64 [B, M]
            Item numbers, -1 for none.
        seen : int64 [B, S], optional
            Items that do not compete unless they are targets, -1 for none.
        each : "user" or "interaction"
            What has the same weight: every user (the default), or every target, as in CLLM4Rec's sum.
        """
        if each not in ("user", "interaction"):
            raise ConfigError(f"each={each!r} should be user or interaction.")
        logits = self(states)
        wanted = self._marked(targets, logits)
        if seen is not None and seen.shape[1]:
            logits = logits.masked_fill(self._marked(seen, logits) & ~wanted, -torch.inf)
        found = torch.where(wanted, functional.log_softmax(logits, dim=-1), 0.0).sum(1)
        counts = wanted.sum(1)
        if each == "user":
            return -(found / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
        return -found.sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def rank(self, states: torch.Tensor, k: int, *, seen: torch.Tensor | None = None) -> Ranked:
        """Return the best k items except those in `seen` int64 [B, S]; k is 1 to N. InputError if a score is NaN."""
        if type(k) is not int or not 1 <= k <= self.rows.n_items:
            raise ConfigError(f"k={k!r} should be 1 to {self.rows.n_items}, the number of items.")
        scores, items = self(states, seen=seen).topk(k, dim=-1)
        if scores.isnan().any():  # NaN sorts first, so the best k show whether there is any
            raise InputError("states or rows contain NaN, so nothing can be ranked. Did the training diverge?")
        return Ranked(torch.where(scores > -torch.inf, items, NO_ITEM), scores)

    def _marked(self, numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return which items are among numbers [B, M], bool [B, N]; InputError for numbers that are not items."""
        n_items = self.rows.n_items
        if numbers.ndim != 2 or len(numbers) != len(like) or numbers.dtype != torch.int64:
            raise InputError(
                f"item numbers: shape={tuple(numbers.shape)} dtype={numbers.dtype} should be int64 [{len(like)}, M], "
                "one row per prompt, -1 for none."
            )
        wrong = numbers[(numbers < NO_ITEM) | (numbers >= n_items)]
        if len(wrong):
            raise InputError(f"item numbers: {int(wrong[0])} should be in 0..{n_items - 1}, or -1 for none.")
        marked = torch.zeros((len(like), n_items + 1), dtype=torch.bool, device=like.device)
        numbers = numbers.to(like.device)
        marked.scatter_(1, torch.where(numbers == NO_ITEM, n_items, numbers), True)  # -1: a column after the last item
        return marked[:, :-1]


def last_states(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the states [B, H] at the last token of each prompt, from states [B, T, H]; padding may be on either side.

    InputError for a prompt of padding only.
    """
    mask = attention_mask.bool()
    if not mask.any(1).all():
        raise InputError("attention_mask: a prompt has no token, so it has no last state. Leave it out.")
    ends = (mask.shape[1] - 1 - mask.flip(1).int().argmax(1)).to(states.device)
    return states[torch.arange(len(states), device=states.device), ends]


def scored_loss(
    states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, score_space: torch.Tensor
) -> torch.Tensor:
    """Return the mean cross entropy of the next token among the tokens of a document's score space, a scalar.

    Parameters
    ----------
    states : float [B, T, H]
        The last hidden states.
    weight : float [V, H]
        Rows of the output head, or of the embedding that it is tied to.
    labels : int64 [B, T]
        Token ids, -100 where there is no loss; not shifted.
    score_space : int64 [B, 2]
        Start and stop of the token ids that compete in each document.

    Raises
    ------
    ConfigError
        A label outside its document's score space.
    """
    states, labels = states[:, :-1], labels[:, 1:].to(states.device)
    total, count = states.sum() * 0.0, 0  # of the right device, with a gradient even when nothing is scored
    for start, stop in score_space.unique(dim=0).tolist():
        mine = (score_space == torch.tensor([start, stop], device=score_space.device)).all(1).to(states.device)
        asked = mine[:, None] & (labels != NO_LABEL)
        wanted = labels[asked] - start
        if ((wanted < 0) | (wanted >= stop - start)).any():
            raise ConfigError(f"labels: some are outside of their score space {start}..{stop - 1}. Collate them again.")
        logits = functional.linear(states[asked], weight[start:stop]).float()
        total = total + functional.cross_entropy(logits, wanted, reduction="sum")
        count += len(wanted)
    return total / max(count, 1)


def mutual_regularization(
    rows: torch.Tensor,
    anchor: torch.Tensor,
    numbers: torch.Tensor,
    *,
    each: Literal["entity", "position"] = "entity",
) -> torch.Tensor:
    """Return the mean squared distance between rows of two tables, a scalar to add to the loss of the first.

    It keeps two tables of the same entities close, such as one of interactions and one of reviews. The anchor gets no
    gradient: train the two in turns.

    Parameters
    ----------
    rows : float [V, H]
        The table that is trained.
    anchor : float [V, H]
        The other table.
    numbers : int64, any shape
        Rows that occur in the batch; negative numbers do not count.
    each : "entity" or "position"
        Count every entity once (the default), or sum over all positions, as CLLM4Rec's code does; the sum grows with
        the length of the documents.

    Raises
    ------
    ConfigError
        Tables of different shapes.
    """
    if rows.shape != anchor.shape:
        raise ConfigError(f"rows {tuple(rows.shape)} and anchor {tuple(anchor.shape)} should have the same shape.")
    if each not in ("entity", "position"):
        raise ConfigError(f"each={each!r} should be entity or position.")
    numbers = numbers[numbers >= 0].to(rows.device)
    if each == "entity":
        numbers = numbers.unique()
    squares = (rows[numbers] - anchor.detach()[numbers]).square().sum()
    return squares if each == "position" else squares / max(len(numbers), 1)
