"""Bars where a person looks or asks for them; a line per finished step; stages with their times."""

from __future__ import annotations

import logging
import sys

import pytest

from semid.runtime.progress import Stages, bar, bars_shown, log_step, show_progress, track
from tests.helpers.progress import shown_bars


def work() -> list[int]:
    """Five items, taken with both kinds of bar."""
    with bar("encode", 5) as advance:
        for _ in range(5):
            advance(1)
    return list(track(range(5), "embed"))


def test_bars_are_silent_unless_asked_for_and_change_nothing(capfd):
    assert work() == [0, 1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")
    with shown_bars():
        assert work() == [0, 1, 2, 3, 4]
    shown = capfd.readouterr()
    assert shown.out == "" and "encode" in shown.err and "embed" in shown.err


@pytest.mark.parametrize(("switch", "on_terminal"), [(None, True), (True, True), (False, False)])
def test_a_terminal_shows_bars_unless_they_are_switched_off(monkeypatch, switch, on_terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    show_progress(switch)
    try:
        assert bars_shown() is on_terminal
    finally:
        show_progress(None)


def test_only_the_first_process_shows_bars(monkeypatch):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    with shown_bars():
        assert not bars_shown()


def test_a_finished_step_is_one_line_of_a_logger_of_its_own(caplog):
    with caplog.at_level(logging.INFO, "semid"):
        log_step("read", "1,204 items; text from title")
    assert caplog.record_tuples == [("semid.steps", logging.INFO, "read        1,204 items; text from title")]


def test_stages_log_their_times_and_add_up_laps_of_one_name(caplog):
    stages = Stages()
    with caplog.at_level(logging.INFO, "semid"):
        stages.lap("read")
        stages.lap("read")
    assert list(stages.seconds) == ["read"] and len(caplog.records) == 2
    assert caplog.messages[0].startswith("stage read: 0.0")
