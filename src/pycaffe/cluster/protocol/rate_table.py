"""The learning rate of each iteration on a server whose pieces are not all at the same one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pycaffe.solvers.learning_rate import LearningRate
from pycaffe.solvers.progress import SmoothedLoss

__all__ = ["RateTable"]

# Pieces of a server are an iteration or two apart; a rate is needed no more when it is so many behind.
KEPT = 64


class RateTable:
    """Asks the policy once for each iteration, in ascending order, as a solver does, and remembers the answers.

    Policies such as `multistep` count their calls' events, so a second call for an iteration could move them on.

    Args:
        param: the SolverParameter.
        workers: W; `average_loss` counts iterations, to each of which W losses belong.
    """

    def __init__(self, param: Any, workers: int) -> None:
        self._policy = LearningRate(param)
        self._smoothed = SmoothedLoss(param.average_loss * workers)
        self._rates: dict[int, float] = {}

    def add_losses(self, losses: Iterable[float]) -> None:
        """Losses of steps, which policy `plateau` looks at; those that are not finite are left out."""
        for loss in losses:
            if math.isfinite(loss):
                self._smoothed.add(loss)

    def knows(self, iteration: int) -> bool:
        """Whether the rate of an iteration was asked for."""
        return iteration in self._rates

    def at(self, iteration: int) -> float:
        """The rate of the update that follows `iteration`."""
        if iteration not in self._rates:
            self._rates[iteration] = self._policy.at(iteration, self._smoothed.value)
            self._rates.pop(iteration - KEPT, None)
        return self._rates[iteration]

    def state(self) -> dict[str, Any]:
        """What `restore` takes, for a checkpoint."""
        policy = self._policy
        return {
            "current_step": policy.current_step,
            "minimum_loss": policy.minimum_loss,
            "iter_last_event": policy.iter_last_event,
            "smoothed": self._smoothed.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`, or from none: {}. The part "smoothed" may be missing."""
        if "current_step" in state:
            self._policy.restore(state["current_step"], state["minimum_loss"], state["iter_last_event"])
        if "smoothed" in state:
            self._smoothed.restore(**state["smoothed"])
