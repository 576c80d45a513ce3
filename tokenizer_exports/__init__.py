"""semid's IDs in language models, serving engines and other systems' files, and theirs in semid.

models/ adds tokens to models, generate/ generates items, serving/ does so in vLLM and SGLang, formats/ knows other
systems' files, entities/ has a token per user and item, alignment/ training data. Names are imported on first use.
"""

from typing import TYPE_CHECKING

from semid._late import late_names

if TYPE_CHECKING:
    from semid.tokenizer_exports.alignment import write_alignment
    from semid.tokenizer_exports.entities.item_head import CodeRows, ItemHead, TokenRows
    from semid.tokenizer_exports.entities.names import EntityNames, EntityTokens, add_entities
    from semid.tokenizer_exports.entities.soft_prompts import SoftHardPrompts, Wording
    from semid.tokenizer_exports.entities.vectors import EntityVectors
    from semid.tokenizer_exports.formats import Exported, IndexFile, export, import_index, read_cllm4rec, read_index
    from semid.tokenizer_exports.generate.constraint import Constraints
    from semid.tokenizer_exports.generate.items import Generated, generate_items, items_custom_generate
    from semid.tokenizer_exports.generate.logits_processor import TrieLogitsProcessor, prefix_allowed_tokens_fn
    from semid.tokenizer_exports.generate.score_callback import ScoreCallback
    from semid.tokenizer_exports.generate.top_k import build_top_k
    from semid.tokenizer_exports.models.freeze import train_only_new_rows
    from semid.tokenizer_exports.models.in_memory import extend
    from semid.tokenizer_exports.models.on_disk import extend_folder
    from semid.tokenizer_exports.models.plan import Extended

__all__ = [
    "CodeRows", "Constraints", "EntityNames", "EntityTokens", "EntityVectors", "Exported", "Extended", "Generated",
    "IndexFile", "ItemHead", "ScoreCallback", "SoftHardPrompts", "TokenRows", "TrieLogitsProcessor", "Wording",
    "add_entities", "build_top_k", "export", "extend", "extend_folder", "generate_items", "import_index",
    "items_custom_generate", "prefix_allowed_tokens_fn", "read_cllm4rec", "read_index", "train_only_new_rows",
    "write_alignment",
]  # fmt: skip
__dir__ = __all__.copy  # completion knows the names before they are used

__getattr__ = late_names(__name__, __all__, (".formats", ".alignment", ".models", ".generate", ".entities"))
