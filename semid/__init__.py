"""semid: semantic IDs for catalogs, made for language models.

    from semid import SemanticIDTokenizer
    ids = SemanticIDTokenizer.fit("items.jsonl")
    ids.tokens(["B004756YJA"])        # ['<s_a_12><s_b_201><s_c_7><s_d_90>']

Every public name below is imported when it is first used, so `import semid` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from semid._version import __version__

if TYPE_CHECKING:
    from semid.config import SemanticIDConfig
    from semid.data.interactions import read_interactions
    from semid.data.items import read_items
    from semid.encoders import embed
    from semid.evaluation.metrics import evaluate
    from semid.pipeline.signals import Guidance
    from semid.tokenizer import SemanticIDTokenizer
    from semid.tokenizer_exports.alignment.write import write_alignment
    from semid.tokenizer_exports.generate.items import generate_items
    from semid.tokenizer_exports.models.in_memory import extend
    from semid.trie.trie import Trie

_HOME = {
    "Guidance": "semid.pipeline.signals",
    "SemanticIDConfig": "semid.config",
    "SemanticIDTokenizer": "semid.tokenizer",
    "Trie": "semid.trie.trie",
    "embed": "semid.encoders",
    "evaluate": "semid.evaluation.metrics",
    "extend": "semid.tokenizer_exports.models.in_memory",
    "generate_items": "semid.tokenizer_exports.generate.items",
    "read_interactions": "semid.data.interactions",
    "read_items": "semid.data.items",
    "write_alignment": "semid.tokenizer_exports.alignment.write",
}

__all__ = [
    "Guidance",
    "SemanticIDConfig",
    "SemanticIDTokenizer",
    "Trie",
    "__version__",
    "embed",
    "evaluate",
    "extend",
    "generate_items",
    "read_interactions",
    "read_items",
    "write_alignment",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'semid' has no attribute {name!r}. It has: {', '.join(__all__)}")
    module = import_module(_HOME[name])
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
