"""A token for every user and every item.

names.py         EntityNames and their token ids: user_17, item_4
vectors.py       EntityVectors: rows start from vectors that you have
soft_prompts.py  SoftHardPrompts: documents that mix such tokens with words (CLLM4Rec)
item_head.py     ItemHead: rank the whole catalog in one forward pass
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semid.tokenizer_exports.entities.item_head import (
        CodeRows,
        ItemHead,
        ItemRows,
        Ranked,
        TokenRows,
        last_states,
        mutual_regularization,
        scored_loss,
    )
    from semid.tokenizer_exports.entities.names import EntityNames, EntityTokens, add_entities, find_entities
    from semid.tokenizer_exports.entities.soft_prompts import SoftHardPrompts, Wording, collate
    from semid.tokenizer_exports.entities.vectors import EntityVectors

FILES = (".names", ".vectors", ".soft_prompts", ".item_head")  # lightest first: the last one loads torch
__all__ = [
    "CodeRows", "EntityNames", "EntityTokens", "EntityVectors", "ItemHead", "ItemRows", "Ranked",
    "SoftHardPrompts", "TokenRows", "Wording", "add_entities", "collate", "find_entities", "last_states",
    "mutual_regularization", "scored_loss",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    modules = (import_module(file, __name__) for file in FILES)
    return next(getattr(module, name) for module in modules if name in module.__all__)
