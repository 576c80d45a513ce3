"""The block of tokens enters a Hugging Face tokenizer: once, in one piece, and as ordinary added tokens.

Ordinary means `special=False, normalized=False, lstrip=rstrip=single_word=False`: special tokens vanish under
`decode(skip_special_tokens=True)`, which servers use by default; normalized ones also match other spellings (BERT
lower-cases); stripping ones swallow the spaces around an item. What `add_tokens` of a tokenizer returns proves
nothing, so all is checked: before, that no token is there already; after, that the ids are one block.

Not here: where the block is (`semid/tokens/block.py`), the model's rows (`in_memory.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semid.errors import ConfigError
from semid.tokens.block import find_base
from semid.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["add_tokens", "highest_id"]

RIGHT_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")  # all of them False
HARM = {
    "special": "decoding with skip_special_tokens=True would erase the items",
    "normalized": "text in other spellings (upper case, other accents) would be read as items",
    "lstrip": "blanks before an item would be swallowed",
    "rstrip": "blanks after an item would be swallowed",
    "single_word": "items written without blanks between them would not be read",
}


def add_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> int:
    """Add all tokens of the vocabulary, in place; returns the token id of the first code.

    The block is `range(base, base + len(vocabulary))` in the order of `vocabulary.tokens`. If the tokenizer has
    exactly this block already, nothing changes. 100,000 tokens take about a second.

    Raises
    ------
    ConfigError
        Some of the names are in the tokenizer's vocabulary (named); the whole block is there, but not in one piece
        or with flags that would spoil items; the tokenizer gives out ids that are taken, or does not read the
        tokens it was given, or writes others: byte-level ones take a letter like ä in a token for a byte.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "buy": 1}, unk_token="[UNK]"))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    >>> add_tokens(tokenizer, Vocabulary([2, 2])), len(tokenizer)
    (2, 8)
    >>> tokenizer("buy<s_a_1><s_b_0>")["input_ids"]
    [1, 3, 4]
    >>> add_tokens(tokenizer, Vocabulary([2, 2])), len(tokenizer)
    (2, 8)
    """
    from transformers import AddedToken

    tokens = vocabulary.tokens
    known = tokenizer.get_vocab()
    clashing = [token for token in tokens if token in known]
    if len(clashing) == len(tokens):
        base = find_base(vocabulary, tokenizer)
        _check_flags(tokenizer, vocabulary, base)
        _check_writing(tokenizer, vocabulary, base)
        return base
    if clashing:
        shown = ", ".join(map(repr, clashing[:5])) + (", ..." if len(clashing) > 5 else "")
        raise ConfigError(
            f"the tokenizer already has {len(clashing)} of the {len(tokens)} tokens of the IDs: {shown}; expected "
            f"none, or all of them as one block. {vocabulary.OTHER_NAMES}"
        )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in tokens])
    base = find_base(vocabulary, tokenizer)
    if known and base <= max(known.values()):
        raise ConfigError(
            f"the tokenizer gave the new tokens the ids from {base} on, which are taken: its vocabulary has "
            f"{len(known)} entries but ids up to {max(known.values())}. Load it again, and use a tokenizer without "
            "holes in its ids."
        )
    _check_reading(tokenizer, vocabulary, base)
    _check_writing(tokenizer, vocabulary, base)
    return base


def highest_id(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> int:
    """The highest token id that is not one of the vocabulary's tokens; -1 for an empty tokenizer."""
    known = tokenizer.get_vocab()
    ours = set(vocabulary.tokens)
    return max((token_id for token, token_id in known.items() if token not in ours), default=-1)


def _check_flags(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, base: int) -> None:
    """Refuse a block that is there with flags that spoil items."""
    added = tokenizer.added_tokens_decoder
    for place, token in enumerate(vocabulary.tokens):
        found = added.get(base + place)
        if found is None:
            raise ConfigError(
                f"token {token!r} is an ordinary word of the tokenizer, not an added token: text could be cut "
                f"through the middle of an item. {vocabulary.OTHER_NAMES}"
            )
        for flag in RIGHT_FLAGS:
            if getattr(found, flag):
                raise ConfigError(
                    f"token {token!r} is in the tokenizer with {flag}=True, expected False: {HARM[flag]}. Start from "
                    f"the tokenizer as it was before they were added. {vocabulary.OTHER_NAMES}"
                )


def _check_reading(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, base: int) -> None:
    """Refuse a tokenizer that does not read what it was given: the last code of each level, written without blanks."""
    codes = _last_codes(vocabulary)
    expected = vocabulary.token_ids([codes], base)[0].tolist()
    text = vocabulary.text(codes)
    read = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not _holds(read, expected):
        raise ConfigError(
            f"the tokenizer ({type(tokenizer).__name__}) reads {text!r} as {read[:20]}, expected {expected} in it. "
            "Load a fast tokenizer (AutoTokenizer on a folder with a tokenizer.json)."
        )


def _check_writing(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, base: int) -> None:
    """Refuse a tokenizer that writes its new tokens in another way: each level's last code, and the markers."""
    last = vocabulary.token_ids([_last_codes(vocabulary)], 0)[0].tolist()
    for place in [*last, *range(last[-1] + 1, len(vocabulary.tokens))]:
        token, written = vocabulary.tokens[place], tokenizer.decode([base + place])
        if written.strip() != token:
            raise ConfigError(
                f"this tokenizer would write the token {token!r} as {written!r}; byte-level ones take letters like ä "
                f"for bytes. Load it again, and take names of ASCII letters. {vocabulary.OTHER_NAMES}"
            )


def _last_codes(vocabulary: Vocabulary) -> list[int]:
    """The last code of each level: the longest numbers, and the end of each level's block."""
    return [size - 1 for size in vocabulary.sizes]


def _holds(sequence: list[int], part: list[int]) -> bool:
    return any(sequence[start : start + len(part)] == part for start in range(len(sequence) - len(part) + 1))
