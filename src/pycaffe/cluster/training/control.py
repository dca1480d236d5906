"""What somebody may ask of a run while it goes on."""

from __future__ import annotations

import logging
import queue
from typing import Protocol

from pycaffe.errors import SolverError

__all__ = ["Controlled", "RunControl"]

logger = logging.getLogger("pycaffe.cluster")


class Controlled(Protocol):
    """What can be asked of a run: as of Coordinator."""

    def join(self) -> None:
        """One worker more."""

    def leave(self, rank: int | None = None) -> None:
        """One worker less."""

    def checkpoint_now(self) -> None:
        """A checkpoint as soon as possible."""

    def stop(self) -> None:
        """The end as soon as possible."""


class RunControl:
    """Give one to `train`, and call its methods from `on_progress` or another thread. Each returns at once."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[str, int | None]] = queue.SimpleQueue()

    def add_worker(self) -> None:
        """One worker more, unless there are `max_workers`."""
        self._asked.put(("join", None))

    def remove_worker(self, rank: int | None = None) -> None:
        """One worker less, unless there are `min_workers`; by default the one of the highest rank."""
        self._asked.put(("leave", rank))

    def snapshot(self) -> None:
        """A snapshot as soon as possible."""
        self._asked.put(("snapshot", None))

    def stop(self) -> None:
        """The end of the run as soon as possible."""
        self._asked.put(("stop", None))

    def pass_on(self, run: Controlled) -> bool:
        """Tells a run what was asked; returns whether a snapshot was."""
        snapshot = False
        while not self._asked.empty():
            what, rank = self._asked.get()
            if what == "join":
                run.join()
            elif what == "leave":
                try:
                    run.leave(rank)
                except SolverError as error:  # who asked may not know yet that there are fewer; the run goes on
                    logger.warning("%s", error)
            elif what == "stop":
                run.stop()
            else:
                run.checkpoint_now()
                snapshot = True
        return snapshot
