"""A token for every user and every item.

names.py         EntityNames and their token ids: user_17, item_4
vectors.py       EntityVectors: rows start from vectors that you have
soft_prompts.py  SoftHardPrompts: documents that mix such tokens with words (CLLM4Rec)
item_head.py     ItemHead: rank the whole catalog in one forward pass
"""

from importlib import import_module

_HOME = {  # public name -> the file that holds it; item_head.py loads torch
    "CodeRows": "semid.tokenizer_exports.entities.item_head",
    "EntityNames": "semid.tokenizer_exports.entities.names",
    "EntityTokens": "semid.tokenizer_exports.entities.names",
    "EntityVectors": "semid.tokenizer_exports.entities.vectors",
    "FoundEntity": "semid.tokenizer_exports.entities.names",
    "ItemHead": "semid.tokenizer_exports.entities.item_head",
    "Ranked": "semid.tokenizer_exports.entities.item_head",
    "SoftHardPrompts": "semid.tokenizer_exports.entities.soft_prompts",
    "TokenRows": "semid.tokenizer_exports.entities.item_head",
    "Wording": "semid.tokenizer_exports.entities.soft_prompts",
    "add_entities": "semid.tokenizer_exports.entities.names",
    "collate": "semid.tokenizer_exports.entities.soft_prompts",
    "find_entities": "semid.tokenizer_exports.entities.names",
    "last_states": "semid.tokenizer_exports.entities.item_head",
    "mutual_regularization": "semid.tokenizer_exports.entities.item_head",
    "scored_loss": "semid.tokenizer_exports.entities.item_head",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
