"""What a pool and its workers say to each other, and how things that do not pickle are kept from breaking it.

    pool → worker   Settings; then RunBatches
    worker → pool   Ready or Failed; then for each RunBatch, in order, Steps (if asked for), BatchDone or Unreadable

A message is pickled as a whole. Where that fails, for an item or an output, the items are sent again, each by itself:
one that does not pickle (or unpickle) is an error of that item and of nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import numpy.typing as npt

from pycaffe.errors import PoolError

__all__ = [
    "BatchDone",
    "Failed",
    "ItemDone",
    "Ready",
    "RunBatch",
    "Settings",
    "Step",
    "Timing",
    "Unreadable",
    "picklable_error",
]


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know.

    batch_size: the most items of one forward.
    calibration: items, for int8.
    tell_steps: whether to tell which items it is at, so that the pool knows which of them takes too long.
    """

    model: str
    weights: str | None = None
    preprocess: Callable[[Any], Any] | None = None
    postprocess: Callable[..., Any] | None = None
    outputs: tuple[str, ...] | None = None
    batch_size: int = 1
    device: str = "cpu"
    threads: int = 1
    precision: str = "float32"
    calibration: tuple[Any, ...] | None = None
    tell_steps: bool = False


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the net, whose blobs take so many bytes for one item. pid: None on another machine."""

    pid: int | None
    activations: int


@dataclass(frozen=True)
class Failed:
    """The worker cannot load the net; it ends."""

    error: BaseException


class RunBatch(NamedTuple):
    """Items to run together, with their numbers."""

    numbers: list[int]
    values: list[Any]


class Step(NamedTuple):
    """The worker begins with these items."""

    numbers: tuple[int, ...]


class Timing(NamedTuple):
    """What a batch says about batches: the extent and seconds of its forward (0 if there was not just one), and the
    most items that go at once from now on.
    """

    extent: int
    seconds: float
    batch_limit: int


class ItemDone(NamedTuple):
    """One item: outputs by blob name (or what `postprocess` made of them), or an error."""

    number: int
    outputs: Any
    error: BaseException | None
    seconds: float


class BatchDone(NamedTuple):
    """The oldest batch that was sent.

    rows: (number, seconds) of the items whose outputs are the rows of `stacked`, in order.
    stacked: by blob name; the engine's own memory as long as it is in the worker.
    others: the other items.
    """

    rows: list[tuple[int, float]]
    stacked: dict[str, npt.NDArray[np.float32]]
    others: list[ItemDone]
    timing: Timing

    def items(self) -> Iterator[ItemDone]:
        """Item by item; each has its own copy of its rows."""
        for row, (number, seconds) in enumerate(self.rows):
            yield ItemDone(number, {name: array[row].copy() for name, array in self.stacked.items()}, None, seconds)
        yield from self.others


class Unreadable(NamedTuple):
    """In place of an answer: a batch or its answer does not pickle or unpickle."""

    error: BaseException


def picklable_error(error: BaseException) -> BaseException:
    """`error`, or where it would not survive the pipe, or would end the process that raises it again, a PoolError."""
    if isinstance(error, Exception):
        try:
            if type(pickle.loads(cloudpickle.dumps(error))) is type(error):
                return error
        except Exception:  # a user's exception may raise anything while it is pickled
            pass
    return PoolError(f"{type(error).__name__}: {error}")
