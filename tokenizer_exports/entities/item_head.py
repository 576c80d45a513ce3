"""`ItemHead`: one forward pass ranks the whole catalog; nothing is generated, so nothing can be invalid.

    head = ItemHead(TokenRows(model.get_input_embeddings(), entities.items))     # a row for every item
    head = ItemHead(CodeRows.of(model.get_input_embeddings(), ids, extended.base))   # rows made of semantic IDs
    states = last_states(model.base_model(**prompts).last_hidden_state, prompts["attention_mask"])
    loss = head.loss(states, batch["targets"], seen=batch["seen"])
    best = head.rank(states, 20, seen=batch["seen"])

The score of an item is the product of the state with the item's row, and the loss the multinomial likelihood of what
the user met, over items alone: words do not compete. The rows are those of the input embedding, tied. An item's row is
the row of its own token, or the sum of the rows of its codes: then the catalog needs sum(K) rows instead of N, and a
new item has a row as soon as it has a semantic ID.

Also here: the loss of documents whose tokens compete with items alone or words alone (`scored_loss`), and what holds
two tables of the same entities together, one learned from behavior and one from texts (`mutual_regularization`).

Not here: making the prompts (`soft_prompts.py`), writing semantic IDs token by token
(`tokenizer_exports/generate/items.py`). B prompts, T tokens, H dims, N items, L levels, M targets, S seen items; -1
fills rows of item numbers.
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
    """Where the rows of N items come from."""

    n_items: int

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Products of states [..., H] with the rows of all items: [..., N]."""

    def rows(self) -> torch.Tensor:
        """The rows of all items [N, H]."""


class TokenRows(nn.Module):
    """A row for each item: a block of an embedding's rows, tied to it."""

    def __init__(self, embedding: nn.Embedding, items: range) -> None:
        super().__init__()
        block = isinstance(items, range) and items.step == 1
        if not block or not 0 <= items.start < items.stop <= len(embedding.weight):
            raise ConfigError(
                f"items={items} should be rows of the embedding, which has {len(embedding.weight)}. Call extend first."
            )
        self.embedding, self.items, self.n_items = embedding, items, len(items)

    def rows(self) -> torch.Tensor:
        """[N, H]"""
        return self.embedding.weight[self.items.start : self.items.stop]

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """[..., H] -> [..., N]"""
        return functional.linear(states, self.rows())


class CodeRows(nn.Module):
    """The row of an item is the sum of the rows of its codes, turned by a square matrix if `projected`.

    States are multiplied with the rows of the codes that there are, and an item's score is a sum of L of those
    products: rows of N items are never made.

    Parameters
    ----------
    token_ids : int [N, L]
        The rows of the embedding that each item is made of.
    projected : bool
        A matrix [H, H], at first the identity, that is learned: codes may then look otherwise as input than as output.
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
        """Of all items of an artifact, in the order of its table; `base` is what `extend` returned."""
        return cls(embedding, ids.vocabulary.token_ids(ids.codes, base), projected=projected)

    def rows(self) -> torch.Tensor:
        """[N, H]"""
        rows = self.embedding.weight[self.used][self.places].sum(1)
        return rows if self.projection is None else self.projection(rows)

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """[..., H] -> [..., N]"""
        if self.projection is not None:  # s . W r = (W' s) . r
            states = states @ self.projection.weight
        parts = functional.linear(states, self.embedding.weight[self.used])
        return reduce(torch.add, (parts[..., place] for place in self.places.unbind(1)))


class Ranked(NamedTuple):
    """The best k items of B prompts, best first; -1 and -inf behind the last where fewer are left."""

    items: torch.Tensor  # (B, k) int64
    scores: torch.Tensor  # (B, k) float32


class ItemHead(nn.Module):
    """Scores of all items from the state at the end of a prompt.

    Parameters
    ----------
    rows : TokenRows, CodeRows, or what has their methods
    bias : float [N], optional
        What each item's score starts with before anything is known of the user, such as the log of its popularity;
        learned on from there.
    scale : float
        The scores are multiplied with it, not the bias. Rows of one length leave large states to make sharp
        distributions; H**-0.5 suits rows that are as long as those of a random embedding of deviation 1.

    Raises
    ------
    ConfigError
        A bias of another shape, or one that is not finite; a scale that is no number above 0.
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
                raise ConfigError("bias: some is not finite. Of counts with zeros among them take log(count + 0.5).")
        self.rows, self.scale = rows, scale
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, states: torch.Tensor, *, seen: torch.Tensor | None = None) -> torch.Tensor:
        """float32 logits [B, N] of states [B, H]; -inf for the items in `seen` int64 [B, S]."""
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
        """Mean of the negative multinomial log-likelihood of `targets` int64 [B, M], -1 for none; a scalar.

        Every user weighs the same, or with `each="interaction"` every target, as in the sum that CLLM4Rec takes. Items
        that are seen and not targets do not compete. Without any target it is zero.
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
        """The best k of all items but those in `seen` int64 [B, S]; k may be up to N. InputError where one is NaN."""
        if type(k) is not int or not 1 <= k <= self.rows.n_items:
            raise ConfigError(f"k={k!r} should be 1 to {self.rows.n_items}, the number of items.")
        scores, items = self(states, seen=seen).topk(k, dim=-1)
        if scores.isnan().any():  # it counts as the largest, so the best k show whether there is any
            raise InputError("states or rows hold NaN: nothing can be ranked. Did the training diverge?")
        return Ranked(torch.where(scores > -torch.inf, items, NO_ITEM), scores)

    def _marked(self, numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """bool [B, N]: whether an item is among numbers [B, M]; InputError for numbers that are no items."""
        n_items = self.rows.n_items
        if numbers.ndim != 2 or len(numbers) != len(like) or numbers.dtype != torch.int64:
            raise InputError(
                f"item numbers: shape={tuple(numbers.shape)} dtype={numbers.dtype} should be int64 [{len(like)}, M], a "
                "row for each prompt, -1 for none."
            )
        wrong = numbers[(numbers < NO_ITEM) | (numbers >= n_items)]
        if len(wrong):
            raise InputError(f"item numbers: {int(wrong[0])} should be in 0..{n_items - 1}, or -1 for none.")
        marked = torch.zeros((len(like), n_items + 1), dtype=torch.bool, device=like.device)
        numbers = numbers.to(like.device)
        marked.scatter_(1, torch.where(numbers == NO_ITEM, n_items, numbers), True)  # -1: behind the last item
        return marked[:, :-1]


def last_states(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The states [B, H] at the last token of each prompt, of states [B, T, H]; padding may be on either side.

    Raises InputError for a prompt that is nothing but padding.
    """
    mask = attention_mask.bool()
    if not mask.any(1).all():
        raise InputError("attention_mask: a prompt holds no token, so it has no last state. Leave it out.")
    ends = (mask.shape[1] - 1 - mask.flip(1).int().argmax(1)).to(states.device)
    return states[torch.arange(len(states), device=states.device), ends]


def scored_loss(
    states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, score_space: torch.Tensor
) -> torch.Tensor:
    """Mean cross entropy of the next token where only token ids in a document's score space compete; a scalar.

    Parameters
    ----------
    states : float [B, T, H]
        The last hidden states.
    weight : float [V, H]
        The rows of the output head, or of the embedding that it is tied to.
    labels : int64 [B, T]
        Token ids, -100 where there is no loss; not shifted.
    score_space : int64 [B, 2]
        First and behind the last token id that compete, of each document.

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
    """How far two tables of the same entities are apart, to be added to the loss of the one that is learned; a scalar.

    The mean squared distance of the rows that a batch is about. The anchor is held still: take turns. Each entity
    counts once; with `each="position"` it is the sum over all positions, as in CLLM4Rec's code, which grows with the
    length of the documents.

    Parameters
    ----------
    rows, anchor : float [V, H]
        The table that is learned, and the other one: say of documents of interactions, and of reviews.
    numbers : int64, any shape
        The rows that the batch is about; negative ones do not count.

    Raises
    ------
    ConfigError
        Tables of unequal shapes.
    """
    if rows.shape != anchor.shape:
        raise ConfigError(f"rows {tuple(rows.shape)} and anchor {tuple(anchor.shape)} should have one shape.")
    if each not in ("entity", "position"):
        raise ConfigError(f"each={each!r} should be entity or position.")
    numbers = numbers[numbers >= 0].to(rows.device)
    if each == "entity":
        numbers = numbers.unique()
    squares = (rows[numbers] - anchor.detach()[numbers]).square().sum()
    return squares if each == "position" else squares / max(len(numbers), 1)
