"""`--report`: one page about a job, that needs no other file and no network.

It is about one run: of a job that was resumed it counts the images that were there already, and draws the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pycaffe.cli._report.statistics import ErrorGroups, Latencies, Sample, Throughput

__all__ = ["Caption", "Report", "Tile"]

TILES = 240  # thumbnails: the page has about 2 MB then


class Caption(NamedTuple):
    """What an image was found to be, and where: class, left, top, right, bottom in pixels."""

    label: str
    score: float
    boxes: Sequence[tuple[int, float, float, float, float]] = ()


class Tile(NamedTuple):
    """An image of the contact sheet."""

    path: str
    seconds: float
    caption: Caption | None


class Report:
    """Collects a job's results, a bounded amount, and writes the page.

    Args:
        name: of the page's file.
        clock: seconds; for tests.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.throughput = Throughput()
        self.latencies = Latencies()
        self.errors = ErrorGroups()
        self.tiles: Sample[Tile] = Sample(TILES)
        self._clock = clock
        self._start = clock()

    def add(self, path: str, seconds: float, error: BaseException | None, caption: Caption | None) -> None:
        """Takes a result into account."""
        self.throughput.add(self._clock() - self._start)
        if error is not None:
            self.errors.add(path, error)
        else:
            self.latencies.add(seconds)
            self.tiles.add(Tile(path, seconds, caption))

    def write(self, title: str, facts: list[tuple[str, str]]) -> None:
        """Writes the page, as a whole or not at all; `facts` are names and values for its head."""
        from pycaffe.cli._report.page import page
        from pycaffe.proto.replace_file import replacing

        text = page(self, title, facts)
        with replacing(self.name) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
