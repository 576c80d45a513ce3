"""Other systems' files, written and read.

exporter.py    export: the IDs of the live items in another system's format
live_items.py  the live items, a block at a time
json_index.py  LC-Rec's index, FlashRec's catalog
parquet.py     a table for data frames and databases
grammar.py     a grammar for xgrammar or llguidance
static.py      STATIC's transition table
importer.py    import_index: an artifact from an index file of another system
metaid.py      META ID's index files of users and items, as ClusterTokens
cllm4rec.py    CLLM4Rec's published data, as interactions and reviews
split_files.py write_split: training, validation and test rows for LC-Rec, MiniOneRec, RecBole
"""

from semid.data.index_files import IndexFile, read_index
from semid.tokenizer_exports.formats.cllm4rec import PublishedSplit, read_cllm4rec, read_cllm4rec_reviews
from semid.tokenizer_exports.formats.exporter import Exported, Format, export
from semid.tokenizer_exports.formats.importer import OnCollision, import_index
from semid.tokenizer_exports.formats.metaid import metaid_lines, read_metaid
from semid.tokenizer_exports.formats.split_files import SplitFiles, write_split

__all__ = [
    "Exported", "Format", "IndexFile", "OnCollision", "PublishedSplit", "SplitFiles", "export", "import_index",
    "metaid_lines", "read_cllm4rec", "read_cllm4rec_reviews", "read_index", "read_metaid", "write_split",
]  # fmt: skip
