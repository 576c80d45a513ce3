"""Sizes as people write them, and a budget that says what would be enough."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semid.errors import ConfigError
from semid.runtime.memory import Budget, in_words, machine_memory, parse_memory, peak_memory, resident_memory


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4GB", 4 * 10**9), ("4g", 4 * 10**9), (" 300 MB ", 3 * 10**8), ("1.5GiB", 3 * 2**29), ("12345", 12345), (7, 7)],
)
def test_sizes_are_read(text, n_bytes):
    assert parse_memory(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "4 PB", "lots", "0", "0GB", "1,5GB", "4GB5"])
def test_other_words_are_refused(text):
    with pytest.raises(ConfigError, match=r"memory=.* should be a size such as 4GB or 800MB\."):
        parse_memory(text)


def test_the_default_is_a_share_of_the_machine():
    assert 0 < Budget().n_bytes < machine_memory()
    assert 0 < resident_memory() <= 1.1 * peak_memory()


@given(st.integers(10**8, 10**13))
def test_what_is_said_to_be_enough_is_enough(need):
    """Bytes held may differ by what the test itself takes, so a tenth of 100 MB of slack."""
    with pytest.raises(ConfigError, match="is too small: the work needs") as refused:
        Budget(1).room(need, "the work")
    enough = parse_memory(str(refused.value).split("--memory ")[1].split(",")[0])
    assert enough >= need
    assert Budget(enough + 10**7).room(need, "the work") >= 0
    assert enough < 1.1 * need + resident_memory() + 2 * 10**8


def test_sizes_are_written_for_people():
    assert (in_words(41_000_000), in_words(1_000_000_000), in_words(12_345_000_000)) == ("41 MB", "1 GB", "12.3 GB")


def test_the_peak_of_a_program_is_its_own_whatever_started_it():
    """getrusage's figure is handed down when a large process starts another."""
    code = "from semid.runtime.memory import peak_memory; print(peak_memory())"
    held = np.ones(1 << 26, np.uint8)  # 64 MB more than before
    child = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert child < peak_memory() - held.nbytes // 2
