"""Threads of matrix products are lowered where asked for, and come back, whatever was loaded or set in between."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

from semid.runtime import threads
from semid.runtime.threads import single_threaded_products


def numbers():
    return {library["filepath"]: library["num_threads"] for library in ThreadpoolController().info()}


@pytest.mark.parametrize("count", [2, 3])
def test_products_use_one_thread_inside_and_as_many_as_before_afterwards(count):
    torch_before = torch.get_num_threads()
    with threadpool_limits(count):
        torch.set_num_threads(count)
        before = numbers()
        for _ in range(2):
            with single_threaded_products():
                assert set(numbers().values()) == {1} and torch.get_num_threads() == 1
            assert numbers() == before and torch.get_num_threads() == count
    torch.set_num_threads(torch_before)


def test_libraries_are_looked_for_again_only_after_an_import(monkeypatch):
    looks = []

    def look():
        looks.append(1)
        return ThreadpoolController()

    monkeypatch.setattr("threadpoolctl.ThreadpoolController", look)
    threads._libraries.cache_clear()
    for _ in range(3):
        with single_threaded_products():
            pass
    assert len(looks) == 1
    monkeypatch.setitem(sys.modules, "a_new_library", types.ModuleType("a_new_library"))
    with single_threaded_products():
        pass
    assert len(looks) == 2
