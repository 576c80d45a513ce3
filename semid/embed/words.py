"""Words and subwords: the pieces that a text is counted in.

Words are cut by script, without case and accents; subwords are the letters of one word. No stemming, no stop words,
no word pairs, and nothing is counted here (`counts`).
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["is_number", "is_year", "subwords_of", "words_of"]

LONGEST_TEXT = 200_000  # characters of a field that are read: later ones say little more about one item
LONGEST_WORD = 64  # characters of a word that become subwords

MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f'\u2019]")  # accents, points, apostrophes
UNSPACED = (  # Thai, Lao, Myanmar, Khmer, kana, Han: scripts that do not put spaces between words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
INDIC = "\u0900-\u0963\u0966-\u0dff"  # with vowel signs, which are not \w but belong to the word
WORD = re.compile(rf"\d+(?:[.,]\d+)+(?!\w)|[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{INDIC}])+")
UNSPACED_RUN = re.compile(f"[{UNSPACED}]")
NUMBER = re.compile(r"[\d.,]+")
YEAR = re.compile(r"1[89]\d\d|20\d\d")


def words_of(text: str) -> list[str]:
    """The words of a text, in order: no case, no accents; characters and pairs where a script has no spaces.

    >>> words_of("Crème de l'Été, 0.5-Fluid Ounce (2014)"), words_of("口紅 No.5")
    (['creme', 'de', 'lete', '0.5', 'fluid', 'ounce', '2014'], ['口', '紅', '口紅', 'no', '5'])
    """
    text = unicodedata.normalize("NFKD", text[:LONGEST_TEXT]).casefold()
    if text.isascii():
        return WORD.findall(text.replace("'", ""))
    text = unicodedata.normalize("NFC", MARKS.sub("", unicodedata.normalize("NFKD", text)))
    found: list[str] = []
    for word in WORD.findall(text):
        if UNSPACED_RUN.match(word):
            found.extend(word)
            found.extend(map("".join, zip(word, word[1:], strict=False)))
        else:
            found.append(word)
    return found


def subwords_of(word: str) -> list[str]:
    """The 3- to 5-grams of `<word>`, itself excluded; none of a number.

    >>> subwords_of("opi"), subwords_of("1972")
    (['<op', 'opi', 'pi>', '<opi', 'opi>'], [])
    """
    if is_number(word):
        return []
    marked = f"<{word[:LONGEST_WORD]}>"
    sizes = range(3, min(6, len(marked)))
    return [marked[i : i + size] for size in sizes for i in range(len(marked) - size + 1)]


def is_number(word: str) -> bool:
    """Whether a word is digits, with points and commas or without: 1972, 0.5."""
    return NUMBER.fullmatch(word) is not None


def is_year(word: str) -> bool:
    """Whether a word is a year from 1800 to 2099."""
    return YEAR.fullmatch(word) is not None
