"""The memory budget: it decides where tables lie, and nothing about the result."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
from click.testing import CliRunner

from semid.cli import cli
from semid.config import SemanticIDConfig
from semid.encoders import lexical
from semid.errors import ConfigError
from semid.pipeline.encode import encode_table, error_statistics
from semid.pipeline.fit import fit
from semid.pipeline.learn import SAMPLE, memory_to_learn
from semid.runtime.arrays import sample_rows
from semid.runtime.memory import Budget, parse_memory
from semid.runtime.tables import MappedRows, Tables
from semid.tokenizer import SemanticIDTokenizer

COLORS = ("red", "blue", "green", "black", "white", "crème")
THINGS = ("nail polish", "lipstick", "kohl pencil", "hair brush", "soap", "shampoo", "mirror")
ITEMS = [
    {"id": f"{n:04}", "title": f"{color} {thing} {n % 11}", "brand": f"brand {n % 5}"}
    for n, (color, thing) in enumerate((c, t) for _ in range(4) for c in COLORS for t in THINGS)
]
CHOICES = {"levels": 3, "codebook_size": 16, "method": "rqkmeans"}


@pytest.fixture
def tiny_blocks(monkeypatch):
    for name, size in {
        "semid.pipeline.encode.BLOCK": 50, "semid.evaluation.quality.BLOCK": 30, "semid.evaluation.neighbors.BLOCK": 40,
        "semid.data.strings.BLOCK": 7,
        "semid.runtime.tables.PIECE_ROWS": 9, "semid.runtime.tables.PIECE_BYTES": 5000,
        "semid.pipeline.embed.BLOCK": 25,
    }.items():  # fmt: skip
        monkeypatch.setattr(name, size)
    monkeypatch.setattr(lexical, "BATCH", 20)


def saved(folder, made) -> dict[str, bytes]:
    SemanticIDTokenizer.of(made).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("embeddings", [False, True], ids=["lexical", "ready vectors"])
def test_the_artifact_is_the_same_in_memory_and_on_disk(tmp_path, monkeypatch, tiny_blocks, embeddings):
    config = SemanticIDConfig.from_dict(CHOICES)
    vectors = np.random.default_rng(0).normal(size=(len(ITEMS), 12)).astype(np.float32) if embeddings else None
    rooms, used = [0, 10**9], []
    written = Tables.new

    def watched(tables, *shape):
        table = written(tables, *shape)
        used.append(table.file is not None)
        return table

    monkeypatch.setattr(Tables, "new", watched)
    artifacts = []
    for room in rooms:
        monkeypatch.setattr(Budget, "room", lambda budget, need, what, room=room: room)
        artifacts.append(saved(tmp_path / str(room), fit(ITEMS, config, embeddings=vectors)))
    assert used == [True, True, False, False]  # vectors and latents, in files and then in memory
    assert artifacts[0] == artifacts[1]


def test_blocks_make_no_difference_to_what_is_learned(tmp_path, monkeypatch):
    config = SemanticIDConfig.from_dict(CHOICES)
    whole = fit(ITEMS, config)
    monkeypatch.setattr("semid.pipeline.encode.BLOCK", 33)
    monkeypatch.setattr(lexical, "BATCH", 10)
    blocks = fit(ITEMS, config, memory="100GB")
    assert np.array_equal(whole.codes, blocks.codes)
    for name, array in whole.fit_statistics.items():
        assert np.array_equal(array, blocks.fit_statistics[name], equal_nan=True), name
    for name, array in whole.codebooks.arrays().items():
        assert np.array_equal(array, blocks.codebooks.arrays()[name]), name


def test_a_sample_is_learned_from_and_said(monkeypatch, caplog):
    monkeypatch.setattr("semid.pipeline.learn.SAMPLE", 60)
    with caplog.at_level(logging.INFO, logger="semid.steps"):
        made = fit(ITEMS, SemanticIDConfig.from_dict(CHOICES))
    assert len(made) == len(ITEMS)
    assert any(re.match(r"learned .*; from 60 of the items$", line) for line in caplog.messages)
    assert memory_to_learn(10**6, 384, SemanticIDConfig()) == memory_to_learn(SAMPLE, 384, SemanticIDConfig())


def test_samples_are_drawn_by_the_seed():
    rows = sample_rows(1000, 100, seed=3)
    assert len(np.unique(rows)) == 100 and (np.diff(rows) > 0).all()
    assert (rows == sample_rows(1000, 100, seed=3)).all() and (rows != sample_rows(1000, 100, seed=4)).any()


def test_a_budget_too_small_names_what_would_be_enough():
    with pytest.raises(ConfigError, match=r"memory=50 MB is too small: .* needs .*\. Use --memory \d"):
        fit(ITEMS, SemanticIDConfig.from_dict(CHOICES), memory="50MB")
    with pytest.raises(ConfigError, match="should be a size such as"):
        fit(ITEMS, SemanticIDConfig.from_dict(CHOICES), memory="much")


def test_the_command_says_what_it_needs_and_is_content_with_that(tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    command = ["fit", str(items), "-o", str(tmp_path / "ids"), "--levels", "2", "--method", "rqkmeans", "-v"]
    refused = CliRunner().invoke(cli, [*command, "--memory", "60MB"])
    assert isinstance(refused.exception, ConfigError) and not (tmp_path / "ids").exists()
    enough = str(refused.exception).split("--memory ")[1].split(",")[0]
    done = CliRunner().invoke(cli, [*command, "--memory", str(2 * parse_memory(enough))])
    assert done.exit_code == 0, done.output
    stages = re.findall(r"stage (\w+): [\d.]+ s, [\d.]+ s of CPU, peak", done.output)
    assert stages == ["read", "embed", "learn", "encode", "assign", "judge", "save"]


def test_errors_of_a_fit_are_counted_per_first_code():
    made = fit(ITEMS, SemanticIDConfig.from_dict(CHOICES))
    found, books = made.fit_statistics, made.codebooks
    rows = np.random.default_rng(0).normal(size=(50, books.input_dim)).astype(np.float32)
    with Tables(room=0) as tables:
        encoded = encode_table(books, rows, tables)
        assert isinstance(encoded.latents, MappedRows)
        other = error_statistics(encoded, books)
        left = encoded.latents[:] - books.quantized(encoded.codes)
    errors = (left**2).sum(axis=1)
    for code in range(16):
        of_code = errors[encoded.codes[:, 0] == code]
        assert other["fit.counts"][code] == len(of_code)
        assert (
            np.isclose(other["fit.errors"][code], of_code.mean())
            if len(of_code)
            else np.isnan(other["fit.errors"][code])
        )
    assert np.allclose(other["fit.quantiles"], np.quantile(errors, np.linspace(0, 1, 101)))
    assert found["fit.counts"].sum() == len(ITEMS) and found["fit.quantiles"].shape == (101,)
    assert [found[name].dtype.name for name in sorted(found)] == ["int64", "float32", "float32"]
