"""The learning rate at an iteration: `lr_policy` of the solver.

    fixed       base_lr
    step        base_lr · gamma ^ floor(iter / stepsize)
    exp         base_lr · gamma ^ iter
    inv         base_lr · (1 + gamma · iter) ^ -power
    multistep   base_lr · gamma ^ (how many stepvalues have been reached)
    poly        base_lr · (1 - iter / max_iter) ^ power
    sigmoid     base_lr / (1 + exp(-gamma · (iter - stepsize)))
    plateau     base_lr · gamma ^ (how often the smoothed loss fell no lower for plateau_winsize iterations)     (SSD)
    multifixed  stagelr of the first stage whose stageiter has not been passed                          (R-FCN and SSD)

As sgd_solver.cpp, GetLearningRate, of BVLC and of the forks.
"""

from __future__ import annotations

import math
from typing import Any

from pycaffe.errors import SolverError, did_you_mean
from pycaffe.solvers.progress import log_progress

__all__ = ["LearningRate"]

NO_MINIMUM = 1e38  # SolverState.minimum_loss of a solver that has seen no loss


class LearningRate:
    """The policy of a solver with the state that some policies keep.

    Args:
        param: the SolverParameter, read anew at each iteration.

    Attributes:
        current_step: how often the rate was lowered (step, multistep, plateau); goes into snapshots.
        minimum_loss, iter_last_event: of plateau: the lowest smoothed loss, and when that or the rate changed last.

    Raises:
        SolverError: the policy is unknown.
    """

    def __init__(self, param: Any) -> None:
        self.param = param
        self.current_step = 0
        self.minimum_loss = NO_MINIMUM
        self.iter_last_event = 0
        if param.HasField("lr_policy"):
            self._policy()

    def at(self, iteration: int, smoothed_loss: float) -> float:
        """The rate for the update that follows iteration `iteration`; moves `current_step` on.

        Raises:
            SolverError: the policy is unknown or lacks a parameter, or the rate is no finite number.
        """
        rate = float(self._policy()(iteration, smoothed_loss))
        if not math.isfinite(rate):
            raise SolverError(
                f"The learning rate of policy {self.param.lr_policy!r} is {rate!r} at iteration {iteration}. "
                "Check base_lr, gamma, power and max_iter."
            )
        return rate

    def restore(self, current_step: int, minimum_loss: float | None, iter_last_event: int | None) -> None:
        """Goes on from what a solver state holds."""
        self.current_step = current_step
        self.minimum_loss = NO_MINIMUM if minimum_loss is None else minimum_loss
        self.iter_last_event = iter_last_event or 0

    def _policy(self) -> Any:
        policies = {
            "fixed": self._fixed,
            "step": self._step,
            "exp": self._exp,
            "inv": self._inv,
            "multistep": self._multistep,
            "poly": self._poly,
            "sigmoid": self._sigmoid,
            "plateau": self._plateau,
            "multifixed": self._multifixed,
        }
        name = self.param.lr_policy
        if name not in policies:
            raise SolverError(
                f"Unknown learning rate policy: {name} (known policies: {', '.join(policies)})."
                f"{did_you_mean(name, policies)}"
            )
        return policies[name]

    # -- the policies

    def _fixed(self, iteration: int, smoothed_loss: float) -> float:
        return float(self.param.base_lr)

    def _step(self, iteration: int, smoothed_loss: float) -> float:
        self._check_positive("stepsize")
        self.current_step = iteration // self.param.stepsize
        return self._lowered(self.current_step)

    def _exp(self, iteration: int, smoothed_loss: float) -> float:
        return self._lowered(iteration)

    def _inv(self, iteration: int, smoothed_loss: float) -> float:
        self._check_not_negative("gamma")
        return float(self.param.base_lr) * _power(1 + self.param.gamma * iteration, -self.param.power)

    def _multistep(self, iteration: int, smoothed_loss: float) -> float:
        values = self.param.stepvalue
        if self.current_step < len(values) and iteration >= values[self.current_step]:
            self.current_step += 1
            log_progress("sgd_solver.cpp:50", "MultiStep Status: Iteration %d, step = %d", iteration, self.current_step)
        return self._lowered(self.current_step)

    def _poly(self, iteration: int, smoothed_loss: float) -> float:
        self._check_positive("max_iter")
        return float(self.param.base_lr) * _power(1 - iteration / self.param.max_iter, self.param.power)

    def _sigmoid(self, iteration: int, smoothed_loss: float) -> float:
        self._check_not_negative("gamma")
        self._check_positive("stepsize")
        exponent = min(-self.param.gamma * (iteration - self.param.stepsize), 700.0)  # e^710 is no double any more
        return float(self.param.base_lr) / (1 + math.exp(exponent))

    def _plateau(self, iteration: int, smoothed_loss: float) -> float:
        if smoothed_loss < self.minimum_loss:
            self.minimum_loss, self.iter_last_event = smoothed_loss, iteration
        sizes = self.param.plateau_winsize
        if self.current_step < len(sizes) and iteration >= self.iter_last_event + sizes[self.current_step]:
            self.current_step += 1
            self.iter_last_event = iteration
            log_progress("sgd_solver.cpp:78", "Plateau Status: Iteration %d, step = %d", iteration, self.current_step)
        return self._lowered(self.current_step)

    def _multifixed(self, iteration: int, smoothed_loss: float) -> float:
        rates, ends = list(self.param.stagelr), list(self.param.stageiter)
        if not rates or len(rates) != len(ends):
            raise SolverError(
                "Check failed: stageiter_size == stagelr_size. Policy 'multifixed' needs one or more of both; got "
                f"stagelr {rates!r}, stageiter {ends!r}."
            )
        return float(next((rate for rate, end in zip(rates, ends) if iteration <= end), rates[-1]))

    # -- what they share

    def _lowered(self, times: int) -> float:
        self._check_not_negative("gamma")
        return float(self.param.base_lr) * _power(self.param.gamma, times)

    def _check_positive(self, name: str) -> None:
        value = getattr(self.param, name)
        if value <= 0:
            raise SolverError(f"Check failed: {name} > 0 ({value} vs. 0). Policy {self.param.lr_policy!r} needs it.")

    def _check_not_negative(self, name: str) -> None:
        value = getattr(self.param, name)
        if value < 0:
            raise SolverError(f"Check failed: {name} >= 0 ({value:g} vs. 0), for policy {self.param.lr_policy!r}.")


def _power(base: float, exponent: float) -> float:
    """C's pow: infinity and NaN where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan
