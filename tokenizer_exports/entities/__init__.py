"""A token for every user and every item.

names.py         EntityNames and their token ids: user_17, item_4
vectors.py       EntityVectors: rows start from vectors that you have
soft_prompts.py  SoftHardPrompts: documents that mix such tokens with words (CLLM4Rec)
item_head.py     ItemHead: rank the whole catalog in one forward pass
"""

from typing import TYPE_CHECKING

from semid._late import late_names

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

__all__ = [
    "CodeRows", "EntityNames", "EntityTokens", "EntityVectors", "ItemHead", "ItemRows", "Ranked",
    "SoftHardPrompts", "TokenRows", "Wording", "add_entities", "collate", "find_entities", "last_states",
    "mutual_regularization", "scored_loss",
]  # fmt: skip
__getattr__ = late_names(
    __name__, __all__, (".names", ".vectors", ".soft_prompts", ".item_head")
)  # lightest first: the last one loads torch
