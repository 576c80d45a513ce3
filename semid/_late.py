"""Faces that load late: a package hands on a public name by importing its file when the name is first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

__all__ = ["late_names"]


def late_names(package: str, names: Sequence[str], files: Sequence[str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`, which looks for its public names in these files, in this order.

    Parameters
    ----------
    package : str
        The package's `__name__`.
    names : sequence of str
        Its `__all__`.
    files : sequence of str
        Modules such as ".items", whose `__all__` tells what they hold; lightest first.
    """

    def get(name: str) -> object:
        for file in files if name in names else ():
            module = import_module(file, package)
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(names)}")

    return get
