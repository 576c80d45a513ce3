"""The referee on a small world: IDs of groups win, equal tables get equal figures, and it goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semid.evaluation.intervals import estimate_means
from tests.benchmarks import referee
from tests.benchmarks.referee_parts import baselines
from tests.benchmarks.referee_parts.recommender import Recommender, Settings
from tests.benchmarks.referee_parts.results import FIGURES, read_runs, table
from tests.benchmarks.referee_parts.split import SplitLog
from tests.benchmarks.referee_parts.tables import IDTable, random_table, read_table
from tests.helpers import communities
from tests.helpers.tiny_models import ids_of

WORLD = {"n_groups": 8, "users": 30, "items": 12, "met": 6}
SETTINGS = Settings(dims=32, layers=1, heads=2, dropout=0.0, rate=3e-3, batch=16, epochs=16, patience=4)
SIZES = (8, 12)


def of_groups(item_ids: list[str]) -> IDTable:
    """Give each item g3-i4 the codes 3, 4."""
    return IDTable(np.array([[int(part[1:]) for part in one.split("-")] for one in item_ids]), SIZES)


@pytest.fixture(scope="module")
def log() -> SplitLog:
    read = communities.histories(**WORLD)
    return SplitLog.of(read.item_ids, read)


@pytest.fixture(scope="module")
def tables(log) -> dict[str, IDTable]:
    ids = of_groups(log.item_ids)
    return {"groups": ids, "again": ids, "shuffled": ids.shuffled()}


@pytest.fixture(scope="module")
def results(log, tables, tmp_path_factory) -> Path:
    """One uninterrupted benchmark."""
    path = tmp_path_factory.mktemp("referee") / "runs.jsonl"
    referee.judge(log, tables, path, settings=SETTINGS, seeds=(0, 1), beams=(10, 20))
    return path


def figures(path: Path) -> dict[tuple[str, int, int], dict[str, float]]:
    runs = read_runs(path)
    return {
        (run.system, run.seed, int(beams)): one for run in runs for beams, one in run.figures.items() if beams != "-"
    }


def test_ids_of_groups_beat_shuffled_ones(results):
    found = figures(results)
    for seed in (0, 1):
        for beams in (10, 20):
            assert found["groups", seed, beams]["ndcg@10"] > 1.5 * found["shuffled", seed, beams]["ndcg@10"]


def test_equal_tables_get_equal_figures(results):
    found = figures(results)
    for seed in (0, 1):
        for beams in (10, 20):
            assert found["groups", seed, beams] == found["again", seed, beams]
    assert found["groups", 0, 10] != found["groups", 1, 10]


def test_a_resumed_benchmark_equals_an_uninterrupted_one(results, log, tables, tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:-50])
    made = []
    learn = Recommender.learn
    monkeypatch.setattr(Recommender, "learn", lambda self, log: made.append(self.seed) or learn(self, log))
    referee.judge(log, tables, path, settings=SETTINGS, seeds=(0, 1), beams=(10, 20))
    assert made == [0, 1, 1, 1]
    whole, resumed = ([replace(run, seconds=0) for run in read_runs(one)] for one in (results, path))
    assert resumed == whole
    referee.judge(log, tables, path, settings=SETTINGS, seeds=(0, 1), beams=(10, 20))
    assert len(made) == 4


def test_the_values_of_cases_make_the_figures(results, log):
    for run in read_runs(results):
        for beams, figures in run.figures.items():
            means = run.values(beams, len(log.test.users)).mean(axis=0)
            assert means == pytest.approx([figures[name] for name in FIGURES])


def test_the_table_shows_paired_gains(results, log):
    runs, users = read_runs(results), log.test.users
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in table(runs, users).splitlines()}
    assert len(rows) == 2 + 3 * 2 + 4
    ours, theirs = (
        [run.values("20", len(users)) for run in runs if run.system == name] for name in ("groups", "shuffled")
    )
    gain = estimate_means(np.mean(theirs, axis=0) - np.mean(ours, axis=0), np.unique(users, return_inverse=True)[1])
    assert f"{gain[1].value:+.4f}" in rows["shuffled", "20"]
    assert f"{gain[1].low:+.4f} to {gain[1].high:+.4f}" in rows["shuffled", "20"]
    assert "+0.0000 (+0.0%), +0.0000 to +0.0000" in rows["again", "20"]


def test_cases_are_told_what_came_before(log):
    read = communities.histories(**WORLD)
    for number, user in enumerate(read.users):
        items = read.history(number)
        told = [log.item_ids[row] for row in log.test.histories[number].tolist()]
        assert (log.test.users[number], told) == (user, items[:-1])
        assert log.item_ids[log.test.wanted[number]] == items[-1]
        assert [log.item_ids[row] for row in log.training[number].tolist()] == items[:-2]


def test_every_item_of_training_is_a_target_once(log):
    model = Recommender(of_groups(log.item_ids), log.item_ids, SETTINGS, 0)
    rows = np.random.default_rng(0).integers(len(log.item_ids), size=50)
    targets = [token for tokens, given in model._examples([rows, rows[:0]]) for token in tokens[given:]]
    assert targets == model.tokens[rows].ravel().tolist()


def test_an_id_of_all_items_takes_all_places(log):
    ids = IDTable(np.zeros((len(log.item_ids), 1), np.int64), (1,))
    quality = Recommender(ids, log.item_ids, SETTINGS, 0).quality(log.test, 20)
    assert quality["recall@10"].value == pytest.approx(10 / len(log.item_ids))


def test_ease_solves_its_least_squares(log):
    """Each column is the ridge regression of an item on the others."""
    met = np.zeros((len(log.training), len(log.item_ids)))
    for user, rows in enumerate(log.training):
        met[user, rows] = 1
    shared = baselines.cooccurrence(log)
    assert np.array_equal(shared, met.T @ met)
    weights = baselines.ease(shared, 10.0)
    for item in (0, 50):
        others = np.delete(met, item, axis=1)
        solved = np.linalg.solve(others.T @ others + 10 * np.eye(others.shape[1]), others.T @ met[:, item])
        assert np.delete(weights[:, item], item) == pytest.approx(solved, abs=1e-5)


def test_tables_of_all_sources(tmp_path, log):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"b": ["<a_1>", "<b_0>"], "a": ["<a_3>"], "c": ["<a_1>", "<b_0>"]}))
    ids = read_table(str(path), ["a", "b", "c"])
    assert (ids.codes.tolist(), ids.sizes) == ([[3, 0], [1, 1], [1, 1]], (4, 2))
    assert sorted(read_table(f"shuffled:{path}", ["a", "b", "c"]).codes.tolist()) == [[1, 1], [1, 1], [3, 0]]
    assert read_table("items", ["a", "b", "c"]).codes.tolist() == [[0], [1], [2]]
    with pytest.raises(SystemExit, match="lacks 1 of the catalog's 2 items"):
        read_table(str(path), ["a", "z"])
    ids = ids_of()
    ids.save_pretrained(tmp_path / "ours")
    few = ["red-sock", "blue-hat"]
    read = read_table(str(tmp_path / "ours"), few)
    assert (read.codes.tolist(), read.sizes) == (ids.encode(few).tolist(), ids.sizes)
    assert len(np.unique(random_table(250, "2x16").codes, axis=0)) == 250
    with pytest.raises(SystemExit, match="has 16 IDs"):
        read_table("random:2x4", log.item_ids)


def test_the_command(tmp_path, capsys):
    sequences, items, results = (tmp_path / name for name in ("log.jsonl", "items.jsonl", "runs.jsonl"))
    lines = communities.lines(**WORLD)
    sequences.write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = sorted({item for line in lines for item in line["items"]})
    items.write_text("".join(json.dumps({"id": name, "title": name}) + "\n" for name in names))
    small = (
        "--table floor=random:2x16 --table items=items --seed 0 --beams 10 --epochs 1 --dims 16 --layers 1 --heads 1"
    )
    given = ["--items", str(items), "--interactions", str(sequences), "--results", str(results), *small.split()]
    referee.main(given)
    assert [run.system for run in read_runs(results)] == ["floor", "items", *baselines.BASELINES]
    assert "96 items, 240 users, 240 test cases." in capsys.readouterr().out
