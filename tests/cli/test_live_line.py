from __future__ import annotations

import io
import logging
import os
import shutil
import sys

import pytest

from pycaffe.cli._live_line import LiveLine, terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    return Screen()


def drawn(screen: Screen) -> list[str]:
    return screen.getvalue().split("\r\x1b[K")[1:]


def test_iteration_rate_time_left_and_loss(screen: Screen) -> None:
    clock = iter([0.0, 0.05, 2.0, 4.0, 6.0])
    line = LiveLine(screen, 1000, lambda: next(clock))
    line.advance(100, None)
    line.advance(101, 9.0)  # too soon after the last
    line.advance(102, 8.0)  # warm only now
    line.advance(122, 2.34567)
    line.advance(142, 1e-5)
    assert drawn(screen) == [
        "Iteration 100/1000  10 %",
        "Iteration 102/1000  10 %  loss 8",
        "Iteration 122/1000  12 %  10 iter/s  1:28 left  loss 2.346",
        "Iteration 142/1000  14 %  10 iter/s  1:26 left  loss 1e-05",
    ]


def test_the_rate_is_that_of_the_last_half_minute(screen: Screen) -> None:
    clock = iter([0.0, 1.0, 100.0, 120.0, 128.0])
    line = LiveLine(screen, 1000, lambda: next(clock))
    for iteration in (0, 1, 10, 30, 66):
        line.advance(iteration, None)
    assert "  2 iter/s" in drawn(screen)[-1]  # 56 iterations in 28 seconds


def test_lines_of_the_log_have_room(screen: Screen) -> None:
    line = LiveLine(screen, 10, lambda: 0.0)
    line.advance(1, None)
    line.emit(logging.makeLogRecord({"msg": "Iteration 1, loss = 2"}))
    screen.write("I1122 Iteration 1, loss = 2\n")
    line.close()
    assert drawn(screen) == ["Iteration 1/10  10 %", "I1122 Iteration 1, loss = 2\n", ""]


def test_a_narrow_terminal(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((12, 24)))
    LiveLine(screen, 1000, lambda: 0.0).advance(100, None)
    assert drawn(screen) == ["Iteration 1"]


def test_where_it_is_drawn(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(sys, "stdout", file)
    assert terminal() is None
    monkeypatch.setattr(sys, "stdout", screen)
    assert terminal() is screen
    other = Screen()
    monkeypatch.setattr(sys, "stderr", other)
    assert terminal() is other
