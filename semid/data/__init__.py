"""Catalogs and interactions: what records mean, whatever files they come from.

Files in reading order:

values              the value of a field as clean text, an id or a time (HTML: markup; lists in strings: cells, paths)
items               a catalog: ids and text fields (text_fields; item_reader, item_columns, text_column, string_batches)
interactions        who interacted with what, and when
interaction_fields  which field is the user, the item, the time (dates with the year last: short_dates)
interaction_reader  histories and logs -> interactions, by interaction_columns or interaction_records
unknown_items       interactions about items that are not in the catalog
splits              training and held-out interactions
strings             string tables as two arrays
columns             columns of the tables that batch functions receive
index_files         ID files of other systems: index_entries (stored_arrays, array_files, torch_files)
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.data.index_files import IndexFile, read_index
    from semid.data.interaction_reader import read_interactions
    from semid.data.interactions import Histories, Interactions
    from semid.data.items import Items, read_items
    from semid.data.splits import held_out_interactions, training_interactions
    from semid.data.strings import PackedStrings, StringChain

__all__ = [
    "Histories", "IndexFile", "Interactions", "Items", "PackedStrings", "StringChain", "held_out_interactions",
    "read_index", "read_interactions", "read_items", "training_interactions"]  # fmt: skip
FILES = ".strings .items .interactions .interaction_reader .splits .index_files"
__getattr__ = late_names(__name__, __all__, FILES.split())
