"""The watch on deprecations tells semid's own calls from those between libraries."""

from __future__ import annotations

import types
import warnings

import pytest

WARNS = "import warnings\ndef old(): warnings.warn('old is going', FutureWarning, stacklevel=2)"


def module(name: str, code: str, **names: object) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(names)
    exec(code, vars(made))
    return made


def test_a_deprecated_call_of_semids_is_an_error_and_one_between_libraries_is_not():
    library = module("library.inner", WARNS)
    through_torch = module("torch.nn", "def call(): return old()", old=library.old)
    code = "def own(): return old()\ndef deep(): return call()"
    ours = module("semid.some", code, old=library.old, call=through_torch.call)
    other = module("peft.some", "def theirs(): return old()", old=library.old)
    outside = module("semid.other", "def use(): return theirs()", theirs=other.theirs)
    for call in (ours.own, ours.deep):
        with pytest.raises(FutureWarning, match="semid's own call causes: old is going"):
            call()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outside.use()
    assert [str(one.message) for one in caught] == ["old is going"]
