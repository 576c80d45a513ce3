"""`semid encode --items`: a data set of items in, their codes and tokens out, in batches, in order.

    read batches -> encode each, here, in several processes or on Ray -> one Parquet file, whole or not at all

    item_id string | codes list<int32> | tokens string | known bool

Memory holds a few batches and one row group of the output, however long the data set is. The same rows give the same
bytes whatever the engine, the size of the batches and the number of workers; only a language model as encoder, whose
last bits depend on what else is in its batch, may now and then choose another code.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from semid.artifact.atomic import drafting
from semid.artifact.store import check_path
from semid.errors import ConfigError, InputError
from semid.files.arrow import Drain
from semid.files.problems import Problems
from semid.files.reading import reading_of
from semid.files.records import iter_records
from semid.pipeline.batch_encoder import BatchEncoder
from semid.pipeline.ray_engine import on_ray
from semid.runtime.checks import check_choice
from semid.runtime.progress import bar
from semid.runtime.threads import thread_count

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pyarrow

__all__ = ["BATCH_SIZE", "Engine", "FileDone", "encode_file"]

Engine = Literal["local", "ray"]
BATCH_SIZE = 8192
ROW_GROUP = 65_536
PARQUET = (".parquet", ".pq")


class Part(NamedTuple):
    """A batch of the input, and what messages call its rows."""

    batch: Any
    problems: Problems
    lines: Sequence[int]


@dataclass(frozen=True)
class FileDone:
    """What was written."""

    path: Path
    n_items: int
    n_known: int


def encode_file(
    encoder: BatchEncoder,
    items: str | os.PathLike[str],
    output: str | Path,
    *,
    engine: Engine = "local",
    batch_size: int = BATCH_SIZE,
    concurrency: int | None = None,
    force: bool = False,
) -> FileDone:
    """Encode every row of a data set into a Parquet file.

    Parameters
    ----------
    items : a Parquet file, a folder of them (read in the order of their names), or for `local` any file of records,
        perhaps a `RecordFile` that says how to read it.
    engine : "local", or "ray": the cluster that RAY_ADDRESS names, else one of this machine alone.
    concurrency : batches in work at once: processes of the local engine (1), tasks of Ray (as many as fit).
    force : replace a file that exists.

    Raises
    ------
    InputError, ArtifactError : as `BatchEncoder`; or the data set cannot be read.
    OutputExistsError : the output is there and `force` is not given.
    ConfigError : an engine that there is not, Ray with something else than Parquet, an output not named .parquet.
    DependencyError : Ray without ray[data] and aiohttp.
    """
    output = Path(output)
    _check(engine, output, batch_size, concurrency)
    check_path(output, force)
    source = _Source(items, encoder)
    if engine == "ray":
        tables = on_ray(encoder, source.parquet_files("ray"), batch_size, concurrency)
    else:
        tables = _on_this_machine(encoder, source.parts(batch_size), concurrency or 1)
    with bar("encode", source.n_rows) as advance:
        counted = _Counted(tables, advance)
        with drafting(output.parent) as draft:
            check_path(output, force)  # again, now that nobody else is writing
            draft.publish(draft.write(_parquet(counted)), output.name)
    return FileDone(output, counted.n_items, counted.n_known)


def _check(engine: str, output: Path, batch_size: int, concurrency: int | None) -> None:
    check_choice("engine", engine, get_args(Engine))
    for name, value in (("batch_size", batch_size), ("concurrency", 1 if concurrency is None else concurrency)):
        if value < 1:
            raise ConfigError(f"{name}={value} should be 1 or more.")
    if output.suffix not in PARQUET:
        raise ConfigError(f"{output}: the output is a Parquet file. Name it {output.with_suffix('.parquet').name}.")


# ---- reading ----------------------------------------------------------------------------------------------


class _Source:
    """A data set on the disk, of which some columns are read."""

    def __init__(self, given: str | os.PathLike[str], encoder: BatchEncoder) -> None:
        path = Path(given)
        self.given, self.path, self.encoder, self.columns = given, path, encoder, encoder.columns
        self.files: list[Path] = []
        if reading_of(given).skip_bad_rows is False:  # else row by row
            children = path.iterdir() if path.is_dir() else [path] if path.is_file() else []
            self.files = sorted(child for child in children if child.suffix in PARQUET)
        self.n_rows = sum(self._opened(file).metadata.num_rows for file in self.files)  # 0: not known

    def parquet_files(self, engine: str) -> list[Path]:
        """Return the Parquet files; ConfigError if the data set is not made of Parquet files."""
        if not self.files:
            raise ConfigError(
                f"{self.path}: engine={engine} reads Parquet files that exist, and skips no rows. Use --engine local."
            )
        return self.files

    def parts(self, size: int) -> Iterator[Part]:
        """All rows, `size` at a time."""
        return self._of_parquet(size) if self.files else self._of_records(size)

    def _of_parquet(self, size: int) -> Iterator[Part]:
        for file in self.files:
            opened = self._opened(file)
            here = [name for name in self.columns if name in opened.schema_arrow.names]
            problems, first = Problems(str(file), "row"), 1
            for batch in opened.iter_batches(size, columns=here or None):
                yield Part(batch, problems, range(first, first + batch.num_rows))
                first += batch.num_rows

    def _of_records(self, size: int) -> Iterator[Part]:
        problems = Problems.of(self.given)
        key = self.encoder.id_field or "id"
        records = iter_records(self.given, keep=self.columns.__contains__, problems=problems, key_field=key)
        if problems.skips:  # here, because a batch is encoded whole, perhaps in another process
            records = (record for record in records if not self._is_bad(*record, problems))
        seen: set[str] = set()
        while chunk := list(islice(records, size)):
            problems.raise_if_any()
            place = Problems(problems.name, problems.style)
            lines, rows = zip(*chunk, strict=True)
            seen.update(*rows)
            here = [name for name in self.columns if name in seen] or rows[0]  # so that messages name what is there
            yield Part({name: [row.get(name) for row in rows] for name in here}, place, lines)
        problems.finish()

    def _is_bad(self, line: int, row: dict[str, Any], problems: Problems) -> bool:
        """Note what keeps a row from being encoded, if anything does."""
        fault = self.encoder.fault(row)
        if fault is not None:
            problems.add(line, fault)
        return fault is not None

    def _opened(self, file: Path) -> Any:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{file}: not a readable Parquet file: {str(error).rstrip('.')}.") from None


# ---- working ----------------------------------------------------------------------------------------------


def _on_this_machine(encoder: BatchEncoder, parts: Iterable[Part], n_processes: int) -> Iterator[pyarrow.Table]:
    if n_processes == 1:
        for part in parts:
            yield encoder.answers(*part)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    threads = max(1, thread_count() // n_processes)
    pool = ProcessPoolExecutor(
        n_processes, mp_context=get_context("spawn"), initializer=_limit_threads, initargs=(threads,)
    )
    try:
        waiting: deque[Future[pyarrow.Table]] = deque()
        for part in parts:
            waiting.append(pool.submit(encoder.answers, *part))
            if len(waiting) > 2 * n_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ConfigError(
            f"concurrency={n_processes}: a process was killed, most likely for want of memory. "
            "Use fewer, or a smaller batch_size."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _limit_threads(n_threads: int) -> None:
    from threadpoolctl import threadpool_limits

    os.environ["OMP_NUM_THREADS"] = str(n_threads)  # what `semid.runtime.threads` goes by
    threadpool_limits(n_threads)


# ---- writing ----------------------------------------------------------------------------------------------


class _Counted:
    """The tables, counted as they pass."""

    def __init__(self, tables: Iterable[pyarrow.Table], advance: Callable[[int], object]) -> None:
        self.tables, self.advance = tables, advance
        self.n_items = self.n_known = 0

    def __iter__(self) -> Iterator[pyarrow.Table]:
        import pyarrow.compute as compute

        for table in self.tables:
            self.n_items += table.num_rows
            self.n_known += compute.sum(table.column("known")).as_py() or 0
            self.advance(table.num_rows)
            yield table


def _parquet(tables: Iterable[pyarrow.Table]) -> Iterator[bytes]:
    """Yield the bytes of the file, a row group at a time; row groups do not depend on how `tables` are cut."""
    import pyarrow
    import pyarrow.parquet

    drain, writer, waiting = Drain(), None, []
    for table in filter(len, tables):
        writer = writer or pyarrow.parquet.ParquetWriter(drain, table.schema)
        waiting.append(table)
        if sum(map(len, waiting)) >= ROW_GROUP:
            whole = pyarrow.concat_tables(waiting)
            end = len(whole) - len(whole) % ROW_GROUP
            writer.write_table(whole.slice(0, end), row_group_size=ROW_GROUP)
            waiting = [whole.slice(end)]
            yield drain.take()
    if writer is None:
        raise InputError("no items. Expected one record per item.")
    if any(map(len, waiting)):
        writer.write_table(pyarrow.concat_tables(waiting), row_group_size=ROW_GROUP)
    writer.close()
    yield drain.take()
