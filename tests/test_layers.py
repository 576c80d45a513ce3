"""The house has floors: a module imports only modules below it, and nothing heavy until it is used.

Both rules are read off the syntax trees, so that they hold for imports inside functions too. Imports for type
checkers alone (`if TYPE_CHECKING:`) are free.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"semid": "semid", "kernels/ops": "semid.kernels", "tokenizer_exports": "semid.tokenizer_exports"}


def under(package: str, *names: str) -> list[str]:
    """Full names of modules of a package, which is itself called ""."""
    return [f"{package}.{name}" if name else package for name in names]


# Every module, lowest floor first. A new module goes above all that it imports.
FLOORS = [
    *under("semid", "_version", "versions", "errors", "byte_order", "strings", "string_chain", "progress", "threads"),
    *under("semid", "memory"),
    *under("semid", "distributed"),
    *under("semid", "stages", "tables"),
    *under("semid", "problems", "arrow", "records", "text", "text_columns", "catalog", "times", "interactions"),
    *under("semid", "training_edges", "graph_walks"),
    *under("semid.embed", "words", "counts", "components", "rows", "lexical"),
    *under("semid.embed", "model_files", "models", "neural", "vector_formats", "vectors", ""),
    *under("semid.embed", "skip_gram", "behaviour", "behaviour_files"),
    *under("semid.kernels", "dispatch", "sizes", "packed_codebooks", "residual_assign_triton", "residual_assign"),
    *under("semid.kernels", "residual_train_triton", "residual_train", "split_scores", "kmeans_update_triton"),
    *under("semid.kernels", "kmeans_update", "sinkhorn_triton", "sinkhorn_chunks", "sinkhorn"),
    *under("semid.kernels", "trie_step_triton", "trie_step"),
    *under("semid.kernels", ""),
    *under("semid.quantize", "grid", "sizes", "pick", "blocks", "beam_plain", "beam_pick", "beam", "lloyd_gpu"),
    *under("semid.quantize", "lloyd_pass", "residual"),
    *under("semid.quantize", "network", "torch_backend", "codebooks", "reference"),
    *under("semid.quantize", "kmeans", "latent", "residual_kmeans", "sinkhorn", "guides", "guide_losses"),
    *under("semid.quantize", "rqvae_training", "rqvae"),
    *under("semid.quantize", "lcrec_training", "lcrec", "alignment", "staying", "warm", ""),
    *under("semid.quantize", "spherical"),
    *under("semid.assign", "keys", "capacity", "geometry", "occupancy", "problem", "matching", "spill", "buckets"),
    *under("semid.assign", "unique", "parts", "globally", "lcrec", "lookup", "segment", "ledger_check", "new_rows"),
    *under("semid.assign", "ledger_codes", "ledger", "keeping", ""),
    *under("semid", "grammar", "vocabulary"),
    *under("semid", "atomic", "tensors", "manifest", "artifact", "kinds"),
    *under("semid", "clusters", "fine_codes", "clustering", "cluster_places", "cluster_scores"),
    *under("semid", "neighbours", "quality", "evaluate", "advice"),
    *under("semid", "token_block", "parsing", "filters", "trie_file", "trie", "top_k_cache"),
    *under("semid", "config", "embedding", "encoding"),
    *under("semid.tokenizer_exports", "rows", "shards", "model_layout", "text_rows"),
    *under("semid", "fusion", "guidance"),
    *under("semid", "fitting", "hub", "adding", "tokenizer", "changing", "differing"),
    *under("semid", "churn", "relearn", "refit"),
    *under("semid.tokenizer_exports", "files", "importing", "live_items", "json_catalogues", "parquet_table"),
    *under("semid.tokenizer_exports", "metaid"),
    *under("semid.tokenizer_exports", "grammar_export", "static_layout", "exporting"),
    *under("semid.tokenizer_exports", "centroid_rows", "tokens", "row_report", "huggingface", "freeze"),
    *under("semid.tokenizer_exports", "beside_model", "folder_files", "staging", "checkpoint"),
    *under("semid.tokenizer_exports.alignment", "config", "templates", "times", "split", "negatives", "catalogue"),
    *under("semid.tokenizer_exports.alignment", "given", "tasks", "files", "write", ""),
    *under("semid.tokenizer_exports", "entity_tokens", "entity_vectors", "soft_hard_prompts", "item_head", "cllm4rec"),
    *under("semid.tokenizer_exports", "trie_tensors", "constraint", "logits"),
    *under("semid.tokenizer_exports", "transformers_versions", "head", "prompts", "tree_attention"),
    *under("semid.tokenizer_exports", "repeated_cache", "beam_methods"),
    *under("semid.tokenizer_exports", "beam_search", "beam", "top_k"),
    *under("semid.tokenizer_exports", "serving", "batch_masks", "vllm", "sglang", ""),
    *under("semid", "judging", "show", "show_clusters", "benching", "columns", "batch", "ray_engine", "encode_file"),
    *under("semid.cli", "group", "clusters", "change", "batch", "learn", "look", "refit", "llm", "align", "judge", ""),
    *under("semid", "__main__", ""),
]
FLOOR = {name: floor for floor, name in enumerate(FLOORS)}

HEAVY = {
    "datasets", "faiss", "huggingface_hub", "jinja2", "numba", "pyarrow", "safetensors", "scipy",
    "sentence_transformers", "sklearn", "torch", "tqdm", "transformers", "triton",
}  # fmt: skip
# Modules that are torch or Numba through and through; everybody else imports them inside a function.
WHOLLY_HEAVY = {
    *under("semid.kernels", "kmeans_update", "kmeans_update_triton", "packed_codebooks", "residual_assign"),
    *under("semid.kernels", "residual_assign_triton", "residual_train", "residual_train_triton", "sinkhorn"),
    *under("semid.kernels", "sinkhorn_chunks", "sinkhorn_triton", "split_scores", "trie_step", "trie_step_triton"),
    "semid.embed.skip_gram",
    "semid.quantize.beam_pick",
    "semid.quantize.guide_losses",
    "semid.quantize.lcrec_training",
    "semid.quantize.pick",
    "semid.quantize.rqvae_training",
    "semid.quantize.torch_backend",
    *under("semid.tokenizer_exports", "batch_masks", "beam", "beam_methods", "beam_search", "constraint", "head"),
    *under("semid.tokenizer_exports", "item_head", "logits", "prompts"),
    *under("semid.tokenizer_exports", "repeated_cache", "sglang", "transformers_versions", "tree_attention"),
    *under("semid.tokenizer_exports", "trie_tensors", "vllm"),
}


def module_files() -> dict[str, Path]:
    """Module name -> file, of all the code that is shipped."""
    found = {}
    for folder, package in HOMES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


FILES = module_files()


def imports(tree: ast.AST, *, owner: str = "", inside_functions: bool = True) -> Iterator[tuple[str, int]]:
    """(module, line) of each import that runs, type checking aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{owner}:{node.lineno} relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in FILES else node.module), node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []), owner=owner, inside_functions=inside_functions)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, owner=owner, inside_functions=inside_functions)


def test_every_module_has_a_floor():
    assert sorted(FLOORS) == sorted(FILES)


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    for name, line in imports(ast.parse(FILES[module].read_text()), owner=module):
        if name.split(".")[0] == "semid":
            assert name in FLOOR, f"{FILES[module]}:{line} imports {name}, which does not exist or has no floor"
            assert FLOOR[name] < FLOOR[module], f"{FILES[module]}:{line} imports {name}, which is on a higher floor"


@pytest.mark.parametrize("module", sorted(FILES.keys() - WHOLLY_HEAVY))
def test_nothing_heavy_is_imported_before_it_is_used(module):
    """Heavy libraries, and our own modules that are made of them, are imported inside functions."""
    for name, line in imports(ast.parse(FILES[module].read_text()), inside_functions=False):
        assert name.split(".")[0] not in HEAVY, f"{FILES[module]}:{line} imports {name}: do it where it is used"
        assert name not in WHOLLY_HEAVY, f"{FILES[module]}:{line} imports {name}, and torch with it"


@pytest.mark.parametrize("module", sorted(WHOLLY_HEAVY))
def test_the_exceptions_need_to_be_exceptions(module):
    tops = {name.split(".")[0] for name, _ in imports(ast.parse(FILES[module].read_text()), inside_functions=False)}
    assert tops & HEAVY


def test_kernels_import_nothing_of_ours():
    for module in FILES:
        if module.startswith("semid.kernels"):
            own = [name for name, _ in imports(ast.parse(FILES[module].read_text())) if name.startswith("semid")]
            assert all(name.startswith("semid.kernels") for name in own), (module, own)


def test_the_walk_sees_what_python_would_import():
    """The walk itself: functions, classes, conditions and type checking, told apart."""
    tree = ast.parse(
        "import a\n"
        "if TYPE_CHECKING:\n    import never\nelse:\n    import b\n"
        "class C:\n    import c\n    def f(self):\n        from d.e import x\n"
        "try:\n    import g\nexcept ImportError:\n    pass\n"
    )
    assert [name for name, _ in imports(tree)] == ["a", "b", "c", "d.e", "g"]
    assert [name for name, _ in imports(tree, inside_functions=False)] == ["a", "b", "c", "g"]
