"""What a report remembers of a job: a bounded amount, however many images there are."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

__all__ = ["ErrorGroups", "Group", "Latencies", "Sample", "Throughput"]

T = TypeVar("T")


class Throughput:
    """How many images came in each span of time. When there are too many spans, two become one.

    Attributes:
        span: seconds.
        counts: images in each span from the beginning on.
    """

    SPANS = 120

    def __init__(self) -> None:
        self.span = 0.25
        self.counts: list[int] = []

    def add(self, seconds: float) -> None:
        """Counts an image, so many seconds after the beginning."""
        while (index := int(seconds / self.span)) >= self.SPANS:
            pairs = zip(self.counts[::2], [*self.counts[1::2], 0])
            self.counts = [first + second for first, second in pairs]
            self.span *= 2
        self.counts += [0] * (index + 1 - len(self.counts))
        self.counts[index] += 1


class Latencies:
    """How many images took how long, in ten bins a decade."""

    PER_DECADE = 10

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Counts an image."""
        index = math.floor(self.PER_DECADE * math.log10(min(max(seconds, 1e-6), 1e6)))
        self._bins[index] = self._bins.get(index, 0) + 1

    def bins(self) -> list[tuple[float, float, int]]:
        """From, to (seconds) and count, without gaps."""
        if not self._bins:
            return []
        indices = range(min(self._bins), max(self._bins) + 1)
        return [(self._edge(index), self._edge(index + 1), self._bins.get(index, 0)) for index in indices]

    def quantile(self, part: float) -> float:
        """So many seconds are enough for that part of the images, up to the width of a bin; 0 for none."""
        wanted = part * sum(self._bins.values())
        for _, end, count in self.bins():
            wanted -= count
            if wanted <= 1e-9:
                return end
        return 0.0

    def _edge(self, index: int) -> float:
        return float(10 ** (index / self.PER_DECADE))


class Group(NamedTuple):
    """Errors of one kind: how many, and the first few as (path, message)."""

    number: int
    examples: list[tuple[str, str]]


class ErrorGroups:
    """Errors by type and message, whatever path and numbers that names. Where kinds are many, later ones go by type."""

    EXAMPLES = 5
    KINDS = 100

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def add(self, path: str, error: BaseException) -> None:
        """Counts an error."""
        kind = type(error).__name__
        message = re.sub(r"\d+", "N", str(error).replace(repr(path), "…"))
        if f"{kind}: {message}" in self._groups or len(self._groups) < self.KINDS:
            kind = f"{kind}: {message}"
        number, examples = self._groups.get(kind, Group(0, []))
        if len(examples) < self.EXAMPLES:
            examples.append((path, str(error)))
        self._groups[kind] = Group(number + 1, examples)

    def __iter__(self) -> Iterator[tuple[str, Group]]:
        return iter(sorted(self._groups.items(), key=lambda item: -item[1].number))


class Sample(Generic[T]):
    """So many of all, each as likely as any other (Vitter's algorithm R), with a fixed seed."""

    def __init__(self, size: int) -> None:
        self.chosen: list[T] = []
        self.count = 0
        self._size = size
        self._random = random.Random(0)

    def add(self, element: T) -> None:
        """Takes an element into account."""
        self.count += 1
        if len(self.chosen) < self._size:
            self.chosen.append(element)
        elif (index := self._random.randrange(self.count)) < self._size:
            self.chosen[index] = element
