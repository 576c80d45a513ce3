"""Catalogs and interactions, whatever they are stored in.

Files in reading order:

reading             how to read a file: delimiter, columns, encoding, bad rows
problems            what is wrong with a source, collected with its place
sources, layout     a file as UTF-8 (encodings, signatures, folders), its form (delimiters, known_files, json_layout)
records             a file, table or iterable -> (line number, dict) pairs: formats_json, formats_text, arrow, hub_sets
columns             columns of the tables that batch functions receive
values              the value of a field as clean text, an id or a time (HTML: markup; lists in strings: cells, paths)
items               a catalog: ids and text fields (text_fields; item_reader, item_columns, text_column, string_batches)
interactions        who interacted with what, and when
interaction_fields  which field is the user, the item, the time (dates with the year last: short_dates)
interaction_reader  histories and logs -> interactions: by interaction_columns (row_batches) or interaction_records
splits              training and held-out interactions
strings             string tables as two arrays
index_files         ID files of other systems: index_entries (first_bytes, stored_arrays, array_files, torch_files)
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.data.index_files import IndexFile, read_index
    from semid.data.interaction_reader import read_interactions
    from semid.data.interactions import Histories, Interactions
    from semid.data.items import Items, read_items
    from semid.data.problems import Problems
    from semid.data.reading import Reading, RecordFile
    from semid.data.records import iter_records
    from semid.data.splits import held_out_interactions, training_interactions
    from semid.data.strings import PackedStrings, StringChain

__all__ = [
    "Histories", "IndexFile", "Interactions", "Items", "PackedStrings", "Problems", "Reading", "RecordFile",
    "StringChain", "held_out_interactions", "iter_records", "read_index", "read_interactions", "read_items",
    "training_interactions"]  # fmt: skip
FILES = ".strings .reading .problems .records .items .interactions .interaction_reader .splits .index_files"
__getattr__ = late_names(__name__, __all__, FILES.split())
