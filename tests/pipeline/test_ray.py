"""Ray as the engine, on a real cluster of this machine: the same bytes, also when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semid import SemanticIDTokenizer
from semid.errors import ArtifactError, DependencyError, InputError
from semid.pipeline.batch_encoder import BatchEncoder
from semid.pipeline.dataset_encoder import encode_file
from semid.pipeline.ray_engine import _at_once
from tests.helpers.recipes import differences

pytestmark = pytest.mark.slow

N, NEW = 400, 200
ROWS = [{"id": f"item-{n}", "title": f"shade {n} of {n % 7}", "brand": f"brand {n % 9}"} for n in range(N + NEW)]


def import_ray():
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "semid[ray]"')
    data = pytest.importorskip("ray.data", reason='Ray Data is not installed: pip install "semid[ray]"')
    data.DataContext.get_current()  # warns of defaults of its own, the first time: here, so that semid isn't blamed
    return ray


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all tests of this file; a test that needs none of its own starts faster."""
    ray = import_ray()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "ids"
    ids = SemanticIDTokenizer.fit(ROWS[:N], method="rqkmeans", levels=3, codebook_size=8, dim=8)
    ids.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("parts")
    for number, start in enumerate(range(0, len(ROWS), 150)):
        table = pa.Table.from_pylist(ROWS[start : start + 150])
        pq.write_table(table, path / f"{number}.parquet", row_group_size=40)
    return path


def local(folder: Path, items: Path, output: Path) -> bytes:
    encode_file(BatchEncoder(folder), items, output)
    return output.read_bytes()


def test_ray_writes_the_same_bytes(cluster, folder, parts, tmp_path, caplog):
    done = encode_file(
        BatchEncoder(folder), parts, tmp_path / "ray.parquet", engine="ray", batch_size=32, concurrency=2
    )
    assert (done.n_items, done.n_known) == (N + NEW, N)
    assert (tmp_path / "ray.parquet").read_bytes() == local(folder, parts, tmp_path / "local.parquet")
    assert "deprecated" not in caplog.text


def test_rays_before_2_51_are_told_the_number_of_tasks_in_their_way(cluster, monkeypatch):
    assert _at_once(2) == {"compute": cluster.data.TaskPoolStrategy(size=2)}
    monkeypatch.delattr(cluster.data, "TaskPoolStrategy")
    assert _at_once(2) == {"concurrency": 2}
    assert _at_once(None) == {}


def dies_once(folder: Path, note: Path) -> BatchEncoder:
    """An encoder that kills its process in the middle of the run, the first time it gets there."""

    class DiesOnce(BatchEncoder):  # in here, so that it travels with its code: workers cannot import this file
        def encode(self, batch, *place):
            if "item-300" in batch.column("id").to_pylist():
                try:
                    os.close(os.open(note, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(batch, *place)

    return DiesOnce(folder)


def test_a_killed_worker_changes_nothing(cluster, folder, parts, tmp_path):
    encoder = dies_once(folder, tmp_path / "died")
    encode_file(encoder, parts, tmp_path / "ray.parquet", engine="ray", batch_size=16)
    assert (tmp_path / "died").exists()
    assert (tmp_path / "ray.parquet").read_bytes() == local(folder, parts, tmp_path / "local.parquet")


def notes_its_tasks(folder: Path, notes: Path) -> BatchEncoder:
    """An encoder that leaves a file for each of Ray's tasks."""

    class NotesItsTasks(BatchEncoder):
        def encode(self, batch, *place):
            import ray

            (notes / ray.get_runtime_context().get_task_id()).touch()
            return super().encode(batch, *place)

    return NotesItsTasks(folder)


def test_small_files_too_are_the_work_of_many_tasks(cluster, folder, parts, tmp_path):
    (tmp_path / "notes").mkdir()
    encode_file(
        notes_its_tasks(folder, tmp_path / "notes"), parts, tmp_path / "ray.parquet", engine="ray", batch_size=32
    )
    assert len(list((tmp_path / "notes").iterdir())) > len(list(parts.iterdir()))


def test_errors_on_the_cluster_are_ours(cluster, folder, tmp_path):
    pq.write_table(pa.Table.from_pylist([*ROWS, {"id": None, "title": "x"}]), tmp_path / "items.parquet")
    with pytest.raises(InputError, match="id is null"):
        encode_file(BatchEncoder(folder), tmp_path / "items.parquet", tmp_path / "o.parquet", engine="ray")
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "items.parquet")
    with pytest.raises(InputError, match='no column "id". It has: name'):
        encode_file(BatchEncoder(folder), tmp_path / "items.parquet", tmp_path / "o.parquet", engine="ray")
    stale = BatchEncoder(folder)
    stale.fingerprint = "sha256:" + 64 * "0"
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "items.parquet")
    with pytest.raises(ArtifactError, match="its fingerprint is"):
        encode_file(stale, tmp_path / "items.parquet", tmp_path / "o.parquet", engine="ray")
    assert not (tmp_path / "o.parquet").exists()


def test_the_recipe_of_the_page(cluster, tmp_path):
    assert differences("Ray Data", tmp_path) == []


def test_the_command_starts_a_cluster_and_stops_it(semid, folder, parts, tmp_path):
    ray = import_ray()
    ray.shutdown()
    done = semid("encode", folder, "--items", parts, "-o", "ray.parquet", "--engine", "ray", "--json")
    assert json.loads(done.out) == {"output": "ray.parquet", "items": N + NEW, "known": N}
    assert done.err.splitlines()[-1] == "encoded     600 rows, 400 of them items of the catalog"
    assert not ray.is_initialized()
    assert (tmp_path / "ray.parquet").read_bytes() == local(folder, parts, tmp_path / "local.parquet")


@pytest.mark.parametrize("package", ["ray", "aiohttp"])
def test_without_ray_the_message_says_what_to_install(folder, parts, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=r'pip install "semid\[ray\]"'):
        encode_file(BatchEncoder(folder), parts, tmp_path / "o.parquet", engine="ray")
