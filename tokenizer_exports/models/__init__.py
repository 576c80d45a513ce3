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

from importlib import import_module

_HOME = {  # public name -> the file that holds it
    "Extended": "semid.tokenizer_exports.models.plan",
    "Frozen": "semid.tokenizer_exports.models.freeze",
    "bake_centroids": "semid.tokenizer_exports.models.cluster_rows",
    "centroid_shifts": "semid.tokenizer_exports.models.cluster_rows",
    "extend": "semid.tokenizer_exports.models.in_memory",
    "extend_folder": "semid.tokenizer_exports.models.on_disk",
    "isometry": "semid.tokenizer_exports.models.cluster_rows",
    "train_only_new_rows": "semid.tokenizer_exports.models.freeze",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
