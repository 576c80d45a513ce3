"""Make documents of soft and hard tokens, to train a model with a token for every user and item.

    prompts = SoftHardPrompts(tokenizer, entities, seed=0)
    prompts.interactions(17, [4, 8, 15])       # "user_17 has chosen" -> item_4item_8item_15
    prompts.review(17, 4, "Far too loud.")     # "user_17 writes about item_4:" -> " Far too loud."
    prompts.content(4, "Toy Story (1995)")     # "item_4 can be described as" -> " Toy Story (1995)"
    prompts.recommendation(17, [4, 8, 15])     # "user_17 has chosen item_15item_4 and will choose" -> {item_8}
    collate([...], pad_id)                     # tensors for a Trainer with remove_unused_columns=False

These are the documents of CLLM4Rec (arXiv 2311.01343): hard tokens are words, soft tokens are users and items. Every
document is a plain dict:

    task                       which of the four it is
    input_ids                  prompt, then what follows it
    loss_mask                  1 where the token is predicted, 0 in the prompt
    score_start, score_stop    the token ids that compete there: all items, or all words; never both
    targets, seen              of a recommendation: items to rank high, and items of the prompt, which do not compete

A recommendation is not generated token by token: the state at its last token ranks all items at once (`item_head.py`).
A share of the distinct items of a history is hidden and becomes the targets; hidden items occur nowhere in the prompt.
Order and choice depend on the seed, the epoch and the user only: each epoch hides other items, and a second run the
same ones.

Free text is escaped, so that a review cannot contain the token of an item, and special tokens in it are read as plain
characters, so that a review cannot end a document. Prompts are tokenized once; soft tokens are inserted between the
pieces as token ids, as a tokenizer does that splits text at added tokens.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from semid.data.values import has_surrogate
from semid.errors import ConfigError, InputError
from semid.runtime.checks import check_choice
from semid.runtime.keyed_random import chance
from semid.tokenizer_exports.entities.names import EntityTokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["SoftHardPrompts", "Targets", "Wording", "collate"]

Targets = Literal["hidden", "all"]
Document = dict[str, Any]
NO_LABEL, NO_ITEM = -100, -1
NEEDED = {"interactions": "", "review": "item", "content": "item", "recommendation": "history"}  # fields of prompts


@dataclass(frozen=True)
class Wording:
    """The prompts, with {user}, {item} and {history} for soft tokens; only {user} is optional."""

    interactions: str = "{user} has chosen"
    review: str = "{user} writes about {item}:"
    content: str = "{item} can be described as"
    recommendation: str = "{user} has chosen {history} and will choose"

    def __post_init__(self) -> None:
        for task, needed in NEEDED.items():
            allowed = {needed} - {""} | ({"user"} if task != "content" else set())
            text = getattr(self, task)
            try:
                fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
            except (ValueError, TypeError) as error:
                raise ConfigError(f"{task}={text!r} is not a pattern: {error}.") from None
            if len(set(fields)) < len(fields) or not set(fields) <= allowed or (needed and needed not in fields):
                wanted = " and ".join(f"{{{field}}}" for field in sorted(allowed))
                raise ConfigError(f"{task}={text!r} should contain {wanted}, each once; only {{user}} is optional.")


class SoftHardPrompts:
    """Makes training documents.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer that `add_entities` was given.
    entities : EntityTokens
        What `add_entities` returned.
    wording : Wording, optional
        The prompts.
    shuffle : bool
        Put the items of a history in random order (the default); otherwise in the given order, oldest first.
    hidden : float
        Share of the distinct items of a history that a recommendation hides, at least one item; 0.2 by default.
    targets : "hidden" or "all"
        What a recommendation predicts: the hidden items (the default), or all of the user's, as CLLM4Rec's code does.
    max_items, max_words : int
        Most items of a history and most tokens of a text in a document, 256 by default. The last items are kept, or
        with `shuffle` random ones; the first tokens.
    seed : int
        Of order and choice.

    Raises
    ------
    ConfigError
        A choice out of range; a prompt that contains the name of a user or item.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        entities: EntityTokens,
        *,
        wording: Wording | None = None,
        shuffle: bool = True,
        hidden: float = 0.2,
        targets: Targets = "hidden",
        max_items: int = 256,
        max_words: int = 256,
        seed: int = 0,
    ) -> None:
        if not 0 < hidden < 1:
            raise ConfigError(f"hidden={hidden!r} should be a share between 0 and 1, such as 0.2.")
        check_choice("targets", targets, get_args(Targets))
        for name, count in (("max_items", max_items), ("max_words", max_words)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ConfigError(f"{name}={count!r} should be an integer of 1 or more.")
        self.tokenizer, self.entities, self.seed = tokenizer, entities, seed
        self.shuffle, self.hidden, self.targets = shuffle, hidden, targets
        self.max_items, self.max_words = max_items, max_words
        self._start = _special_start(tokenizer)
        wording = wording or Wording()
        self._pieces = {task: self._cut(task, getattr(wording, task)) for task in Wording.__dataclass_fields__}

    # ---- the four kinds of documents

    def interactions(self, user: int | None, items: Sequence[int], *, epoch: int = 0) -> Document:
        """Return the items of a user, each predicted from those before it, among items only."""
        order = self._ordered(self._history(items), "interactions", user, epoch)
        main = self.entities.item_ids(order).tolist()
        return self._document("interactions", self._prompt("interactions", user), main, self.entities.items)

    def review(self, user: int | None, item: int, text: str) -> Document:
        """Return a user's text about an item, predicted among words only."""
        prompt = self._prompt("review", user, item=item)
        return self._document("review", prompt, self._words(text), self.entities.words)

    def content(self, item: int, text: str) -> Document:
        """Return an item's own text, predicted among words only."""
        prompt = self._prompt("content", None, item=item)
        return self._document("content", prompt, self._words(text), self.entities.words)

    def recommendation(self, user: int | None, items: Sequence[int], *, epoch: int = 0) -> Document:
        """Return a history with some items hidden, which are predicted among all items."""
        known = self._history(items)
        if not known:
            raise InputError(
                f"items: the history of user {user} is empty; there is nothing to hide. Leave the user out."
            )
        count = max(1, round(self.hidden * len(known)))
        hidden = set(chance(self.seed, "hidden", epoch, user).sample(known, count))
        shown = [item for item in known if item not in hidden]
        targets = sorted(hidden if self.targets == "hidden" else known)
        return self._asked(user, shown, epoch) | {"targets": targets, "seen": [] if self.targets == "all" else shown}

    def question(self, user: int | None, items: Sequence[int]) -> Document:
        """Return a whole history for a trained model: nothing is hidden, and the items in it do not compete."""
        return self._asked(user, self._history(items), 0)

    # ---- their parts

    def _history(self, items: npt.ArrayLike) -> list[int]:
        """Return each item once, at its last position, so that a hidden item occurs nowhere else.

        Numbers out of range are refused here; otherwise one would pass in the epochs that hide it.
        """
        numbers = self.entities.names.checked("item", items)
        if numbers.ndim != 1:
            raise InputError(f"items: shape={numbers.shape} should be (n,), the items of one user, oldest first.")
        return list(dict.fromkeys(numbers[::-1].tolist()))[::-1]

    def _asked(self, user: int | None, shown: list[int], epoch: int) -> Document:
        order = self._ordered(shown, "recommendation", user, epoch)
        prompt = self._prompt("recommendation", user, history=order)
        return self._document("recommendation", prompt, [], self.entities.items) | {"seen": shown}

    def _document(self, task: str, prompt: list[int], main: list[int], scored: range) -> Document:
        return {
            "task": task,
            "input_ids": prompt + main,
            "loss_mask": [0] * len(prompt) + [1] * len(main),
            "score_start": scored.start,
            "score_stop": scored.stop,
            "targets": [],
            "seen": [],
        }

    def _ordered(self, items: list[int], task: str, user: int | None, epoch: int) -> list[int]:
        """Return at most `max_items` of the items, in the order of the prompt."""
        if not self.shuffle:
            return items[-self.max_items :]
        return chance(self.seed, "order", task, epoch, user).sample(items, min(len(items), self.max_items))

    def _prompt(
        self, task: str, user: int | None, *, item: int | None = None, history: Sequence[int] = ()
    ) -> list[int]:
        """Return the token ids of a prompt with its users and items."""
        token_ids = list(self._start)
        for piece, field in self._pieces[task]:
            token_ids += piece
            if field == "history":
                token_ids += self.entities.item_ids(history).tolist()
            elif field == "item":
                if item is None:
                    raise InputError(f"item=None, but the prompt of {task} names an item. Give its number.")
                token_ids.append(_one("item", self.entities.item_ids(item)))
            elif field == "user":
                if user is None:
                    raise InputError(f"user=None, but the prompt of {task} names one. Give one, or another wording.")
                token_ids.append(_one("user", self.entities.user_ids(user)))
        return token_ids

    def _words(self, text: str) -> list[int]:
        """Return the token ids of free text, escaped; with the end token if the text was not cut."""
        if not isinstance(text, str) or has_surrogate(text):
            fault = "has a lone surrogate" if isinstance(text, str) else f"is of type {type(text).__name__}"
            raise InputError(f"text {fault}; expected a string of valid Unicode. Leave out entities without a text.")
        token_ids = self._read(" " + self.entities.names.escape(text), free=True)
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        return token_ids[: self.max_words] if len(token_ids) > self.max_words else token_ids + end

    def _read(self, text: str, *, free: bool) -> list[int]:
        """Return the token ids of a text; in free text, special tokens are plain characters."""
        plain = {"add_special_tokens": False, "split_special_tokens": free, "verbose": False}
        return list(self.tokenizer(text, **plain)["input_ids"]) if text else []

    def _cut(self, task: str, text: str) -> list[tuple[list[int], str | None]]:
        """Return the pieces of a prompt as token ids, each with the field after it."""
        parts = string.Formatter().parse(text)
        pieces = [(self._read(literal, free=False), field) for literal, field, _, _ in parts]
        if any(self.entities.find(piece) for piece, _ in pieces):
            raise ConfigError(f"{task}={text!r} contains the name of a user or item. Write {{user}} or {{item}}.")
        return pieces


def _one(what: str, token_id: npt.NDArray[np.int64]) -> int:
    if token_id.ndim:
        raise InputError(f"{what}: shape={token_id.shape} should be one number. Make one document for each.")
    return int(token_id)


def _special_start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    whole, plain = tokenizer("x")["input_ids"], tokenizer("x", add_special_tokens=False)["input_ids"]
    return list(whole[: whole.index(plain[0])]) if plain and plain[0] in whole else []


def collate(documents: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return documents as a batch, padded on the right.

    Parameters
    ----------
    documents : B documents
        What the methods of `SoftHardPrompts` return.
    pad_id : int
        Token id that `input_ids` are padded with.

    Returns
    -------
    dict of int64 tensors
        `input_ids`, `attention_mask` and `labels` [B, T] (-100 where there is no loss; not shifted, as transformers
        expects), `score_space` [B, 2], `targets` [B, M] and `seen` [B, S], with -1 for none.

    >>> one = {"input_ids": [7, 8, 9], "loss_mask": [0, 1, 1], "score_start": 8, "score_stop": 10, "targets": [],
    ...     "seen": []}
    >>> batch = collate([one, one | {"input_ids": [7], "loss_mask": [0], "targets": [1]}], pad_id=0)
    >>> batch["labels"].tolist(), batch["targets"].tolist()
    ([[-100, 8, 9], [-100, -100, -100]], [[-1], [1]])
    """
    import torch

    if not documents:
        raise InputError("documents: there are none; expected at least one.")

    def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        width = max(map(len, rows), default=0)
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], dtype=torch.int64)

    labels = [
        [token_id if scored else NO_LABEL for token_id, scored in zip(one["input_ids"], one["loss_mask"], strict=True)]
        for one in documents
    ]
    return {
        "input_ids": padded([one["input_ids"] for one in documents], pad_id),
        "attention_mask": padded([[1] * len(one["input_ids"]) for one in documents], 0),
        "labels": padded(labels, NO_LABEL),
        "score_space": torch.tensor([[one["score_start"], one["score_stop"]] for one in documents]),
        "targets": padded([one["targets"] for one in documents], NO_ITEM),
        "seen": padded([one["seen"] for one in documents], NO_ITEM),
    }
