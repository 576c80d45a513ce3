"""semid's IDs in language models, serving engines and other systems' formats, and theirs in ours.

Every name loads on first use: reading a published index file needs NumPy alone, not transformers.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {  # public name -> the file that holds it
    "CodeRows": "semid.tokenizer_exports.entities.item_head",
    "EntityNames": "semid.tokenizer_exports.entities.names",
    "EntityTokens": "semid.tokenizer_exports.entities.names",
    "EntityVectors": "semid.tokenizer_exports.entities.vectors",
    "Exported": "semid.tokenizer_exports.formats.exporter",
    "Extended": "semid.tokenizer_exports.models.plan",
    "Generated": "semid.tokenizer_exports.generate.items",
    "IndexFile": "semid.data.index_files",
    "ItemHead": "semid.tokenizer_exports.entities.item_head",
    "Constraints": "semid.tokenizer_exports.generate.constraint",
    "SoftHardPrompts": "semid.tokenizer_exports.entities.soft_prompts",
    "TokenRows": "semid.tokenizer_exports.entities.item_head",
    "TrieLogitsProcessor": "semid.tokenizer_exports.generate.logits_processor",
    "Wording": "semid.tokenizer_exports.entities.soft_prompts",
    "add_entities": "semid.tokenizer_exports.entities.names",
    "build_top_k": "semid.tokenizer_exports.generate.top_k",
    "export": "semid.tokenizer_exports.formats.exporter",
    "extend": "semid.tokenizer_exports.models.in_memory",
    "extend_folder": "semid.tokenizer_exports.models.on_disk",
    "generate_items": "semid.tokenizer_exports.generate.items",
    "import_index": "semid.tokenizer_exports.formats.importer",
    "items_custom_generate": "semid.tokenizer_exports.generate.items",
    "prefix_allowed_tokens_fn": "semid.tokenizer_exports.generate.logits_processor",
    "read_cllm4rec": "semid.tokenizer_exports.formats.cllm4rec",
    "read_index": "semid.data.index_files",
    "train_only_new_rows": "semid.tokenizer_exports.models.freeze",
    "write_alignment": "semid.tokenizer_exports.alignment.write",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
