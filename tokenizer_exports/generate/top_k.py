"""`build_top_k`: a cache of recommendations, from any model that `generate_items` can run.

    histories -> prompts -> generate_items -> semid.artifact.top_k_cache

A prompt is worded by a template of `semid align`, the first for `next-item` that needs no user token, and goes through
the tokenizer's chat template if it has one; so it is what a model trained on such data knows. Other models want other
prompts: `prompt` makes them.

Not here: reading a cache (`semid/artifact/top_k_cache.py`). U users, k items each, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semid.artifact.store import check_output
from semid.artifact.top_k_cache import TopKCache, save_top_k
from semid.data.interactions import Interactions, read_interactions
from semid.errors import ConfigError, InputError
from semid.runtime.progress import bar
from semid.tokenizer import SemanticIDTokenizer
from semid.tokenizer_exports.alignment.split import live_rows
from semid.tokenizer_exports.alignment.templates import read_templates
from semid.trie.trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from semid.tokenizer_exports.generate.items import Generated

__all__ = ["build_top_k"]

Prompt = Callable[[str, Sequence[str]], str]


def build_top_k(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: SemanticIDTokenizer,
    interactions: Any,
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
    progress: bool = False,
) -> TopKCache:
    """Compute the best k items of every user, write them to a folder, and open it.

    Parameters
    ----------
    interactions
        As `semid.read_interactions` takes it; whoever met nothing that has an ID is left out.
    prompt
        From a user and the IDs of the latest items they met, oldest first, to the text that the model reads.
    unseen_only
        Never an item that the user has met; who leaves fewer than k gets those.
    reuse
        An open cache of the same artifact: users whose history has not changed keep their rows.
    force
        Replace the cache in an existing folder.

    Raises
    ------
    OutputExistsError
        The folder holds something.
    ConfigError
        `reuse` is of another artifact, or of another k; or as `generate_items`.
    InputError
        Wrong interactions, or none with an item that has an ID.
    """
    from semid.tokenizer_exports.generate.items import generate_items

    check_output(folder, force=force)
    fingerprint = ids.fingerprint
    if reuse is not None and (reuse.fingerprint, reuse.k) != (fingerprint, k):
        raise ConfigError(
            f"reuse: has k={reuse.k} and the IDs {reuse.fingerprint}, expected k={k} and {fingerprint}. Leave it out."
        )
    log = read_interactions(interactions)
    people = _People(log, live_rows(log, ids.ledger))
    users = [user for user in range(len(log)) if len(people.rows(user))]
    if not users:
        raise InputError(f"{log.source}: none of its items has a live ID in the artifact. Are the ids the same?")
    found = _Found(len(users), k, ids.vocabulary.n_levels)
    waiting = [place for place, user in enumerate(users) if not found.take(place, reuse, people, user)]
    if unseen_only:  # who has met everything has an empty row
        waiting = [place for place in waiting if len(set(people.rows(users[place]).tolist())) < ids.ledger.n_live]
    trie, make = Trie.from_tokenizer(ids, tokenizer), prompt or default_prompt(tokenizer)
    with bar("users", len(waiting), unit="user", shown=progress) as advance:
        for batch in _batches(waiting, batch_size):
            rows = [people.rows(users[place]) for place in batch]
            shown = [ids.vocabulary.texts(ids.ledger.codes_of(one[-max_history:])) for one in rows]
            texts = [make(log.users[users[place]], one) for place, one in zip(batch, shown, strict=True)]
            filters = [trie.filter(without=np.unique(one)) for one in rows] if unseen_only else None
            inputs = _tokenised(tokenizer, texts)
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
    """The prompts of `semid align`: a user's message in the tokenizer's chat template, or plain text without one."""
    templates = read_templates()
    template = next(one for one in templates.of("next-item") if "user" not in one.needs)
    chat = bool(getattr(tokenizer, "chat_template", None))

    def worded(_user: str, history: Sequence[str]) -> str:
        text, _ = templates.render(template, {"history": history, "item": ""})
        if not chat:
            return text
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)

    return worded


class _People:
    """What each user of a log met, as rows of live items."""

    def __init__(self, log: Interactions, rows: npt.NDArray[np.int64]) -> None:
        self.log, self._rows = log, rows

    def rows(self, user: int) -> npt.NDArray[np.int64]:
        rows = self._rows[self.log.offsets[user] : self.log.offsets[user + 1]]
        return rows[rows >= 0]


class _Found:
    """The arrays of a cache while they fill."""

    def __init__(self, n_users: int, k: int, n_levels: int) -> None:
        self.codes = np.zeros((n_users, k, n_levels), np.uint16)
        self.scores = np.full((n_users, k), -np.inf, np.float32)
        self.counts = np.zeros(n_users, np.uint32)

    def take(self, place: int, old: TopKCache | None, people: _People, user: int) -> bool:
        """A user's row from an older cache; False if that has none for what they have met by now."""
        kept = None if old is None else old.get(people.log.users[user], people.log.history(user))
        if kept is not None:
            self._put(place, kept.codes, kept.scores)
        return kept is not None

    def put(self, places: list[int], generated: Generated) -> None:
        """The rows of a batch."""
        for place, codes, scores in zip(places, generated.codes.numpy(), generated.scores.numpy(), strict=True):
            alive = scores > -np.inf
            self._put(place, codes[alive], scores[alive])

    def _put(self, place: int, codes: np.ndarray, scores: np.ndarray) -> None:
        count = len(scores)
        self.codes[place, :count], self.scores[place, :count], self.counts[place] = codes, scores, count


def _batches(entries: list, size: int) -> Iterator[list]:
    rest = iter(entries)
    while batch := list(islice(rest, size)):
        yield batch


def _tokenised(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Any:
    # A chat template writes the special tokens itself.
    special = not getattr(tokenizer, "chat_template", None)
    return tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=special)
