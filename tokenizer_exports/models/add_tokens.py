"""Add the block of tokens to a Hugging Face tokenizer: once, contiguous, and as ordinary added tokens.

Ordinary means `special=False, normalized=False, lstrip=rstrip=single_word=False`: special tokens vanish under
`decode(skip_special_tokens=True)`, which servers use by default; normalized ones also match other spellings (BERT
lower-cases); stripping ones swallow the spaces around an item. What a tokenizer's `add_tokens` returns proves nothing,
so everything is checked: before, that no token is there already; after, that the ids are one block.

Not here: where the block is (`semid/tokens/block.py`), the model's rows (`in_memory.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semid.errors import ConfigError
from semid.tokens.block import find_base
from semid.tokens.source import TokenBlock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["add_tokens", "highest_id"]

HARM = {  # flag that should be False -> what happens otherwise
    "special": "decoding with skip_special_tokens=True would erase the items",
    "normalized": "text in other spellings (upper case, other accents) would be read as items",
    "lstrip": "blanks before an item would be swallowed",
    "rstrip": "blanks after an item would be swallowed",
    "single_word": "items written without blanks between them would not be read",
}


def add_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: TokenBlock) -> int:
    """Add all tokens of the vocabulary to a tokenizer, in place, and return the token id of the first code.

    The tokens get the ids `range(base, base + len(vocabulary))`, in the order of `vocabulary.tokens`. If the tokenizer
    has exactly this block already, nothing changes. 100,000 tokens take about a second.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer that is changed.
    vocabulary : Vocabulary or another TokenBlock
        The tokens.

    Raises
    ------
    ConfigError
        Some of the names are in the tokenizer's vocabulary (the first five are named); the whole block is there, but
        not contiguous or with flags that would damage items; the tokenizer assigns ids that are taken, does not read
        the tokens that it was given, or writes them differently (byte-level ones take a letter like ä for a byte).

    >>> from semid.tokens import Vocabulary
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
            "gaps in its ids."
        )
    _check_reading(tokenizer, vocabulary, base)
    _check_writing(tokenizer, vocabulary, base)
    return base


def highest_id(tokenizer: PreTrainedTokenizerBase, vocabulary: TokenBlock) -> int:
    """Return the highest token id that is not one of the vocabulary's tokens; -1 for an empty tokenizer."""
    known = tokenizer.get_vocab()
    ours = set(vocabulary.tokens)
    return max((token_id for token, token_id in known.items() if token not in ours), default=-1)


def _check_flags(tokenizer: PreTrainedTokenizerBase, vocabulary: TokenBlock, base: int) -> None:
    """Refuse a block that is there with flags that damage items."""
    added = tokenizer.added_tokens_decoder
    for place, token in enumerate(vocabulary.tokens):
        found = added.get(base + place)
        if found is None:
            raise ConfigError(
                f"token {token!r} is an ordinary word of the tokenizer, not an added token: text could be split "
                f"in the middle of an item. {vocabulary.OTHER_NAMES}"
            )
        for flag, harm in HARM.items():
            if getattr(found, flag):
                raise ConfigError(
                    f"token {token!r} is in the tokenizer with {flag}=True, expected False: {harm}. Start from "
                    f"the tokenizer as it was before they were added. {vocabulary.OTHER_NAMES}"
                )


def _check_reading(tokenizer: PreTrainedTokenizerBase, vocabulary: TokenBlock, base: int) -> None:
    """Refuse a tokenizer that does not read the tokens that it was given; tried on the last code of each level."""
    codes = _last_codes(vocabulary)
    expected = vocabulary.token_ids([codes], base)[0].tolist()
    text = vocabulary.text(codes)
    read = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not any(read[start : start + len(expected)] == expected for start in range(len(read) - len(expected) + 1)):
        raise ConfigError(
            f"the tokenizer ({type(tokenizer).__name__}) reads {text!r} as {read[:20]}, expected {expected} in it. "
            "Load a fast tokenizer (AutoTokenizer on a folder with a tokenizer.json)."
        )


def _check_writing(tokenizer: PreTrainedTokenizerBase, vocabulary: TokenBlock, base: int) -> None:
    """Refuse a tokenizer that decodes its new tokens to other text; tried on each level's last code and the markers."""
    last = vocabulary.token_ids([_last_codes(vocabulary)], 0)[0].tolist()
    for place in [*last, *range(last[-1] + 1, len(vocabulary.tokens))]:
        token, written = vocabulary.tokens[place], str(tokenizer.decode([base + place]))
        if written.strip() != token:
            raise ConfigError(
                f"this tokenizer would write the token {token!r} as {written!r}; byte-level ones take letters like ä "
                f"for bytes. Load it again, and use names of ASCII letters. {vocabulary.OTHER_NAMES}"
            )


def _last_codes(vocabulary: TokenBlock) -> list[int]:
    """Return the last code of each level: the longest numbers, and the end of each level's block."""
    return [size - 1 for size in vocabulary.sizes]
