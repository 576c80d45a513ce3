"""Tables are put between their own marks, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks.page import update

PAGE = """# Page

<!-- align_more: written by more.py -->
kept
<!-- /align_more -->

<!-- align: written by align.py -->
old
<!-- /align -->

<!-- plain -->
<!-- /plain -->
"""


@pytest.fixture
def page(tmp_path) -> Path:
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


@pytest.mark.parametrize(
    ("name", "before"),
    [("align", "align.py -->\nold\n"), ("align_more", "more.py -->\nkept\n"), ("plain", "<!-- plain -->\n")],
)
def test_a_name_that_begins_another_replaces_its_own_table_alone(page, name, before):
    update(page, name, "\n| new |\n")
    after = before.split("\n")[0] + "\n| new |\n"
    assert page.read_text() == PAGE.replace(before, after)


def test_missing_or_crossing_marks_are_refused(page):
    for name in ("alig", "more", "/align"):
        with pytest.raises(SystemExit, match=f"no marks <!-- {name} -->"):
            update(page, name, "new")
    page.write_text(PAGE.replace("<!-- /align_more -->", "") + "<!-- /align_more -->")
    with pytest.raises(
        SystemExit, match=r"<!-- align: written by align\.py --> stands between the marks of align_more"
    ):
        update(page, "align_more", "new")
    assert "kept" in page.read_text()


def test_the_marks_of_the_page_of_benchmarks_are_pairs():
    content = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    marks = re.findall(r"<!-- (/?[\w-]+)(?:: [^\n]*)? -->", content)
    assert marks[::2] and marks[1::2] == [f"/{name}" for name in marks[::2]]
    written = re.findall(r"<!-- ([\w-]+): written by (\S+) -->", content)
    assert {name for name, _ in written} == set(marks[::2])
    for _, script in written:
        assert (Path(__file__).parents[2] / script).is_file()
