"""New tokens and their rows in language models.

in_memory.py      extend: a loaded tokenizer and model, in place
on_disk.py        extend_folder: a model's folder to another folder, without loading the model
add_tokens.py     the tokens as ordinary added tokens of the tokenizer
plan.py           which rows a matrix gets and what they are; the report. Shared by both ways
init_rows.py      what the new rows start as
text_shares.py    what the items under each code say, for rows that start from texts
cluster_rows.py   centroids added to the rows of cluster tokens
row_report.py     where the new rows lie, in numbers
placement.py      where artifacts lie in a model's folder
copy_folder.py    the other files of the folder
edit_shards.py    new rows in safetensors files
freeze.py         train_only_new_rows: everything but the new rows stays as it is
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.tokenizer_exports.models.cluster_rows import bake_centroids, centroid_shifts, isometry
    from semid.tokenizer_exports.models.freeze import Frozen, train_only_new_rows
    from semid.tokenizer_exports.models.in_memory import extend
    from semid.tokenizer_exports.models.on_disk import extend_folder
    from semid.tokenizer_exports.models.plan import Extended

__all__ = [
    "Extended", "Frozen", "bake_centroids", "centroid_shifts", "extend", "extend_folder", "isometry",
    "train_only_new_rows",
]  # fmt: skip
__getattr__ = late_names(
    __name__, __all__, (".freeze", ".cluster_rows", ".plan", ".in_memory", ".on_disk")
)  # lightest first
