"""Every name that a package hands on can be imported from it, and is a thing of use, never a module."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"semid": "semid", "kernels/ops": "semid.kernels", "tokenizer_exports": "semid.tokenizer_exports"}
FACES = sorted(
    ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
    for folder, package in HOMES.items()
    for path in (ROOT / folder).rglob("__init__.py")
)


@pytest.mark.parametrize("face", FACES)
def test_a_face_hands_on_what_it_lists(face):
    module = importlib.import_module(face)
    names = getattr(module, "__all__", [])
    assert sorted(names) == sorted(set(names))
    for name in names:
        assert not isinstance(getattr(module, name), ModuleType), name


def test_a_lazy_face_lists_its_names_where_one_is_unknown():
    for face in ("semid.tokenizer_exports", "semid.tokenizer_exports.generate"):
        with pytest.raises(AttributeError, match="has no attribute 'generate_item'; it has .*generate_items"):
            _ = importlib.import_module(face).generate_item
