"""The options for reading: on every command that reads items or interactions, with one meaning, named by messages."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from semid.cli import cli
from semid.tokenizer import SemanticIDTokenizer
from tests.helpers.small_shop import learned, names, records, vectors

ROOT = Path(__file__).parents[2]
ANY = {"--delimiter", "--columns", "--encoding", "--skip-bad-rows"}
ITEMS = ANY | {"--id-field"}
INTERACTIONS = ANY | {"--user-field", "--item-field", "--time-field", "--duplicates"}
READERS = {  # the options of the commands that read records
    "fit": ITEMS | INTERACTIONS | {"--text"},
    "refit": ITEMS | INTERACTIONS | {"--text"},
    "adapt": ITEMS | INTERACTIONS | {"--text"},
    "add": ITEMS | {"--text", "--duplicates"},
    "encode": ITEMS | {"--text"},  # a row at a time: what came before is not known
    "import": ITEMS | {"--text", "--duplicates"},
    "clusters": ITEMS | INTERACTIONS | {"--text"},
    "align": ITEMS | INTERACTIONS,  # takes --title-field and --description-field as text
    "doctor": ITEMS | INTERACTIONS,  # reads no text
    "split": ITEMS | INTERACTIONS,  # takes --title-field as text
    "score": INTERACTIONS - {"--duplicates"},  # has no catalog
}
SMALL = ("--method", "rqkmeans", "--levels", "3", "--codebook-size", "4")
SHOP = names(40)


def options_of(command: str) -> set[str]:
    return {name for option in cli.commands[command].params for name in option.opts if name.startswith("--")}


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_records_has_the_options(command):
    assert READERS[command] <= options_of(command)


def test_no_other_command_has_them():
    others = set(cli.commands) - set(READERS)
    assert {name for name in others if ANY & options_of(name)} == set()


# ---- messages


def strings(path: Path) -> str:
    """All strings of a file but its docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    }
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return " ".join(str(node.value) for node in found)


def named_in(paths: list[Path]) -> set[str]:
    """The options that messages of some files name."""
    text = " ".join(map(strings, paths))
    return set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text))


def read_by(command: str) -> list[Path]:
    """The files of semid/files and semid/data that a command reads records through."""
    options = options_of(command)
    files = sorted(path for room in ("files", "data") for path in (ROOT / "semid" / room).glob("*.py"))
    of_items = [path for path in files if path.stem.startswith(("item", "text_"))]
    of_interactions = [path for path in files if path.stem.startswith(("interaction", "short_dates"))]
    of_both = [ROOT / "semid/data/unknown_items.py"]
    used = [path for path in files if path not in of_items + of_interactions + of_both]
    used += of_items if command not in ("encode", "score") else []  # they read rows, and no catalog
    used += of_both if {"--user-field", "--id-field"} <= options else []
    return used + (of_interactions if "--user-field" in options else [])


@pytest.mark.parametrize("command", READERS)
def test_readers_name_only_options_that_the_command_has(command):
    """Where a command needs no text, messages about text are not passed on; `require_text` is asked by fit and refit.

    That --duplicates has a wrong value is said where it was given.
    """
    elsewhere = {"--embeddings", "--duplicates"} | ({"--text"} if "--text" not in READERS[command] else set())
    pieces = {"--user", "--item", "--time"}  # of f"--{role}-field"
    assert len(read_by(command)) > 10
    assert named_in(read_by(command)) - elsewhere - pieces <= options_of(command)


def test_commands_without_text_are_told_nothing_about_text(shop):
    """A catalog with an odd field: fit speaks of it, align and doctor, which read no such field, do not."""
    Path("odd.jsonl").write_text("".join(json.dumps(one | {"year": 1999}) + "\n" for one in records(SHOP)))
    assert "--text" in shop("fit", "odd.jsonl", "-o", "odd", *SMALL).err
    aligned = shop("align", "sid", "log.csv", "-o", "data", "--items", "odd.jsonl")
    judged = shop("doctor", "sid", "--items", "odd.jsonl", "--embeddings", "shop.npy")
    assert (aligned.code, judged.code) == (0, 0) and "--text" not in aligned.err + judged.err


# ---- what the options do


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    learned(SHOP).save_pretrained(folder / "sid")
    (folder / "shop.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records(SHOP)))
    np.save(folder / "shop.npy", vectors(SHOP))
    rows = [f"u{user},{SHOP[(3 * user + step) % 40]},{step}" for user in range(12) for step in range(6)]
    (folder / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    return folder


@pytest.fixture
def shop(semid, made, tmp_path):
    """`semid` in a folder with the artifact sid, its catalog shop.jsonl and shop.npy, and log.csv."""
    for path in made.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    return semid


def test_files_without_a_header_are_read_with_names_and_a_delimiter_each(shop):
    Path("shop.txt").write_text("".join(f"{one['id']}~{one['title']}\n" for one in records(SHOP)))
    log = Path("log.csv").read_text().splitlines()[1:]
    Path("log.txt").write_text("".join(line.replace(",", ";") + "\n" for line in log))
    done = shop(
        "fit", "shop.txt", "-o", "new", *SMALL, "--interactions", "log.txt", "--json",
        "--columns", "items=id,title", "--columns", "interactions=user,item,time",
        "--delimiter", "~", "--delimiter", "interactions=semicolon",
    )  # fmt: skip
    plain = shop("fit", "shop.jsonl", "-o", "plain", *SMALL, "--interactions", "log.csv", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["sequence_lift"] == json.loads(plain.out)["sequence_lift"]
    assert SemanticIDTokenizer.from_pretrained("new").codes.tolist() == (
        SemanticIDTokenizer.from_pretrained("plain").codes.tolist()
    )


def test_a_delimiter_for_all_files_is_for_those_with_cells(shop):
    log = Path("log.csv").read_text().splitlines()[1:]
    Path("log.txt").write_text("".join(line.replace(",", "~") + "\n" for line in log))
    cells = ("--delimiter", "~", "--columns", "user,item,time")
    done = shop("align", "sid", "log.txt", "-o", "data", "--items", "shop.jsonl", "--tasks", "next-item", *cells)
    assert done.code == 0, done.err
    plain = shop("align", "sid", "log.csv", "-o", "plain", "--items", "shop.jsonl", "--tasks", "next-item")
    assert done.out == plain.out.replace("plain", "data")


def test_bad_rows_are_skipped_and_kept_in_the_current_folder(shop):
    lines = Path("shop.jsonl").read_text().splitlines(keepends=True)
    Path("in").mkdir()
    lines += ['{"id": "x", \n', '{"title": "no id"}\n', '{"id": "y", "title": "z"}']
    Path("in/new.jsonl").write_text("".join(lines))
    stopped = shop("add", "sid", "in/new.jsonl")
    assert stopped.code == 1 and "in/new.jsonl:41: broken JSON" in stopped.err
    np.save("new.npy", vectors([*SHOP, "y"]))
    by_order = ("add", "sid", "in/new.jsonl", "--embeddings", "new.npy", "--skip-bad-rows")
    done = shop(*by_order)  # one of the 43 rows, or of the 41 that are left?
    assert done.code == 1 and "Write the id of each row to new.ids.txt" in done.err
    Path("new.ids.txt").write_text("".join(f"{item_id}\n" for item_id in ["y", *SHOP]))
    np.save("new.npy", vectors(["y", *SHOP]))
    done = shop(*by_order)
    assert done.code == 0 and "added       1 items" in done.out, done
    assert "in/new.jsonl: skipped 2 of 43 rows (first: line 41: broken JSON" in done.err
    assert [line.split("\t")[0] for line in Path("new.jsonl.bad-rows.txt").read_text().splitlines()] == ["41", "42"]
    judged = shop("doctor", "sid", "--items", "in/new.jsonl", "--embeddings", "new.npy", "--skip-bad-rows", "--json")
    shuffled = json.loads(judged.out)["neighbor_recall"]
    Path("whole.jsonl").write_text("".join([*lines[:40], lines[-1]]))
    np.save("whole.npy", vectors([*SHOP, "y"]))
    judged = shop("doctor", "sid", "--items", "whole.jsonl", "--embeddings", "whole.npy", "--json")
    assert shuffled == json.loads(judged.out)["neighbor_recall"]


def test_encode_skips_rows_without_an_id_or_text(shop):
    assert shop("fit", "shop.jsonl", "-o", "text", *SMALL).code == 0
    rows = [{"id": "i0000", "title": "thing i0000"}, {"title": "no id"}, {"id": "b", "title": {"a": 1}}, {"id": "c"}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert shop("encode", "text", "--items", "rows.jsonl", "-o", "o.parquet").code == 1
    done = shop("encode", "text", "--items", "rows.jsonl", "-o", "o.parquet", "--skip-bad-rows")
    assert done.code == 0 and "rows.jsonl: skipped 2 of 4 rows (first: line 2: " in done.err
    assert pyarrow.parquet.read_table("o.parquet").column("item_id").to_pylist() == ["i0000", "c"]
    ray = shop("encode", "text", "--items", "o.parquet", "-o", "p.parquet", "--engine", "ray", "--skip-bad-rows")
    assert ray.code == 1 and "skips no rows. Use --engine local" in ray.err


def test_of_duplicates_the_first_or_the_last_is_kept(shop):
    Path("two.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in [*records(SHOP), {"id": "i0003", "title": "new"}])
    )
    assert 'duplicate id "i0003"' in shop("fit", "two.jsonl", "-o", "a", *SMALL).err
    for which, text in (("first", "thing i0003"), ("last", "new")):
        assert shop("fit", "two.jsonl", "-o", which, *SMALL, "--duplicates", which).code == 0
        ids = SemanticIDTokenizer.from_pretrained(which)
        assert ids.texts is not None and ids.texts[ids.item_ids.index("i0003")] == text
    wrong = shop("fit", "two.jsonl", "-o", "b", *SMALL, "--duplicates", "middle")
    assert wrong.code == 1 and "--duplicates 'middle': expected error, first or last" in wrong.err


def test_fields_of_interactions_need_interactions(shop):
    for command in (("fit", "shop.jsonl", "-o", "new"), ("refit", "sid", "shop.jsonl", "-o", "new"), ("doctor", "sid")):
        done = shop(*command, "--item-field", "asin")
        assert done.code == 2 and "--item-field goes with --interactions, which is missing." in done.err


# ---- items that are not in the catalog


COMMANDS = {
    "fit": ("fit", "shop.jsonl", "-o", "new", *SMALL, "--interactions", "some.csv"),
    "refit": ("refit", "sid", "shop.jsonl", "-o", "new", "--embeddings", "shop.npy", "--init", "scratch",
              "--collaborative-fusion", "1", "--interactions", "some.csv"),
    "doctor": ("doctor", "sid", "--interactions", "some.csv"),
    "align": ("align", "sid", "some.csv", "-o", "new"),
    "clusters": ("clusters", "some.csv", "-o", "new", "--items", "shop.jsonl", "--dim", "4"),
}  # fmt: skip
SOME = "some.csv: 5 of 77 events (6.5 %) are about 2 items that are not in the"
FATES = {
    "fit": "catalog; they get no ID", "refit": "catalog; they get no ID", "doctor": "artifact; they are left out",
    "align": "artifact; they are left out.", "clusters": "catalog; they get tokens without text",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_interactions_with_unknown_items_are_counted_once_and_alike(shop, command):
    extra = "".join(f"u{user},{item},9\n" for user, item in enumerate(["x", "y", "x", "x", "y"]))
    Path("some.csv").write_text(Path("log.csv").read_text() + extra)
    done = shop(*COMMANDS[command])
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "events" in line] == [f"semid: {SOME} {FATES[command]}"]
    assert "events" not in done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_interactions_without_any_known_item_are_refused_with_ids_that_look_alike(shop, command):
    Path("some.csv").write_text(Path("log.csv").read_text().replace(",i0", ",item_i0"))
    done = shop(*COMMANDS[command])
    assert done.code == 1 and not Path("new").exists()
    assert "some.csv: none of its items is in the " in done.err
    assert ': "item_i0000" here, for instance, and "i0000" there. Name the ' in done.err
    assert "--item-field" in done.err and "--id-field" in done.err


# ---- refit


def test_refit_checks_its_settings_before_it_reads(shop):
    """The interactions are broken, which would be said first if they were read first."""
    Path("log.csv").write_text("nothing here")
    signals = ("--collaborative-fusion", "1", "--interactions", "log.csv")
    done = shop("refit", "sid", "shop.jsonl", "-o", "new", "--embeddings", "shop.npy", *signals)
    assert done.code == 1 and "continued codebooks take text vectors alone" in done.err and "log.csv" not in done.err
    scratch = ("--init", "scratch", "--embeddings", "shop.npy")
    done = shop("refit", "sid", "shop.jsonl", "-o", "new", *scratch, *signals, "--keep-prefix", "1")
    assert done.code == 1 and "init='scratch' drops them" in done.err and "log.csv" not in done.err
    done = shop("refit", "sid", "shop.jsonl", "-o", "new", *signals, "--init", "scratch")
    assert done.code == 1 and "learned from ready vectors" in done.err and "log.csv" not in done.err
    done = shop("refit", "sid", "shop.jsonl", "-o", "new", *scratch, *signals)
    assert done.code == 1 and "log.csv" in done.err


def test_fit_checks_its_signals_before_it_reads(shop):
    Path("log.csv").write_text("nothing here")
    signals = ("--collaborative-loss", "1", "--interactions", "log.csv")
    done = shop("fit", "shop.jsonl", "-o", "new", *SMALL, *signals)
    assert done.code == 1 and "losses of RQ-VAE training" in done.err and "log.csv" not in done.err


def test_a_refit_takes_parquet_vectors_in_another_order_by_their_ids(shop):
    other = SHOP[::-1][5:] + names(3, first=100)
    Path("new.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records(other)))
    np.save("new.npy", vectors(other))
    mixed = sorted(other, key=lambda item_id: item_id[::-1])
    assert mixed != other
    table = pyarrow.table({"id": mixed, "embedding": vectors(mixed).tolist()})
    pyarrow.parquet.write_table(table, "new.parquet")
    by_order = shop("refit", "sid", "new.jsonl", "-o", "by-order", "--embeddings", "new.npy", "--json")
    by_id = shop("refit", "sid", "new.jsonl", "-o", "by-id", "--embeddings", "new.parquet", "--json")
    assert (by_order.code, by_id.code) == (0, 0), by_id.err
    figures = [json.loads(done.out) | {"folder": ""} for done in (by_order, by_id)]
    assert figures[0] == figures[1] and figures[0]["surviving"] == 35
    one, same = (SemanticIDTokenizer.from_pretrained(folder) for folder in ("by-order", "by-id"))
    assert list(one.item_ids) == list(same.item_ids) == sorted(other)
    assert one.codes.tolist() == same.codes.tolist()


def test_a_catalog_of_other_ids_is_refused_with_ids_that_look_alike(shop):
    Path("other.jsonl").write_text(Path("shop.jsonl").read_text().replace('"id": "i', '"id": "I'))
    alike = 'other.jsonl: none of its {}items is in the artifact: "I0000" here, for instance, and "i0000" there.'
    aligned = shop("align", "sid", "log.csv", "-o", "new", "--items", "other.jsonl")
    refitted = shop("refit", "sid", "other.jsonl", "-o", "new", "--embeddings", "shop.npy")
    assert (aligned.code, refitted.code) == (1, 1)
    assert alike.format("") in aligned.err and alike.format("40 ") in refitted.err
    assert "--id-field" in aligned.err and "--id-field" in refitted.err


def test_doctor_on_an_index_file_advises_what_can_be_done(shop):
    Path("index.json").write_text(json.dumps({"9": ["<a_0>", "<b_0>"], "8": ["<a_0>", "<b_1>"]}))
    done = shop("doctor", "index.json", "--interactions", "log.csv")
    assert done.code == 1 and "none of its items is in the index file" in done.err and "--id-field" not in done.err


def test_bad_rows_of_two_files_with_one_name_are_kept_apart(shop):
    Path("items").mkdir()
    Path("logs").mkdir()
    Path("items/data.csv").write_text("id,title\n" + "".join(f"{n},lamp {n}\n" for n in range(6)) + "6,a,b\n")
    Path("logs/data.csv").write_text("user,item\n" + "".join(f"u,{n}\n" for n in range(6)) + ",5\n")
    learner = ("--method", "rqkmeans", "--levels", "2", "--codebook-size", "4", "--force")
    done = shop("fit", "items/data.csv", "--interactions", "logs/data.csv", "-o", "two", "--skip-bad-rows", *learner)
    assert done.code == 0, done.err
    kept = {path.name: path.read_text() for path in Path().glob("data.csv*")}
    assert sorted(kept) == ["data.csv.bad-rows.txt", "data.csv.interactions.bad-rows.txt"]
    assert kept["data.csv.bad-rows.txt"].endswith("\t6,a,b\n")
    assert "user is empty" in kept["data.csv.interactions.bad-rows.txt"]
