"""One token for every user and every item, such as `user_17` and `item_4`; token id = block start + number.

    names = EntityNames(n_users=610, n_items=9742)
    entities = add_entities(tokenizer, names)        # two blocks of ordinary added tokens, users first
    entities.item_ids([4]), entities.find(token_ids)
    extend(tokenizer, model, names)                  # or tokens and rows of a model at once

The numbers are rows of your own tables of users and items, such as those of `read_interactions`. No table is kept, so a
million tokens cost no more than their names. It is the vocabulary of CLLM4Rec (arXiv 2311.01343).

A name without an end, like `item_4`, is also the beginning of `item_42`, and of `item_99999` where there is no such
item. A tokenizer takes the longest name that it knows, anywhere in a text, inside words too. So free text goes through
`escape` before it is mixed with such tokens: a backslash keeps it from being read as one of them.

Not here: rows of a model (`tokenizer_exports/models/in_memory.py`), semantic IDs, which need few tokens
(`semid/tokens/vocabulary.py`). U users, I items.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from semid.errors import ConfigError, InputError
from semid.tokenizer_exports.models.add_tokens import add_tokens
from semid.tokens.block import find_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["EntityNames", "EntityTokens", "FoundEntity", "Kind", "add_entities", "find_entities"]

Kind = Literal["user", "item"]
KINDS: tuple[Kind, ...] = ("user", "item")
MAX_COUNT = 1 << 30  # users or items; token ids are int32 in most places


class NamesRecord(TypedDict):
    """`EntityNames` as plain data."""

    n_users: int
    n_items: int
    user_name: str
    item_name: str


class FoundEntity(NamedTuple):
    """The token at `place` of a sequence of token ids."""

    place: int
    kind: Kind
    number: int


@dataclass(frozen=True)
class EntityNames:
    """The names of U users and I items; as a vocabulary, one level of users and one of items.

    Parameters
    ----------
    n_users, n_items : int
        0 to 2^30 each, not both 0.
    user_name, item_name : str
        Patterns with one {} for the number: `user_{}`, or with an end, `<user_{}>`.

    Raises
    ------
    ConfigError
        A count out of range; a string that is not a pattern; two patterns that could be mistaken for each other.

    >>> names = EntityNames(3, 100)
    >>> names.token("item", 4), names.escape("I prefer item_4 to user_"), len(names)
    ('item_4', 'I prefer item\\\\_4 to user\\\\_', 103)
    >>> names.unescape(names.escape("item_4"))
    'item_4'
    """

    OTHER_NAMES = "Use other names: EntityNames(..., user_name='my_user_{}', item_name='my_item_{}')."  # for errors

    n_users: int
    n_items: int
    user_name: str = "user_{}"
    item_name: str = "item_{}"

    def __post_init__(self) -> None:
        for name in ("n_users", "n_items"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count <= MAX_COUNT:
                raise ConfigError(f"{name}={count!r} should be an integer from 0 to {MAX_COUNT:,}.")
            object.__setattr__(self, name, int(count))  # so that `to_dict` is plain data
        if not self.n_users + self.n_items:
            raise ConfigError("n_users=0, n_items=0: expected at least one user or item.")
        _check_name("user_name", self.user_name)
        _check_name("item_name", self.item_name)
        _check_distinguishable(self.user_name, self.item_name)

    @classmethod
    def from_dict(cls, record: NamesRecord) -> EntityNames:
        """Return the names that `to_dict` wrote; ConfigError for a missing or unknown key."""
        wanted = set(cls.__dataclass_fields__)
        if not isinstance(record, dict) or set(record) != wanted:
            raise ConfigError(f"names={record!r:.200} should have the keys {', '.join(sorted(wanted))}.")
        return cls(**record)

    def to_dict(self) -> NamesRecord:
        """Return plain data for JSON."""
        return {
            "n_users": self.n_users, "n_items": self.n_items, "user_name": self.user_name, "item_name": self.item_name,
        }  # fmt: skip

    # ---- the block of tokens (`TokenBlock`)

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds with any members, in the order of their blocks."""
        return tuple(kind for kind in KINDS if self.count(kind))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of members of each of `kinds`."""
        return tuple(self.count(kind) for kind in self.kinds)

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 [len(kinds) + 1]: where the block of each kind begins, and where the last one ends."""
        return np.array([0, *accumulate(self.sizes)], np.int64)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return sum(self.sizes)

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens in order: users, then items."""
        return [token for kind in self.kinds for token in map(self.name(kind).format, range(self.count(kind)))]

    def text(self, codes: Sequence[int]) -> str:
        """Return one token of each kind, one after the other."""
        return "".join(self.token(kind, number) for kind, number in zip(self.kinds, codes, strict=True))

    def token_ids(self, codes: npt.ArrayLike, base: int) -> npt.NDArray[np.int64]:
        """Return the token ids of numbers [n, len(kinds)], int64, where the first token has the id `base`."""
        columns = np.atleast_2d(np.asarray(codes, np.int64)).T
        checked = [self.checked(kind, column) for kind, column in zip(self.kinds, columns, strict=True)]
        return base + self.offsets[:-1] + np.stack(checked, axis=1)

    # ---- what `extend` reads (`TokenSource`): no vectors and no texts, so rows start at random

    kind = "entity names"
    ledger = None
    level_vectors = None

    @property
    def vocabulary(self) -> EntityNames:
        """The names themselves."""
        return self

    # ---- one kind

    def count(self, kind: Kind) -> int:
        """U or I."""
        return self.n_users if kind == "user" else self.n_items

    def name(self, kind: Kind) -> str:
        """Return the pattern of a kind."""
        return self.user_name if kind == "user" else self.item_name

    def token(self, kind: Kind, number: int) -> str:
        """Return the token of a number; InputError if there is no such user or item."""
        return self.name(kind).format(int(self.checked(kind, [number])[0]))

    def checked(self, kind: Kind, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return numbers of any shape as int64; InputError names the first that is out of range."""
        found = np.asarray(numbers)
        if found.size and found.dtype.kind not in "iu":
            raise InputError(f"{kind}s: dtype={found.dtype} should be integers, rows of your table of {kind}s.")
        wrong = np.argwhere((found < 0) | (found >= self.count(kind)))
        if len(wrong):
            place = tuple(wrong[0].tolist())
            where = f"[{', '.join(map(str, place))}]" if place else ""
            has = f"in 0..{self.count(kind) - 1}" if self.count(kind) else f"absent: there are no {kind}s"
            raise InputError(f"{kind}s{where}={found[place]} should be {has}. New {kind}s need tokens of their own.")
        return found.astype(np.int64)

    # ---- free text

    def escape(self, text: str) -> str:
        """Return the text with a backslash inside everything that could be read as one of the tokens.

        That is the start of a name before a digit or at the end of the text, whether or not the number is in range.
        Backslashes that are there already are doubled up, so `unescape` returns any text as it was.
        """
        return self._escapes[0].sub(r"\1\\", text)

    def unescape(self, text: str) -> str:
        """Return the text that `escape` was given."""
        return self._escapes[1].sub(r"\1", text)

    @cached_property
    def _escapes(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        starts = [self.name(kind).partition("{}")[0] for kind in KINDS]
        places = [(re.escape(start[:-1]), re.escape(start[-1]) + r"(?:[0-9]|\Z)") for start in starts]
        either = [f"(?:{'|'.join(f'(?<={head})' for head, _ in places)})", rf"(?={'|'.join(end for _, end in places)})"]
        return re.compile(rf"{either[0]}(\\*){either[1]}"), re.compile(rf"{either[0]}\\(\\*){either[1]}")


@dataclass(frozen=True)
class EntityTokens:
    """The token ids of names in one tokenizer; made by `add_entities` and `find_entities`."""

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
        """The token ids before both: what the tokenizer had."""
        return range(self.base)

    def ids(self, kind: Kind) -> range:
        """Return the token ids of one kind."""
        return self.users if kind == "user" else self.items

    def user_ids(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the token ids of users, in the shape of the numbers; InputError for one out of range."""
        return self.users.start + self.names.checked("user", numbers)

    def item_ids(self, numbers: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the token ids of items, in the shape of the numbers; InputError for one out of range."""
        return self.items.start + self.names.checked("item", numbers)

    def item_numbers(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the numbers of items, in the shape of the token ids; -1 where a token id is not an item's."""
        return _numbers(token_ids, self.items)

    def user_numbers(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the numbers of users, in the shape of the token ids; -1 where a token id is not a user's."""
        return _numbers(token_ids, self.users)

    def find(self, token_ids: npt.ArrayLike) -> list[FoundEntity]:
        """Return all users and items in a sequence of token ids [T], in order; InputError for a batch of sequences."""
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

    A million take 13 s and 410 MB. A tokenizer saved with so many takes minutes to load: keep the one without them,
    and add them again.

    Raises
    ------
    ConfigError
        As `semid.tokenizer_exports.models.add_tokens`.

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
    """Return where the tokens are in a tokenizer; ConfigError if it lacks them."""
    return EntityTokens(names, find_base(names, tokenizer))


def _numbers(token_ids: npt.ArrayLike, block: range) -> npt.NDArray[np.int64]:
    found = np.asarray(token_ids)
    if found.size and found.dtype.kind not in "iu":
        raise InputError(f"token_ids: dtype={found.dtype} should be integers, as a tokenizer returns them.")
    numbers = found.astype(np.int64) - block.start
    return np.where((numbers >= 0) & (numbers < len(block)), numbers, -1)


def _check_name(field: str, name: object) -> None:
    start, _, end = name.partition("{}") if isinstance(name, str) else ("", "", "")
    reason = ""
    if not isinstance(name, str) or name.count("{}") != 1 or re.search(r"[{}]", start + end):
        reason = "should be a pattern with one {} for the number"
    elif re.search(r"[\s\\]", name):
        reason = "should not contain blanks or backslashes"
    elif len(start) < 2 or start[-1].isdigit() or end[:1].isdigit():
        reason = "should begin with two or more characters, and have no digit next to the number"
    if reason:
        raise ConfigError(f"{field}={name!r} {reason}. For example item_{{}} or <item_{{}}>.")


def _check_distinguishable(user_name: str, item_name: str) -> None:
    """Refuse two patterns if a token of one can contain the start of the other, or run into it."""
    reason = "are the same" if user_name == item_name else ""
    for name in (user_name, item_name):
        end = name.partition("{}")[2]
        for other in (user_name, item_name):
            start = other.partition("{}")[0]
            if name != other and start in name.format(0):
                reason = f"could be mistaken for each other: tokens of {name!r} contain {start!r}"
            elif any(start.startswith(end[-length:]) for length in range(1, len(end) + 1)):
                reason = f"could run into each other: tokens of {name!r} end like others begin"
    if reason:
        raise ConfigError(
            f"user_name={user_name!r}, item_name={item_name!r} {reason}. Use for example user_{{}} and item_{{}}."
        )
