"""One token for every user and every item: `user_17`, `item_4`, numbers and token ids told apart by arithmetic alone.

    names = EntityNames(n_users=610, n_items=9742)
    entities = add_entities(tokenizer, names)        # two blocks of ordinary added tokens, users first
    entities.item_ids([4]), entities.find(token_ids)
    extend(tokenizer, model, names)                  # or tokens and rows of a model at once

The numbers are rows of your own tables of users and items, such as those of `read_interactions`. No table is kept, so a
million tokens cost no more than their names. It is the vocabulary of CLLM4Rec (arXiv 2311.01343).

A name without an end, like `item_4`, is also the beginning of `item_42`, and of `item_99999` where there is no such
item. A tokenizer takes the longest name that it has, anywhere in a text, inside words too. So whatever people wrote
goes through `escape` before it stands beside such tokens: a backslash keeps it from being read as one of them.

Not here: rows of a model (`tokenizer_exports/models/in_memory.py`), semantic IDs, which need few tokens
(`semid/tokens/vocabulary.py`). U users, I items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.models.add_tokens import add_tokens
from semid.tokens.block import find_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EntityNames", "EntityTokens", "FoundEntity", "add_entities", "find_entities"]

Kind = Literal["user", "item"]
MOST = 1 << 30  # users or items; token ids are int32 in most places


class FoundEntity(NamedTuple):
    """The token at `place` of a sequence of token ids."""

    place: int
    kind: Kind
    number: int


@dataclass(frozen=True)
class EntityNames:
    """The names of U users and I items; as a vocabulary, a level of users and one of items.

    Parameters
    ----------
    n_users, n_items : int
        Either may be 0.
    user_name, item_name : str
        Patterns with one {} for the number: `user_{}`, or with an end, `<user_{}>`.

    Raises
    ------
    ConfigError
        A count out of range; a pattern that is none, or two that could be taken for each other.

    >>> names = EntityNames(3, 100)
    >>> names.token("item", 4), names.escape("I prefer item_4 to user_"), len(names)
    ('item_4', 'I prefer item\\\\_4 to user\\\\_', 103)
    >>> names.unescape(names.escape("item_4"))
    'item_4'
    """

    OTHER_NAMES = "Take other ones: EntityNames(..., user_name='my_user_{}', item_name='my_item_{}')."  # for errors

    n_users: int
    n_items: int
    user_name: str = "user_{}"
    item_name: str = "item_{}"

    def __post_init__(self) -> None:
        for name in ("n_users", "n_items"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count <= MOST:
                raise ConfigError(f"{name}={count!r} should be a whole number from 0 to {MOST:,}.")
            object.__setattr__(self, name, int(count))  # so that `to_dict` is plain data
        if not self.n_users + self.n_items:
            raise ConfigError("n_users=0, n_items=0: there should be one user or item at least.")
        _check_name("user_name", self.user_name)
        _check_name("item_name", self.item_name)
        _check_apart(self.user_name, self.item_name)

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> EntityNames:
        """The inverse of `to_dict`; ConfigError for a missing or unknown key."""
        wanted = set(cls.__dataclass_fields__)
        if not isinstance(record, Mapping) or set(record) != wanted:
            raise ConfigError(f"names={record!r:.200} should have the keys {', '.join(sorted(wanted))}.")
        return cls(**record)

    def to_dict(self) -> dict[str, int | str]:
        """Plain data for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    # ---- the block of tokens, as `add_tokens` and `extend` ask for it

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that there are, in the order of their blocks."""
        return tuple(kind for kind in ("user", "item") if self.count(kind))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many there are of each of `kinds`."""
        return tuple(self.count(kind) for kind in self.kinds)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [len(kinds) + 1]: where each kind's block begins, and where the last one ends."""
        return np.array([0, *accumulate(self.sizes)], np.int64)

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens in order: users, then items."""
        return [token for kind in self.kinds for token in map(self.name(kind).format, range(self.count(kind)))]

    def text(self, codes: Sequence[int]) -> str:
        """One of each kind, written one after the other."""
        return "".join(self.token(kind, number) for kind, number in zip(self.kinds, codes, strict=True))

    def token_ids(self, codes: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        """int64 [n, len(kinds)]: the ids of numbers of each kind, where the first token has the id `base`."""
        columns = np.atleast_2d(np.asarray(codes, np.int64)).T
        checked = [self.checked(kind, column) for kind, column in zip(self.kinds, columns, strict=True)]
        return base + self.offsets[:-1] + np.stack(checked, axis=1)

    # What `extend` asks of IDs. There are no codebooks and no texts: rows start at random.
    is_fitted = False
    texts = None

    @property
    def vocabulary(self) -> EntityNames:
        """Itself, where `extend` looks for it."""
        return self

    # ---- one kind

    def count(self, kind: Kind) -> int:
        """U or I."""
        return self.n_users if kind == "user" else self.n_items

    def name(self, kind: Kind) -> str:
        """The pattern of a kind."""
        return self.user_name if kind == "user" else self.item_name

    def token(self, kind: Kind, number: int) -> str:
        """One token; InputError if there is no such user or item."""
        return self.name(kind).format(int(self.checked(kind, [number])[0]))

    def checked(self, kind: Kind, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The numbers as int64, of any shape; InputError names the first that is out of range."""
        found = np.asarray(numbers)
        if found.size and found.dtype.kind not in "iu":
            raise InputError(f"{kind}s: dtype={found.dtype} should be whole numbers, rows of your table of {kind}s.")
        wrong = np.argwhere((found < 0) | (found >= self.count(kind)))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            where = f"[{', '.join(map(str, place))}]" if place else ""
            has = f"in 0..{self.count(kind) - 1}" if self.count(kind) else f"absent: there are no {kind}s"
            raise InputError(f"{kind}s{where}={found[place]} should be {has}. Newcomers need tokens of their own.")
        return found.astype(np.int64)

    # ---- free text

    def escape(self, text: str) -> str:
        """The text with a backslash inside whatever could be read as one of the tokens; `unescape` takes it out.

        That is every beginning of a name before a digit or at the end of the text, in range or not. Further
        backslashes there are kept apart, so that any text comes back as it was.
        """
        return self._escapes[0].sub(r"\1\\", text)

    def unescape(self, text: str) -> str:
        """The inverse of `escape`."""
        return self._escapes[1].sub(r"\1", text)

    @cached_property
    def _escapes(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        starts = [self.name(kind).partition("{}")[0] for kind in ("user", "item")]
        places = [(re.escape(start[:-1]), re.escape(start[-1]) + r"(?:[0-9]|\Z)") for start in starts]
        either = [f"(?:{'|'.join(f'(?<={head})' for head, _ in places)})", rf"(?={'|'.join(end for _, end in places)})"]
        return re.compile(rf"{either[0]}(\\*){either[1]}"), re.compile(rf"{either[0]}\\(\\*){either[1]}")


@dataclass(frozen=True)
class EntityTokens:
    """Names inside one tokenizer; made by `add_entities` and `find_entities`."""

    names: EntityNames
    base: int  # token id of the first user, or of the first item if there are no users

    @property
    def users(self) -> range:
        """The token ids of all users."""
        return range(self.base, self.base + self.names.n_users)

    @property
    def items(self) -> range:
        """The token ids of all items."""
        return range(self.users.stop, self.users.stop + self.names.n_items)

    @property
    def words(self) -> range:
        """The token ids before either: what the tokenizer had."""
        return range(self.base)

    def ids(self, kind: Kind) -> range:
        """The token ids of one kind."""
        return self.users if kind == "user" else self.items

    def user_ids(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Token ids of users, in the shape of the numbers; InputError for one out of range."""
        return self.users.start + self.names.checked("user", numbers)

    def item_ids(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Token ids of items, in the shape of the numbers; InputError for one out of range."""
        return self.items.start + self.names.checked("item", numbers)

    def item_numbers(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The inverse of `item_ids`; -1 where a token id is no item's."""
        return _numbers(token_ids, self.items)

    def user_numbers(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The inverse of `user_ids`; -1 where a token id is no user's."""
        return _numbers(token_ids, self.users)

    def find(self, token_ids: npt.ArrayLike) -> list[FoundEntity]:
        """All users and items of a sequence of token ids [T], in order; InputError for a batch of sequences."""
        if np.ndim(token_ids) != 1:
            raise InputError(f"token_ids: shape={np.shape(token_ids)} should be (T,). Give one sequence at a time.")
        found = [
            FoundEntity(place, kind, number)
            for kind in self.names.kinds
            for place, number in enumerate(_numbers(token_ids, self.ids(kind)).tolist())
            if number >= 0
        ]
        return sorted(found)


def add_entities(tokenizer: PreTrainedTokenizerBase, names: EntityNames) -> EntityTokens:
    """Add all tokens to a tokenizer, in place; nothing changes if they are there.

    Raises what `add_tokens` raises.

    A million take 13 s and 410 MB. A tokenizer saved with so many takes minutes to load: keep the one without them,
    and add them again.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "met": 1}, unk_token="[UNK]"))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    >>> entities = add_entities(tokenizer, EntityNames(2, 50))
    >>> entities.find(tokenizer("user_1met item_42")["input_ids"])
    [FoundEntity(place=0, kind='user', number=1), FoundEntity(place=2, kind='item', number=42)]
    """
    return EntityTokens(names, add_tokens(tokenizer, names))


def find_entities(tokenizer: PreTrainedTokenizerBase, names: EntityNames) -> EntityTokens:
    """Where the tokens are in a tokenizer that has them; ConfigError if it has not."""
    return EntityTokens(names, find_base(names, tokenizer))


def _numbers(token_ids: npt.ArrayLike, block: range) -> npt.NDArray[np.int64]:
    found = np.asarray(token_ids)
    if found.size and found.dtype.kind not in "iu":
        raise InputError(f"token_ids: dtype={found.dtype} should be whole numbers, as a tokenizer gives them.")
    numbers = found.astype(np.int64) - block.start
    return np.where((numbers >= 0) & (numbers < len(block)), numbers, -1)


def _check_name(field: str, name: object) -> None:
    start, _, end = name.partition("{}") if isinstance(name, str) else ("", "", "")
    reason = ""
    if not isinstance(name, str) or name.count("{}") != 1 or re.search(r"[{}]", start + end):
        reason = "should be a pattern with one {} for the number"
    elif re.search(r"[\s\\]", name):
        reason = "should hold no blank and no backslash"
    elif len(start) < 2 or start[-1].isdigit() or end[:1].isdigit():
        reason = "should begin with two characters or more, and the number should stand between characters, not digits"
    if reason:
        raise ConfigError(f"{field}={name!r} {reason}. For example item_{{}} or <item_{{}}>.")


def _check_apart(user_name: str, item_name: str) -> None:
    """Refuse patterns where one's tokens can hold the other's beginning, or run on into it."""
    reason = "are the same" if user_name == item_name else ""
    for name in (user_name, item_name):
        end = name.partition("{}")[2]
        for other in (user_name, item_name):
            start = other.partition("{}")[0]
            if name != other and start in name.format(0):
                reason = f"could be taken for each other: tokens of {name!r} hold {start!r}"
            elif any(start.startswith(end[-length:]) for length in range(1, len(end) + 1)):
                reason = f"could run into each other: tokens of {name!r} end with what others begin with"
    if reason:
        raise ConfigError(
            f"user_name={user_name!r}, item_name={item_name!r} {reason}. Take for example user_{{}} and item_{{}}."
        )
