"""Ray Data as the engine of `encode_file`: batches as tasks on a cluster, answers back in order.

Each task is a batch function without state, so Ray may run it on any machine, and again if a worker dies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semid.errors import DependencyError, SemidError

if TYPE_CHECKING:
    import pyarrow

    from semid.pipeline.batch_encoder import BatchEncoder

__all__ = ["on_ray"]


def on_ray(
    encoder: BatchEncoder, files: Sequence[Path], batch_size: int, concurrency: int | None
) -> Iterator[pyarrow.Table]:
    """Yield the answers to all rows of Parquet files, in order.

    A cluster that this process is connected to is used; else the one that RAY_ADDRESS names; else one is started on
    this machine, and stopped afterwards. Every machine must see the files and the artifact under the same paths.
    """
    try:
        # Ray's threads import fsspec's HTTP files, all at once; without aiohttp that fails, in some of them not cleanly
        import aiohttp  # noqa: F401
        import ray
        import ray.data
    except ImportError as error:
        raise DependencyError.missing("the Ray engine", "ray[data] and aiohttp", "ray") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # which else reports every step
    try:
        yield from _answers(encoder, files, batch_size, concurrency)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SemidError):
            raise error.cause from None
        raise
    finally:
        if ours:
            ray.shutdown()


def _answers(
    encoder: BatchEncoder, files: Sequence[Path], batch_size: int, concurrency: int | None
) -> Iterator[pyarrow.Table]:
    import ray.data
    from pyarrow.parquet import read_metadata

    metadata = [read_metadata(file) for file in files]
    n_tasks = -(-sum(one.num_rows for one in metadata) // batch_size)
    rows = ray.data.read_parquet([str(file.absolute()) for file in files], override_num_blocks=max(1, n_tasks))
    rows.context.execution_options.preserve_order = True
    rows.context.raise_original_map_exception = True
    here = [name for name in encoder.columns if name in metadata[0].schema.to_arrow_schema().names]
    if here:  # else the message about the missing column names those that are there
        rows = rows.select_columns(here)
    if getattr(rows.context, "use_datasource_v2", False):  # Ray's reader since 2.57 makes blocks by bytes alone
        rows = rows.repartition(target_num_rows_per_block=batch_size)
    answered = rows.map_batches(encoder.answers, batch_format="pyarrow", batch_size=batch_size, **_at_once(concurrency))
    yield from answered.iter_batches(batch_format="pyarrow", batch_size=None)


def _at_once(tasks: int | None) -> dict[str, object]:
    """Return the argument of `map_batches` for so many tasks at once; None leaves the number to Ray."""
    import ray.data

    if tasks is None:
        return {}
    if hasattr(ray.data, "TaskPoolStrategy"):  # from Ray 2.51 on, which warns of the name before
        return {"compute": ray.data.TaskPoolStrategy(size=tasks)}
    return {"concurrency": tasks}
