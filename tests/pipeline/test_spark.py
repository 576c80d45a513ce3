"""The recipes for Spark, in local mode: the very code of the page, and equal to the local engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semid import SemanticIDTokenizer
from semid.pipeline.batch_encoder import BatchEncoder
from semid.pipeline.dataset_encoder import encode_file
from tests.helpers.recipes import differences

pytestmark = pytest.mark.slow

N, NEW = 200, 100
ROWS = [{"id": f"item-{n}", "title": f"shade {n} of {n % 7}"} for n in range(N + NEW)]
SCHEMA = "id string, codes array<int>, tokens string, known boolean"
COLUMNS = ["id", "codes", "tokens", "known"]


@pytest.fixture(scope="module")
def spark():
    pyspark = pytest.importorskip("pyspark.sql", reason="Spark is not installed: pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    session = pyspark.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.mark.parametrize("heading", ["Spark: mapInPandas", "Spark: mapInArrow"])
def test_the_recipes_of_the_page(spark, tmp_path, heading):
    assert differences(heading, tmp_path) == []


@pytest.mark.parametrize("how", ["mapInPandas", "mapInArrow"])
def test_spark_says_what_the_local_engine_says(spark, tmp_path: Path, how):
    ids = SemanticIDTokenizer.fit(ROWS[:N], method="rqkmeans", levels=3, codebook_size=8, dim=8)
    ids.save_pretrained(tmp_path / "ids")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "items.parquet")
    encode = BatchEncoder(tmp_path / "ids")
    encode_file(encode, tmp_path / "items.parquet", tmp_path / "codes.parquet")
    expected = {row.pop("item_id"): row for row in pq.read_table(tmp_path / "codes.parquet").to_pylist()}

    def work(batches):
        for batch in batches:
            answered = encode(batch)
            yield answered[COLUMNS] if how == "mapInPandas" else answered.select(COLUMNS)

    rows = spark.read.parquet(str(tmp_path / "items.parquet")).repartition(3)
    found = [row.asDict() for row in getattr(rows, how)(work, SCHEMA).collect()]
    assert {row.pop("id"): row for row in found} == expected
