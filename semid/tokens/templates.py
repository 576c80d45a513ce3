"""Token patterns: how the token of a code is spelled, and which patterns are safe.

A pattern is a string with the fields {letter} (a, b, ..., z, aa, ab, ...: the level), {level} (0, 1, ...), {code} and
{offset} (the position in the whole block of tokens). `TEMPLATES` has the patterns of other systems.

Not here: sizes, token ids, finding tokens in text (`vocabulary.py`).
"""

from __future__ import annotations

import re
import string
from typing import NamedTuple

from semid.errors import ConfigError

__all__ = ["TEMPLATES", "Template", "as_regex", "check_pattern", "hint_on_bytes", "letters_of", "level_of"]

# The characters of each field. {rank} counts from 1001 over the levels after the first; only META ID has it.
FIELDS = {"letter": "[a-z]", "level": "[0-9]", "code": "[0-9]", "offset": "[0-9]", "rank": "[0-9]"}


class Template(NamedTuple):
    """How one system spells its tokens: level 0, the other levels, the markers ("" for none)."""

    first: str
    others: str
    begin: str
    end: str


TEMPLATES: dict[str, Template] = {
    # OneRec and OpenOneRec write it, FlashRec reads it
    "onerec": Template("<s_{letter}_{code}>", "<s_{letter}_{code}>", "<|sid_begin|>", "<|sid_end|>"),
    # LC-Rec, LETTER, MiniOneRec
    "lcrec": Template("<{letter}_{code}>", "<{letter}_{code}>", "", ""),
    # RecTokens
    "rectokens": Template("<item_L{level}_C{code}>", "<item_L{level}_C{code}>", "", "<|item_end|>"),
    # META ID: the cluster, then the rank in it; its ranks start at 1001, like those of P5
    "metaid": Template("<CT{code}>", "<{rank}>", "", ""),
}


def letters_of(level: int) -> str:
    """Return the letters of a level, counted like the columns of a spreadsheet.

    >>> [letters_of(level) for level in (0, 25, 26, 702)]
    ['a', 'z', 'aa', 'aaa']
    """
    letters = ""
    level += 1
    while level:
        level, place = divmod(level - 1, 26)
        letters = string.ascii_lowercase[place] + letters
    return letters


def level_of(letters: str) -> int:
    """Return the level of some letters."""
    level = 0
    for letter in letters:
        level = level * 26 + ord(letter) - ord("a") + 1
    return level - 1


def as_regex(pattern: str, suffix: str = "") -> str:
    """Return the pattern as a regular expression, with one group per field, named field + suffix.

    The repeats are possessive: with the rules of `check_pattern` a scan never backtracks.

    >>> as_regex("<{letter}_{code}>")
    '<(?P<letter>[a-z]++)_(?P<code>[0-9]++)>'
    """
    parts = string.Formatter().parse(pattern)
    return "".join(
        re.escape(literal) + (f"(?P<{field}{suffix}>{FIELDS[field]}++)" if field else "")
        for literal, field, _, _ in parts
    )


def check_pattern(pattern: str, n_levels: int) -> None:
    """Refuse a pattern unless its tokens are distinct and can be found in any text without ambiguity.

    Each field must end at a character that it cannot contain, so no token is the prefix of another; the first character
    must occur nowhere else in a token, so two tokens never overlap. ConfigError names the rule that is broken.
    """
    parts = _parts(pattern)
    fields = [field for _, field in parts if field]
    literal = "".join(literal for literal, _ in parts)
    first = parts[0][0][:1] if parts else ""
    reason = ""
    if not {"code", "offset"} & set(fields):
        reason = "should contain {code} or {offset}"
    elif n_levels > 1 and not {"letter", "level", "offset"} & set(fields):
        reason = f"should contain {{letter}}, {{level}} or {{offset}}, to distinguish {n_levels} levels"
    elif len(set(fields)) < len(fields):
        reason = "should contain each field once"
    elif any(character.isspace() for character in literal):
        reason = "should not contain blanks, which tokenizers change"
    elif not first or re.match("[a-z0-9]", first) or literal.count(first) > 1:
        reason = "should begin with a character that occurs nowhere else in a token, such as <"
    elif open_field := _open_field(parts):
        reason = f"should end {{{open_field}}} with a character that it cannot contain, such as > or _"
    if reason:
        raise ConfigError(
            f"template={pattern!r} {reason}. For example <x_{{letter}}_{{code}}>, "
            f"or one of the names {', '.join(TEMPLATES)}."
        )


def hint_on_bytes(pattern: str) -> str | None:
    """Return a warning if byte-level tokenizers (GPT-2, Llama 3, Qwen) would garble the tokens, else None.

    They use a character below U+0144 for each byte, and decode a token of only such characters as bytes.

    >>> hint_on_bytes("<stück_{letter}_{code}>").partition(": ")[2][:62]
    "byte-level tokenizers, such as Llama 3's and Qwen's, cannot wr"
    >>> hint_on_bytes("<s_{letter}_{code}>"), hint_on_bytes("<品_{letter}_{code}>")
    (None, None)
    """
    if pattern.isascii() or max(pattern) >= "\u0144":
        return None
    odd = "".join(dict.fromkeys(letter for letter in pattern if not letter.isascii()))
    return (
        f"template={pattern!r}: byte-level tokenizers, such as Llama 3's and Qwen's, cannot write {odd!r} in a token, "
        "and semid extend will refuse them. Use ASCII letters."
    )


def _parts(pattern: str) -> list[tuple[str, str | None]]:
    """Return (literal, field after it or None) pairs; ConfigError for anything but known fields without a format."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ConfigError(f"template={pattern!r} is not a pattern: {error}.") from None
    for _, field, spec, conversion in parts:
        if field is not None and (field not in ("letter", "level", "code", "offset") or spec or conversion):
            raise ConfigError(
                f"template={pattern!r}: {{{field}}} should be {{letter}}, {{level}}, {{code}} or {{offset}}, "
                f"without a format."
            )
    return [(literal, field) for literal, field, _, _ in parts]


def _open_field(parts: list[tuple[str, str | None]]) -> str | None:
    """Return the first field that could continue into what follows it."""
    for (_, field), (literal, next_field) in zip(parts, [*parts[1:], ("", None)], strict=True):
        if field is None:
            continue
        # "a" and "0" stand for any content: a field may contain all letters or all digits
        after = literal[:1] or {"letter": "a", None: ""}.get(next_field, "0")
        if not after or re.match(FIELDS[field], after):
            return field
    return None
