"""A package imports only packages below it, in functions and for type checkers too; no circles; faces are short."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOMES = {"semid": "semid", "kernels/ops": "semid.kernels", "tokenizer_exports": "semid.tokenizer_exports"}
# Packages and the files of semid/ itself, lowest first; with a star if what is heavy may be loaded with their files.
FLOORS = """_version _late errors runtime files data datasets encoders* kernels* quantize* config train* assign ledger
 tokens artifact state trie evaluation clusters adaptation* pipeline tokenizer diagnostics models alignment generate*
 serving* formats entities* tokenizer_exports cli __main__ semid"""
HEAVY = "datasets faiss jinja2 numba pyarrow safetensors scipy sentence_transformers sklearn torch tqdm transformers"
FILES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in HOMES.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(node: ast.AST, late: bool) -> set[str]:
    """What is imported; unless `late`, only what is imported with the file."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {n if (n := f"{node.module}.{alias.name}") in FILES else str(node.module) for alias in node.names}
    checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    if not late and (checking or isinstance(node, ast.FunctionDef)):
        return set()
    return {name for child in ast.iter_child_nodes(node) for name in imports(child, late)}


TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
OURS = {module: imports(tree, late=True) & FILES.keys() for module, tree in TREES.items()}
ROOM = {m: m.removeprefix("semid.").removeprefix("tokenizer_exports.").split(".")[0] for m in FILES}
FLOOR = {m: [name.strip("*") for name in FLOORS.split()].index(room) for m, room in ROOM.items()}


def test_packages_import_only_packages_below_them():
    assert not (up := [f"{m} imports {n}" for m in FILES for n in OURS[m] if FLOOR[n] > FLOOR[m]]), "\n".join(up)


def test_files_do_not_import_each_other_in_circles():
    TopologicalSorter(OURS).prepare()  # else a CycleError, which names the files


def test_only_rooms_with_a_star_load_what_is_heavy_before_it_is_used():
    heavy, starts = {*HEAVY.split(), "triton"}, {m: imports(tree, late=False) for m, tree in TREES.items()}
    for _ in FILES:  # who loads it, who loads those, and so on
        heavy |= {m for m in FILES if {*starts[m], *(name.split(".")[0] for name in starts[m])} & heavy}
    wrong = [m for m in FILES if m in heavy and f"{ROOM[m]}*" not in FLOORS.split()]
    assert not wrong, wrong


def test_faces_are_short_and_hand_on_no_name_of_a_file():
    faces = [m for m, path in FILES.items() if path.name == "__init__.py"]
    long = [m for m in faces if FILES[m].read_text(encoding="utf-8").count("\n") > 40]
    said = {m: " ".join(map(ast.unparse, TREES[m].body)).partition("__all__ = ")[2].partition("]")[0] for m in faces}
    same = [n for n in FILES if f"'{n.split('.')[-1]}'" in said.get(n.rpartition(".")[0], "")]
    assert not long + same, (long, same)
