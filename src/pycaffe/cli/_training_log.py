"""A training log, as the original and `caffe train` write it → measurements by iteration.

The lines are those of solver.cpp and sgd_solver.cpp in glog form. What is torn is left out: a line without its end, a
line into which another process wrote, a record without its beginning. A number that may have lost digits is never read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pycaffe.errors import InputError

__all__ = ["LogReader", "Measurement", "TrainingLog", "read_training_log"]

NUMBER = r"(?:[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf)|-?nan)"
_BEGINNING = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} ")
_RECORD = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6}) +\d+ [^\s\]]+:\d+\] (?P<message>.*)")
_LOSS = re.compile(rf"Iteration (\d+)(?: \(({NUMBER}) iter/s, {NUMBER}s/\d+ iters\))?, loss = ({NUMBER})")
_LR = re.compile(rf"Iteration (\d+), lr = ({NUMBER})")
_TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_TEST_LOSS = re.compile(rf"Test loss: ({NUMBER})")
_OUTPUT = re.compile(
    rf" *(Train|Test) net output #(\d+): (\S+) = ({NUMBER})( \(\* {NUMBER} = {NUMBER} loss\))?",
)
LEAP_YEAR = 2000  # glog writes no year; one in which every day exists


@dataclass(frozen=True)
class Measurement:
    """One number of a log.

    Attributes:
        series: "loss" (smoothed), "lr", "iterations/s", "train/NAME" for an output of the training net, "test/NAME" for
            one of the first test net, "test 1/NAME" of the second.
        seconds: since the beginning of the log.
        is_loss: whether the number is a loss: it adds to the net's loss, or is the sum.
    """

    series: str
    iteration: int
    seconds: float
    value: float
    is_loss: bool = False


class LogReader:
    """Takes a log's lines one by one; what a line says depends on those before it."""

    def __init__(self) -> None:
        self._start: datetime | None = None
        self._last: datetime | None = None
        self._years = 0
        self._iteration: int | None = None
        self._test_net = 0
        self._last_loss: tuple[int, float] | None = None
        self._says_rate = False
        self._first_number: dict[str, str] = {}

    def read(self, line: str) -> list[Measurement]:
        """What a line measures; mostly nothing. It must end with a line break, else it is torn."""
        if not line.endswith("\n"):
            return []
        beginnings = [match.start() for match in _BEGINNING.finditer(line)]
        record = _RECORD.fullmatch(line[beginnings[-1] :].rstrip("\r\n")) if beginnings else None
        if record is None:
            return []
        seconds = self._seconds(record)
        return [] if seconds is None else self._measurements(record["message"], seconds)

    def _seconds(self, record: re.Match[str]) -> float | None:
        month, day, hour, minute, second, micro = map(int, record.groups()[:6])
        try:
            time = datetime(LEAP_YEAR, month, day, hour, minute, second, micro)
        except ValueError:  # digits, but no time
            return None
        if self._start is None or self._last is None:
            self._start = self._last = time
        if time.month < self._last.month:  # a new year
            self._years += 1
        self._last = time
        return (time - self._start + self._years * timedelta(days=366)).total_seconds()

    def _measurements(self, message: str, seconds: float) -> list[Measurement]:
        if match := _LOSS.fullmatch(message):
            self._iteration = int(match[1])
            loss = Measurement("loss", self._iteration, seconds, float(match[3]), is_loss=True)
            self._says_rate = self._says_rate or match[2] is not None
            rate = float(match[2] or 0) if self._says_rate else self._rate(seconds)
            self._last_loss = (self._iteration, seconds)
            # The first rate after a start is that of no iterations: 0, or in some releases a denormal below.
            return [loss] if rate <= 0 else [loss, Measurement("iterations/s", self._iteration, seconds, rate)]
        if match := _LR.fullmatch(message):
            return [Measurement("lr", int(match[1]), seconds, float(match[2]))]
        if match := _TESTING.fullmatch(message):
            self._iteration, self._test_net = int(match[1]), int(match[2])
            return []
        if self._iteration is None:
            return []
        if match := _TEST_LOSS.fullmatch(message):
            series = f"{self._test_prefix}/(loss of the net)"
            return [Measurement(series, self._iteration, seconds, float(match[1]), is_loss=True)]
        if match := _OUTPUT.fullmatch(message):
            prefix = "train" if match[1] == "Train" else self._test_prefix
            series = self._distinct(f"{prefix}/{match[3]}", match[2])
            return [Measurement(series, self._iteration, seconds, float(match[4]), is_loss=match[5] is not None)]
        return []

    @property
    def _test_prefix(self) -> str:
        return f"test {self._test_net}" if self._test_net else "test"

    def _rate(self, seconds: float) -> float:
        """Iterations a second by the clock, for logs from before 2016, whose lines do not say it; 0 where unknown."""
        if self._last_loss is None or self._iteration is None:
            return 0.0
        iteration, then = self._last_loss
        if seconds <= then or self._iteration <= iteration:
            return 0.0
        return (self._iteration - iteration) / (seconds - then)

    def _distinct(self, series: str, number: str) -> str:
        """An output of several values has a line for each, under one name with different numbers."""
        first = self._first_number.setdefault(series, number)
        return series if first == number else f"{series} #{number}"


@dataclass
class TrainingLog:
    """What a log measured.

    Attributes:
        series: by name, in order of appearance: iteration → measurement, in order of iterations. A resumed run writes
            some iterations twice, and the later ones count.
    """

    name: str
    series: dict[str, dict[int, Measurement]] = field(default_factory=dict)

    def add(self, measurement: Measurement) -> None:
        """Takes a measurement in; it replaces an earlier one of the same iteration, and drops those after it."""
        points = self.series.setdefault(measurement.series, {})
        for iteration in reversed(list(points)):  # a resumed run does again what came after its snapshot
            if iteration < measurement.iteration:
                break
            del points[iteration]
        points[measurement.iteration] = measurement


def read_training_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Reads a log file.

    Raises:
        InputError: (a ValueError) it cannot be read, or measures nothing.
    """
    name = os.fspath(path)
    log = TrainingLog(name)
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for measurement in _read_all(file):
                log.add(measurement)
    except OSError as error:
        raise InputError(f"Could not read the log {name!r}: {error.strerror}.") from error
    if not log.series:
        raise InputError(
            f"{name!r} is no training log: it has no line like `I0210 13:39:22.381027 25210 solver.cpp:239] "
            "Iteration 0, loss = 2.3`. Give what `caffe train` wrote to stderr."
        )
    return log


def _read_all(lines: Iterable[str]) -> Iterator[Measurement]:
    reader = LogReader()
    for line in lines:
        yield from reader.read(line)
