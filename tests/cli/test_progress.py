from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import click
import pytest

from pycaffe.cli._progress import Counting, Progress, Workers, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(stream: io.StringIO, images: int, seconds: float, total: int | None = 200, skipped: int = 0) -> Progress:
    clock = Clock()
    progress = Progress(lambda: Workers(0, []), stream, clock)
    progress.total, progress.skipped = total, skipped
    for _ in range(images):
        clock.now += seconds
        progress.advance("a.png", None)
    return progress


def test_a_terminal_shows_one_line_with_rate_and_time_left() -> None:
    stream = Terminal()
    progress = run(stream, 50, 0.5)
    assert progress.rate == pytest.approx(2)
    assert stream.getvalue().endswith("\r\x1b[K50/200 images  25 %  1:15 left  2.0 images/s  0 failed")
    assert "\n" not in stream.getvalue()
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_elsewhere_a_line_every_five_seconds() -> None:
    stream = io.StringIO()
    run(stream, 50, 0.25).close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "20/200 images  10 %  0:45 left  4.0 images/s  0 failed",
        "40/200 images  20 %  0:40 left  4.0 images/s  0 failed",
    ]


def test_the_time_left_needs_a_total_and_leaves_out_what_was_skipped() -> None:
    stream = io.StringIO()
    run(stream, 20, 0.25, total=None)
    assert stream.getvalue() == "20 images  4.0 images/s  0 failed\n"
    stream = io.StringIO()
    run(stream, 20, 0.25, skipped=100)
    assert stream.getvalue() == "20/100 images  20 %  0:20 left  4.0 images/s  0 failed\n"


def test_restarts_and_memory_are_looked_at_every_two_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    looks = iter([Workers(0, [9_000_000]), Workers(1, [2_000_000, 4_000_000]), Workers(3, [6_000_000, 5_000_000])])
    progress = Progress(lambda: next(looks), stream, clock)
    for _ in range(20):
        clock.now += 0.25
        progress.advance("a.png", None)
    assert stream.getvalue() == "20 images  4.0 images/s  0 failed  3 restarts  6 MB a worker\n"
    assert progress.peak == 9_000_000


def test_the_first_failures_are_shown_and_all_are_counted() -> None:
    stream = io.StringIO()
    progress = Progress(lambda: Workers(0, []), stream, Clock())
    for index in range(30):
        progress.advance(f"{index}.png", ValueError("torn"))
    assert progress.failed == 30
    assert stream.getvalue().splitlines()[0] == "failed: '0.png': torn"
    assert stream.getvalue().splitlines()[10:] == ["failed: more; the records say which"]


def test_counting_goes_on_beside_the_job_and_ends_with_it() -> None:
    found: list[int] = []
    counted = threading.Event()
    with Counting(lambda: map(str, range(1000)), lambda count: (found.append(count), counted.set())[1]):
        assert counted.wait(10)
    assert found == [1000]

    begun = threading.Event()

    def endless() -> Iterator[str]:
        while True:
            begun.set()
            yield "a"

    with Counting(endless, found.append):
        assert begun.wait(10)
    assert found == [1000]


def test_what_cannot_be_counted_is_not() -> None:
    def broken() -> Iterator[str]:
        raise click.UsageError("gone")
        yield "a"

    with Counting(broken, lambda count: pytest.fail("found")):
        pass


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 3599, 3600, 90_061)] == [
        "0:00", "1:00", "59:59", "1:00:00", "25:01:01",
    ]  # fmt: skip
