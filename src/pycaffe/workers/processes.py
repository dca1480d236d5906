"""The workers of a pool with processes: forked where that is safe, else spawned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycaffe.workers.messages import Settings
from pycaffe.workers.spawn import SpawnedWorker, SpawnSource
from pycaffe.workers.start_method import start_method

if TYPE_CHECKING:
    from pycaffe.workers.forked import ForkedWorker, Zygote

__all__ = ["ProcessSource"]


class ProcessSource:
    """Starts each worker in the way that fits its device; see `WorkerSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._spawn = SpawnSource(settings)
        self._zygote: Zygote | None = None

    def start(self, number: int, device: str) -> ForkedWorker | SpawnedWorker:
        """A new worker."""
        if start_method(device, self._settings.precision, self._settings.threads) == "spawn":
            return self._spawn.start(number, device)
        if self._zygote is None:
            from pycaffe.workers.forked import Zygote  # of Linux

            self._zygote = Zygote(self._settings)
        return self._zygote.start(number, device)

    def close(self) -> None:
        """Ends the zygote."""
        self._spawn.close()
        if self._zygote is not None:
            self._zygote.close()
