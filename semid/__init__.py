"""semid: semantic IDs for catalogs, made for language models. A public name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING

from semid._version import __version__

if TYPE_CHECKING:
    from semid.adaptation import AdaptConfig, adapt
    from semid.clusters import ClusterTokens, fit_clusters
    from semid.config import SemanticIDConfig
    from semid.data import read_interactions, read_items
    from semid.encoders import embed
    from semid.evaluation import evaluate, evaluate_recommendations
    from semid.pipeline.signals import Signals
    from semid.tokenizer import SemanticIDTokenizer
    from semid.tokenizer_exports import export, extend, extend_folder, generate_items, import_index, write_alignment
    from semid.trie import Trie

_ROOMS = {
    "adaptation": "AdaptConfig adapt", "clusters": "ClusterTokens fit_clusters", "config": "SemanticIDConfig",
    "data": "read_interactions read_items", "encoders": "embed", "evaluation": "evaluate evaluate_recommendations",
    "pipeline.signals": "Signals", "tokenizer": "SemanticIDTokenizer", "trie": "Trie",
    "tokenizer_exports": "export extend extend_folder generate_items import_index write_alignment",
}  # fmt: skip
_HOME = {name: f"semid.{room}" for room, names in _ROOMS.items() for name in names.split()}
__all__ = [
    "AdaptConfig", "ClusterTokens", "SemanticIDConfig", "SemanticIDTokenizer", "Signals", "Trie", "__version__",
    "adapt", "embed", "evaluate", "evaluate_recommendations", "export", "extend", "extend_folder", "fit_clusters",
    "generate_items", "import_index", "read_interactions", "read_items", "write_alignment",
]  # fmt: skip
__dir__ = __all__.copy  # completion knows the names before they are used


def __getattr__(name: str) -> object:
    if name == "datasets":  # `semid.datasets.load`, without an import of its own
        return import_module("semid.datasets")
    if name not in _HOME:
        raise AttributeError(f"module 'semid' has no attribute {name!r}. It has: {', '.join(__all__)}")
    return globals().setdefault(name, getattr(import_module(_HOME[name]), name))
