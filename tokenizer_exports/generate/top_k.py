"""build_top_k: precompute recommendations with any model that `generate_items` can run.

    histories -> prompts -> generate_items -> semid.artifact.top_k_cache

By default a prompt comes from a template of `semid align`, the first for `next-item` that needs no user token, and goes
through the tokenizer's chat template if there is one. That fits a model trained on such data; for other models, pass
`prompt`.

Not here: reading a cache (`semid/artifact/top_k_cache.py`). U users, k items each, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from semid.artifact.store import check_output
from semid.artifact.top_k_cache import TopKCache, save_top_k
from semid.data.interaction_reader import read_interactions
from semid.data.interactions import Interactions
from semid.errors import ConfigError, InputError
from semid.runtime.progress import bar
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.split import live_rows
from semid.tokenizer_exports.alignment.templates import read_templates
from semid.trie import Trie

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from semid.tokenizer_exports.generate.items import Generated

__all__ = ["build_top_k", "tokenized"]

Prompt = Callable[[str, Sequence[str]], str]


def build_top_k(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: SemanticIDTokenizer,
    interactions: object,
    folder: str | Path,
    *,
    k: int = 10,
    num_beams: int | None = None,
    batch_size: int = 16,
    max_history: int = 20,
    prompt: Prompt | None = None,
    unseen_only: bool = False,
    reuse: TopKCache | None = None,
    force: bool = False,
) -> TopKCache:
    """Compute the best k items for every user, write them to a folder, and open it.

    Parameters
    ----------
    model, tokenizer
        A language model that has the tokens of `ids`, and its tokenizer.
    ids
        The artifact.
    interactions
        Whatever `semid.read_interactions` takes. Users none of whose items has a live ID are left out.
    folder
        Where to write the cache.
    k
        Items per user. Default: 10.
    num_beams
        Beam width, as in `generate_items`.
    batch_size
        Users per call of the model. Default: 16.
    max_history
        The latest items of a user that go into the prompt. Default: 20.
    prompt
        A function from a user and the IDs of the latest items, oldest first, to the text that the model reads.
        Default: a template of `semid align`.
    unseen_only
        Leave out items that the user has met; a user with fewer than k others gets those. Default: False.
    reuse
        An open cache of the same artifact: users whose history has not changed keep their rows. Default: none.
    force
        Replace the cache in an existing folder. Default: False.

    Raises
    ------
    OutputExistsError
        The folder is not empty.
    ConfigError
        `reuse` belongs to another artifact or has another k; or as `generate_items`.
    InputError
        The interactions are malformed, or none of their items has a live ID.
    """
    from semid.tokenizer_exports.generate.items import generate_items

    check_output(folder, force=force)
    fingerprint = ids.fingerprint
    if reuse is not None and (reuse.fingerprint, reuse.k) != (fingerprint, k):
        raise ConfigError(
            f"reuse: has k={reuse.k} and the IDs {reuse.fingerprint}; expected k={k} and {fingerprint}. Leave it out."
        )
    log = read_interactions(interactions)
    histories = _Histories(log, live_rows(log, ids.ledger))
    users = [user for user in range(len(log)) if len(histories.rows(user))]
    if not users:
        raise InputError(f"{log.source}: none of its items has a live ID in the artifact. Are the ids the same?")
    found = _TopK(len(users), k, ids.vocabulary.n_levels)
    waiting = [place for place, user in enumerate(users) if not found.take(place, reuse, log, user)]
    if unseen_only:  # a user who has met every item keeps an empty row
        waiting = [place for place in waiting if len(set(histories.rows(users[place]).tolist())) < ids.ledger.n_live]
    trie, make = Trie.from_tokenizer(ids, tokenizer), prompt or default_prompt(tokenizer)
    with bar("users", len(waiting), unit="user") as advance:
        for batch in _batches(waiting, batch_size):
            rows = [histories.rows(users[place]) for place in batch]
            shown = [ids.vocabulary.texts(ids.ledger.codes_of(one[-max_history:])) for one in rows]
            texts = [make(log.users[users[place]], one) for place, one in zip(batch, shown, strict=True)]
            filters = [trie.filter(without=np.unique(one)) for one in rows] if unseen_only else None
            inputs = tokenized(tokenizer, texts)
            found.put(batch, generate_items(model, inputs, trie, num_return=k, num_beams=num_beams, filter=filters))
            advance(len(batch))
    save_top_k(
        folder,
        (log.users[user] for user in users),
        found.codes,
        found.scores,
        histories=(log.history(user) for user in users),
        fingerprint=fingerprint,
        counts=found.counts,
        force=force,
    )
    return TopKCache.open(folder, fingerprint)


def default_prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Return the prompts of `semid align`: a user message in the chat template, or plain text if there is none."""
    templates = read_templates()
    template = next(one for one in templates.of("next-item") if "user" not in one.needs)
    chat = bool(getattr(tokenizer, "chat_template", None))

    def render(_user: str, history: Sequence[str]) -> str:
        text, _ = templates.render(template, {"history": history, "item": ""})
        if not chat:
            return text
        message = [{"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

    return render


class _Histories:
    """The history of each user of a log, as rows of live items."""

    def __init__(self, log: Interactions, rows: npt.NDArray[np.int64]) -> None:
        self._offsets, self._rows = log.offsets, rows

    def rows(self, user: int) -> npt.NDArray[np.int64]:
        rows = self._rows[self._offsets[user] : self._offsets[user + 1]]
        return rows[rows >= 0]


class _TopK:
    """The arrays of a cache while they are filled."""

    def __init__(self, n_users: int, k: int, n_levels: int) -> None:
        self.codes = np.zeros((n_users, k, n_levels), np.uint16)
        self.scores = np.full((n_users, k), -np.inf, np.float32)
        self.counts = np.zeros(n_users, np.uint32)

    def take(self, place: int, old: TopKCache | None, log: Interactions, user: int) -> bool:
        """Copy a user's row from an older cache; return False if it has none for their present history."""
        kept = None if old is None else old.get(log.users[user], log.history(user))
        if kept is not None:
            self._put(place, kept.codes, kept.scores)
        return kept is not None

    def put(self, places: list[int], generated: Generated) -> None:
        """Store the rows of a batch."""
        for place, codes, scores in zip(places, generated.codes.numpy(), generated.scores.numpy(), strict=True):
            alive = scores > -np.inf
            self._put(place, codes[alive], scores[alive])

    def _put(self, place: int, codes: np.ndarray, scores: np.ndarray) -> None:
        count = len(scores)
        self.codes[place, :count], self.scores[place, :count], self.counts[place] = codes, scores, count


def _batches(entries: list[int], size: int) -> Iterator[list[int]]:
    rest = iter(entries)
    while batch := list(islice(rest, size)):
        yield batch


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> BatchEncoding:
    """Return prompts as token ids, padded on the left. A chat template has written the special tokens itself."""
    special = not getattr(tokenizer, "chat_template", None)
    return tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=special)
