from __future__ import annotations

import io

import pytest

from pycaffe.cli._progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(stream: io.StringIO, images: int, seconds: float, total: int = 200) -> Progress:
    clock = Clock()
    progress = Progress(total, stream, clock)
    for _ in range(images):
        clock.now += seconds
        progress.advance("a.png", None)
    return progress


def test_a_terminal_shows_one_line_with_rate_and_time_left() -> None:
    stream = Terminal()
    progress = run(stream, 50, 0.5)
    assert progress.rate == pytest.approx(2)
    assert stream.getvalue().endswith("\r\x1b[K50/200 images  25 %  2.0 images/s  1:15 left  0 failed")
    assert "\n" not in stream.getvalue()
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_elsewhere_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    run(stream, 50, 0.25).close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "20/200 images  10 %  4.0 images/s  0:45 left  0 failed",
        "40/200 images  20 %  4.0 images/s  0:40 left  0 failed",
    ]


def test_the_first_failures_are_shown_and_all_are_counted() -> None:
    stream = io.StringIO()
    progress = Progress(99, stream, Clock())
    for index in range(30):
        progress.advance(f"{index}.png", ValueError("torn"))
    assert progress.failed == 30
    assert stream.getvalue().splitlines()[0] == "failed: '0.png': torn"
    assert stream.getvalue().splitlines()[10:] == ["failed: more; the records say which"]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3599, 3600, 90_061)] == [
        "0:00", "1:00", "59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip
