"""HTML leaves no trace in text, and takes no more time than the text is long."""

from __future__ import annotations

import sys
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semid.data.markup import ELEMENTS, JOINING, is_tag_piece, strip_tags, unescape
from semid.data.values import MADE_OF_MARKS, MARKS, MAY_BE_MARKS, clean_text

untimed = settings(deadline=None)
MEGABYTE = 1_000_000


class PlainText(HTMLParser):
    """The reference: the standard library's parser."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag, attrs):
        self.hidden = tag in ("script", "style")
        self.pieces.append("" if tag in JOINING else " ")

    def handle_endtag(self, tag):
        self.hidden = False
        self.pieces.append("" if tag in JOINING else " ")

    def handle_data(self, data):
        self.pieces.append("" if self.hidden else data)


def words(text: str) -> list[str]:
    return text.split()


texts = st.text(st.sampled_from("ab é;.3 \n"), max_size=8)
values = st.text(st.sampled_from("ab <>/=é"), max_size=6)
attributes = st.one_of(
    st.builds(lambda name, value: f' {name}="{value}"', st.sampled_from(["href", "alt"]), values),
    st.builds(lambda name, value: f" {name} = '{value}'", st.sampled_from(["title", "data-x"]), values),
    st.sampled_from([" checked", " width=5"]),
)
elements = st.deferred(
    lambda: texts
    | st.builds(lambda name, extra: f"<{name}{extra}/>", st.sampled_from(["br", "img", "hr"]), attributes)
    | st.builds(lambda text: f"<!--{text}<b>-->", texts)
    | st.builds(lambda name, text: f"<{name}>{text} if (a < b) x</{name}>", st.sampled_from(["script", "STYLE"]), texts)
    | st.builds(
        lambda name, extra, inner: f"<{name}{''.join(extra)}>{''.join(inner)}</{name}>",
        st.sampled_from(["p", "b", "DIV", "span", "li", "h1", "o:p"]), st.lists(attributes, max_size=2),
        st.lists(elements, max_size=3),
    )
)  # fmt: skip


@untimed
@given(st.lists(elements, max_size=4).map("".join))
def test_well_formed_pages_give_the_text_of_the_standard_parser(page):
    reference = PlainText()
    reference.feed(page)
    reference.close()
    assert words(strip_tags(page)) == words("".join(reference.pieces))


@pytest.mark.parametrize(
    "text",
    ["a < b and b > c", "I <3 you", "List<int>", "Map<String, Integer>", "<john@x-y.org>", "x<y>z", "</3", "size <b",
     "<", "class of 1984", "a<=b", "-->", "<>", "<!>", "</>"],
)  # fmt: skip
def test_text_with_angle_brackets_that_are_no_tags_stays(text):
    assert strip_tags(text) == text and clean_text(text) == text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("<b>Nice.</b><br />Good.", "Nice. Good."),
        ("H<sub>2</sub>O", "H2O"),
        ("<ul><li>red<li>blue</ul>", "red blue"),
        ("</span></span></span>", ""),
        ('<img src="https://x.example.com/t.png" alt="a > b" />', ""),
        ("lamp<!-- 1 < 2 --> <!---->red", "lamp red"),
        ("<script type='x'>if (a < b) { f(\"</p>\"); }</script >red", "red"),
        ("<style>p { color: red }", ""),
        ("red <!-- cut off", "red"),
        ("&lt;p&gt;Fish &amp;amp; chips&lt;/p&gt;", "Fish & chips"),
        ('<a title="5&quot; > 4&quot;">tv</a>', "tv"),
        ("<o:p>word</o:p>", "word"),
        ("<!DOCTYPE html><html><body>word</body></html>", "word"),
        ('class="a-bordered">\n<tr>junk', ""),
        ("Map<String, List<b>>", "Map<String, List>"),
    ],
)
def test_markup_is_taken_out(raw, clean):
    assert clean_text(raw) == clean


def test_a_piece_of_a_tag_is_told_from_words():
    assert is_tag_piece('  data-asin="B1">') and is_tag_piece('CLASS="x"')
    assert not is_tag_piece("class = noun") and not is_tag_piece('a class="x"')


def test_references_with_many_digits_are_read_or_replaced():
    assert unescape("&#0000000065;&#" + "9" * 5000 + ";&#x" + "f" * 5000 + ";") == "A\ufffd\ufffd"
    assert unescape("&#" + "0" * 5000 + "66;") == "B"


def test_names_of_elements_are_lower_case_and_written_once():
    assert all(name.isalnum() and name == name.lower() for name in ELEMENTS)
    assert JOINING < ELEMENTS


HOSTILE = [
    "<", "<b", '<b a="', "<b a='", "<b =", "<!--", "<!-- -", "<script>", "<script ", "</script", "<style><!--", '<a "',
    "<b a='>\"", "<b a=  ", "&", "&#", "&amp", "&amp;", "&lt;b ", "</", "<!", "<a/", "<x:", " \x85", "\u0300\u0327",
    "\u0f73", "a\u0300\u0327", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_a_megabyte_of_hostile_text_is_cleaned_and_stays_clean(piece):
    """With time quadratic in the length this would take hours."""
    clean = clean_text(piece * (MEGABYTE // len(piece)))
    assert unicodedata.is_normalized("NFC", clean[:1000])
    assert clean == " ".join(clean.split())


def test_combining_marks_are_kept_up_to_thirty_in_a_row():
    assert clean_text("a" + "\u0316" * 30 + "b") == "a" + "\u0316" * 30 + "b"
    assert clean_text("a" + "\u0316" * 99 + "b") == "a" + "\u0316" * MARKS + "b"
    assert clean_text("กำ็" * 20) == unicodedata.normalize("NFC", "กำ็" * 20)


def test_every_combining_mark_is_in_the_ranges_that_are_looked_at():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        starts = unicodedata.normalize("NFD", character)[:1]
        if unicodedata.combining(character) or character in MADE_OF_MARKS:
            assert MAY_BE_MARKS.fullmatch(character * (MARKS + 1)), hex(code)
        elif not 0xD800 <= code < 0xE000:
            assert not unicodedata.combining(starts), hex(code)


@untimed
@given(st.text(st.sampled_from("<>!-/ abp'\"=&lt;gmx") | st.characters()))
def test_any_text_is_cleaned_to_one_line_without_complete_tags(text):
    clean = clean_text(text)
    assert clean == " ".join(clean.split()) and unicodedata.is_normalized("NFC", clean)
    assert strip_tags(clean) == clean or "&" in text
