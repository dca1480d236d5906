"""What the state of a pool wants done: `PoolState.take` gives these, and a shell carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pycaffe.workers.batches import Item

__all__ = ["Broken", "Command", "Deliver", "KillWorker", "RetireWorker", "SendBatch", "StartWorker"]


@dataclass(frozen=True)
class StartWorker:
    """Start a worker on a device, without waiting for it; `ready` or `died` is told later."""

    worker: int
    device: str


@dataclass(frozen=True)
class SendBatch:
    """Send these items; `answered`, `refused` or `died` is told later."""

    worker: int
    items: list[Item]


@dataclass(frozen=True)
class KillWorker:
    """Kill it; `died` is told later. What it still says does not count."""

    worker: int


@dataclass(frozen=True)
class RetireWorker:
    """Let it go: it has nothing to do; `died` is told later."""

    worker: int


class Deliver(NamedTuple):
    """The end of an item. A tuple, since there is one for each: it costs a third of a frozen dataclass."""

    item: Item
    outputs: Any
    error: BaseException | None
    attempts: int
    worker: int
    seconds: float


@dataclass(frozen=True)
class Broken:
    """The pool cannot go on: nothing more is delivered."""

    error: BaseException


Command = StartWorker | SendBatch | KillWorker | RetireWorker | Deliver | Broken
