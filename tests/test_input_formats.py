"""Each row of the tables in docs/input-formats.md: its example is written to a file, and its command reads it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet
import pytest

from semid import ClusterTokens, SemanticIDTokenizer

PAGE = Path(__file__).parents[1] / "docs" / "input-formats.md"
ENCODINGS = {"utf-16.csv": "utf-16", "latin-1.csv": "latin-1"}
QUICK = {
    "fit": ["--method", "rqkmeans", "--levels", "2", "--codebook-size", "4"],
    "clusters": ["--clusters", "2", "--split", "all"],
    "import": [],
}


class Row(NamedTuple):
    format: str
    lines: list[str]  # of the example
    command: list[str]
    to_be_said: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)][1:-1]
        if len(cells) == 5 and cells[2].startswith("`semid "):
            lines = [part.replace("\\|", "|").replace("→", "\t") for part in re.findall(r"`([^`]+)`", cells[1])]
            found.append(Row(cells[0], lines, shlex.split(cells[2].strip("`"))[1:], cells[4]))
    return found


def write(row: Row) -> Path:
    path = Path(row.command[-1] if "--embeddings" in row.command else row.command[1])
    if path.suffix == ".parquet":  # the example names the columns
        pyarrow.parquet.write_table(pa.table({row.lines[0]: ["7", "8"], row.lines[1]: ["Red lamp", "Blue lamp"]}), path)
    else:
        path.write_bytes("".join(f"{line}\n" for line in row.lines).encode(ENCODINGS.get(path.name, "utf-8")))
    return path


def test_the_page_has_tables_of_everything_that_is_read():
    commands = [row.command[0] for row in rows()]
    assert commands.count("fit") >= 22 and commands.count("clusters") >= 13 and commands.count("import") >= 6


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.command[0]}: {row.format}")
def test_the_command_of_a_row_reads_its_example(row, semid):
    verb, _, *options = row.command
    write(row)
    if "--embeddings" in options:
        Path("items.jsonl").write_text('{"id": 7, "title": "Red lamp"}\n{"id": 8, "title": "Blue lamp"}\n')
    else:
        assert bool(row.to_be_said) == (len(options) > 2), (
            "what must be said is an option beside -o, and nothing else is"
        )
    done = semid(*row.command, *QUICK[verb])
    assert done.code == 0, done.err
    shown = "\n".join(row.lines)
    if verb == "clusters":
        check_clusters(shown)
    elif verb == "import":
        assert SemanticIDTokenizer.from_pretrained("sid").encode(["7", "8"]).tolist() == [[1, 2], [1, 3]]
    else:
        check_catalog("" if "--embeddings" in options or "parquet" in row.command[1] else shown)


def check_clusters(shown: str) -> None:
    tokens, words = ClusterTokens.open("clusters"), set(re.findall(r"\w+", shown))
    assert sorted(tokens.users.ids) == (sorted({"u1", "u2"} & words) or ["1"])
    assert sorted(tokens.items.ids) == sorted({"7", "8"} | ({"9"} & words if "asin" not in words else set()))


def check_catalog(shown: str) -> None:
    """All items are there, with their titles and neither prices nor links."""
    ids = SemanticIDTokenizer.from_pretrained("sid")
    texts = dict(zip(ids.item_ids, ids.ledger.texts, strict=True))
    assert len(texts) in (1, 2) and all(item_id in shown for item_id in texts if shown)
    assert all("lamp" in text.casefold() for text in texts.values()), texts
    assert not any(re.search(r"\d,\d|\d\.\d\d|https?:", text) for text in texts.values()), texts
