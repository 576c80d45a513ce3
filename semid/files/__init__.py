"""Any file as records: opened, unpacked, decoded, laid out, and read row by row or column by column.

Files in reading order:

reading        how to read a file: delimiter, columns, encoding, bad rows
problems       what is wrong with a source, collected with its place
records        a file, table or iterable -> (line number, dict) pairs
sources        a path -> its bytes, unpacked (kinds of files: signatures, first_bytes; text: encodings)
folders        shards and saved data sets (by name from a hub: hub_sets)
layout         how a file is written, from its content (delimiters, json_layout, known_files, field_names)
formats_json   JSON in lines, arrays and objects; Python literals
formats_text   CSV with any delimiter, RecBole, MovieLens, lines of items
arrow          Parquet, datasets and Arrow streams
row_batches    plain CSV as columns of strings
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.files.problems import Problems
    from semid.files.reading import Reading, RecordFile
    from semid.files.records import iter_records

__all__ = ["Problems", "Reading", "RecordFile", "iter_records"]
__getattr__ = late_names(__name__, __all__, [".reading", ".problems", ".records"])
