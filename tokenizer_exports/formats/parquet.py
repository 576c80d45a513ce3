"""The live items as a Parquet table, for data frames and databases.

    item_id string | tokens string | c0 ... c{L-1} uint16 | generation int32, the change that added the item

One row group per block of items; the file is passed on in pieces and never held in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from semid.files.arrow import Drain
from semid.tokenizer_exports.formats.live_items import live_blocks

if TYPE_CHECKING:
    from semid.tokenizer import SemanticIDTokenizer

__all__ = ["parquet_blocks"]


def parquet_blocks(ids: SemanticIDTokenizer) -> Iterator[bytes]:
    """Yield the bytes of the file."""
    import pyarrow
    import pyarrow.parquet

    levels = [f"c{level}" for level in range(len(ids.sizes))]
    schema = pyarrow.schema(
        [
            ("item_id", pyarrow.string()),
            ("tokens", pyarrow.string()),
            *((name, pyarrow.uint16()) for name in levels),
            ("generation", pyarrow.int32()),
        ]
    )

    def blocks() -> Iterator[bytes]:
        drain = Drain()
        with pyarrow.parquet.ParquetWriter(drain, schema) as writer:
            for items in live_blocks(ids):
                columns = [items.item_ids, ids.vocabulary.texts(items.codes), *items.codes.T, items.generation]
                writer.write_table(pyarrow.table(dict(zip(schema.names, columns, strict=True)), schema=schema))
                yield drain.take()
        yield drain.take()

    return blocks()
