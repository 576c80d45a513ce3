"""Markup: HTML taken out of text, in one pass whose time grows with the length of the text, whatever is in it.

`html.parser` gives the same text (a test compares them), but takes quadratic time on some unclosed tags, and takes
`List<int>` for a tag.
"""

from __future__ import annotations

import html
import re

__all__ = ["is_tag_piece", "strip_tags", "unescape"]


# Elements of HTML, old ones too. "<int>" is not one of them: `List<int>` is left as it is.
INSIDE_LINES = """
a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark nobr q s samp small span strike strong sub sup tt
u var wbr
"""
OTHERS = """
address applet area article aside audio base blockquote body br button canvas caption center col colgroup data datalist
dd details dialog dir div dl doctype dt embed fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6
head header hgroup hr html iframe img input label legend li link main map marquee math menu meta meter nav noscript
object ol optgroup option output p param picture pre progress rp rt ruby script search section select slot source style
summary svg table tbody td template textarea tfoot th thead time title tr track ul video xml
"""
JOINING = frozenset(INSIDE_LINES.split())  # a browser shows no gap in "H<sub>2</sub>O"
ELEMENTS = JOINING | frozenset(OTHERS.split())
ATTRIBUTES = r"""(?:=\s*+(?:"[^"]*+"|'[^']*+')|[^<>])*+"""  # possessive: never tried a second way
MARKUP = re.compile(
    rf"""
    <!--(?:-?>|.*?(?:--!?>|\Z))
    | <(script|style)(?=[\s/>]){ATTRIBUTES}(?:(?<=/)>|>.*?(?:</\1(?=[\s/>])[^>]*+(?:>|\Z)|\Z))
    | <[/!?]?([a-z][^\s/<>]*+){ATTRIBUTES}(>?)
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
TAG_PIECE = re.compile(r"\s*(?:class|style|href|src|data-[\w-]+)=\"", re.IGNORECASE)
LONG_REFERENCE = re.compile(r"&#([0-9]{8,});?")


def strip_tags(text: str) -> str:
    """Return text without HTML tags, comments, scripts and style sheets.

    A tag becomes a space, except one inside a line of text (`<b>`, `<sub>`, `<span>`, ...), which becomes nothing.
    Only a complete tag of an HTML element, or one with ":" or "-" in its name, is a tag. A comment, script or style
    sheet without an end goes on to the end of the text.

    >>> strip_tags("<p>H<sub>2</sub>O<br/>pure<!-- 1 l --></p>"), strip_tags("a < b, I <3 List<int>")
    (' H2O pure ', 'a < b, I <3 List<int>')
    """
    return MARKUP.sub(_instead, text) if "<" in text else text


def _instead(found: re.Match[str]) -> str:
    """Return what stands in the text in place of some markup."""
    name = found[2]
    if name is None:  # a comment is nothing, a script or a style sheet a gap
        return " " if found[1] else ""
    name = name.lower()
    if not found[3] or not (name in ELEMENTS or ((":" in name or "-" in name) and name.isascii() and "@" not in name)):
        return found[0]
    return "" if name in JOINING else " "


def is_tag_piece(text: str) -> bool:
    """Return whether text begins inside a tag, as `class="a-bordered">...` does: a piece of a page, no text.

    >>> is_tag_piece('class="a-bordered"'), is_tag_piece("class of 1984")
    (True, False)
    """
    return TAG_PIECE.match(text) is not None


def unescape(text: str) -> str:
    """Return text with its HTML entities decoded once; a number beyond Unicode becomes U+FFFD.

    >>> unescape("Fish &amp; chips&#33; &#99999999999;")
    'Fish & chips! \\ufffd'
    """
    return html.unescape(LONG_REFERENCE.sub(_short_reference, text))


def _short_reference(found: re.Match[str]) -> str:
    digits = found[1].lstrip("0") or "0"  # `html.unescape` fails beyond 4,300 digits
    return f"&#{digits};" if len(digits) < 8 else "\ufffd"
