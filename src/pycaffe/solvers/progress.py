"""What a run reports, in the original's words, which people's scripts parse (parse_log.py): losses and outputs."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from pycaffe import parallel
from pycaffe.blob import FloatArray
from pycaffe.net import Net

__all__ = ["OutputTally", "Rate", "SmoothedLoss", "log_outputs", "log_progress"]

logger = logging.getLogger("pycaffe.solver")


class SmoothedLoss:
    """The mean of the last losses (`average_loss` of them), kept as the original keeps it (UpdateSmoothedLoss)."""

    def __init__(self, size: int) -> None:
        self.value = 0.0
        self._losses: deque[float] = deque(maxlen=size)

    def clear(self) -> None:
        """Forgets all losses."""
        self.value = 0.0
        self._losses.clear()

    def add(self, loss: float) -> None:
        """Takes one more loss."""
        count = len(self._losses)
        if count < (self._losses.maxlen or 1):
            self.value = (self.value * count + loss) / (count + 1)
        else:
            self.value += (loss - self._losses[0]) / count
        self._losses.append(loss)

    @property
    def last(self) -> float:
        """The loss that came last; nan where none has."""
        return self._losses[-1] if self._losses else math.nan

    def state(self) -> dict[str, object]:
        """What `restore` needs, for JSON."""
        return {"value": self.value, "losses": list(self._losses)}

    def restore(self, value: float, losses: Iterable[float]) -> None:
        """Goes on from a `state`."""
        self.value = value
        self._losses.extend(losses)


class Rate:
    """Iterations in a second, from one display to the next."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, iteration: int) -> None:
        """Begins to count at an iteration."""
        self._iteration, self._start = iteration, time.perf_counter()

    def at(self, iteration: int) -> tuple[float, float]:
        """Iterations a second and seconds since the last restart; restarts."""
        seconds = time.perf_counter() - self._start
        rate = (iteration - self._iteration) / (seconds or 1.0)
        self.restart(iteration)
        return rate, seconds


def log_progress(place: str, message: str, *values: object) -> None:
    """Logs a line at INFO on the root solver, as from `place`, where the original logs it."""
    if parallel.root_solver():
        logger.info(message, *values, extra={"place": place})


def log_outputs(net: Net, kind: str, outputs: Iterable[tuple[str, FloatArray]]) -> None:
    """Logs each number of a net's outputs: `    Train net output #0: loss = 0.3 (* 1 = 0.3 loss)`."""
    weights = net.blob_loss_weights
    place = {"Train": "solver.cpp:258", "Test": "solver.cpp:414"}[kind]
    index = 0
    for name, values in outputs:
        for value in values.reshape(-1).tolist():
            weight = weights[name]
            weighted = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            log_progress(place, "    %s net output #%d: %s = %g%s", kind, index, name, value, weighted)
            index += 1


class OutputTally:
    """Adds up a test net's outputs, batch by batch, and logs their means."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.count = 0
        self._sums: dict[str, Any] = {}

    def add(self) -> None:
        """Takes the outputs of a batch."""
        self.count += 1
        for name in self.net.outputs:
            self._sums[name] = self._sums.get(name, 0) + self.net.blobs[name].raw_data().astype(np.float64)

    def log(self) -> None:
        """Logs a line for each number."""
        log_outputs(self.net, "Test", [(name, np.asarray(total / self.count)) for name, total in self._sums.items()])
