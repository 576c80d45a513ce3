"""semid's IDs in language models, serving engines and other systems' formats, and theirs in ours.

Every name loads on first use: reading a published index file needs NumPy alone, not transformers.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {  # public name -> the file that holds it
    "CodeRows": "item_head",
    "EntityNames": "entity_tokens",
    "EntityTokens": "entity_tokens",
    "EntityVectors": "entity_vectors",
    "Exported": "exporting",
    "Extended": "huggingface",
    "Generated": "beam",
    "IndexFile": "files",
    "ItemHead": "item_head",
    "Rules": "constraint",
    "SoftHardPrompts": "soft_hard_prompts",
    "TokenRows": "item_head",
    "TrieLogitsProcessor": "logits",
    "Wording": "soft_hard_prompts",
    "add_entities": "entity_tokens",
    "build_top_k": "top_k",
    "export": "exporting",
    "extend": "huggingface",
    "extend_folder": "checkpoint",
    "generate_items": "beam",
    "import_index": "importing",
    "items_custom_generate": "beam",
    "prefix_allowed_tokens_fn": "logits",
    "read_cllm4rec": "cllm4rec",
    "read_index": "files",
    "train_only_new_rows": "freeze",
    "write_alignment": "alignment.write",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
