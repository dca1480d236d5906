"""The parameters of a net under a solver's rule: their histories, and one step of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray, Shape, Storage
from pycaffe.graph import Parameter
from pycaffe.solvers.progress import log_progress
from pycaffe.solvers.update_rules import UpdateRule, UpdateStep, clip_scale, sum_of_squares, update

__all__ = ["ParameterUpdate"]


class ParameterUpdate:
    """Steps all parameters of a net.

    Args:
        param: the SolverParameter, read anew at each step.
        rule: the solver's arithmetic.
        parameters: those of the net; of shared ones the owner counts.
    """

    def __init__(self, param: Any, rule: UpdateRule, parameters: Sequence[Parameter]) -> None:
        self.param = param
        self.rule = rule
        self._parameters = [parameter for parameter in parameters if parameter.owner is None]
        self._history: list[FloatArray] = []

    @property
    def history_shapes(self) -> list[Shape]:
        """First those of the first history of each parameter, then of the second (sgd_solver.cpp, PreSolve)."""
        return [parameter.blob.shape for parameter in self._parameters] * self.rule.num_histories

    def history(self) -> list[FloatArray]:
        """The flat arrays in the order of `history_shapes`, made at the first look. They may be written to."""
        self._diffs()  # those that wait for the history as it is
        return self._own_history()

    def _own_history(self) -> list[FloatArray]:
        if not self._history:
            self._history = [np.zeros(math.prod(shape), np.float32) for shape in self.history_shapes]
        return self._history

    def own_values(self) -> None:
        """Brings values that lie in a mapped file into memory of this process."""
        for parameter in self._parameters:
            parameter.blob.data_storage.own()

    def apply(self, rate: float, iteration: int) -> None:
        """Takes the step of an iteration; the parameters' diffs then hold what was subtracted."""
        diffs = self._diffs()
        scale = self._clip(diffs)
        history = self._own_history()
        steps: dict[tuple[float, float], UpdateStep] = {}  # a net has two kinds of parameters, mostly
        for index, (parameter, diff) in enumerate(zip(self._parameters, diffs)):
            kind = parameter.lr_mult, parameter.decay_mult
            if kind not in steps:
                steps[kind] = UpdateStep(
                    rate=rate * parameter.lr_mult,
                    iteration=iteration,
                    decay=self.param.weight_decay * parameter.decay_mult,
                    regularization=self.param.regularization_type,
                    clip_scale=scale,
                    iter_size=self.param.iter_size,
                )
            values = parameter.blob.data_storage.changing()
            histories = history[index :: len(self._parameters)]
            update(self.rule, values, diff, histories, steps[kind])
            if self.rule.subtracts_history:
                _show(histories[0], parameter.blob.diff_storage)

    def _diffs(self) -> list[FloatArray]:
        return [parameter.blob.diff_storage.array() for parameter in self._parameters]

    def _clip(self, diffs: Sequence[FloatArray]) -> float:
        """What clipping scales all diffs by (sgd_solver.cpp, ClipGradients)."""
        limit = self.param.clip_gradients
        if limit < 0:
            return 1.0
        squares = sum(sum_of_squares(diff) for diff in diffs)
        scale = clip_scale(squares, limit)
        if scale != 1:
            message = "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g"
            log_progress("sgd_solver.cpp:99", message, math.sqrt(squares), limit, scale)
        return scale


class _Subtracted:
    """What a step subtracted, for a diff that nobody has looked at since: it is copied when somebody does."""

    def __init__(self, history: FloatArray, storage: Storage) -> None:
        self._history = history
        self._storage = storage

    def fetch(self) -> None:
        """Copies the values into the storage."""
        self._storage.put(self._history.copy())


def _show(history: FloatArray, storage: Storage) -> None:
    """Makes a history the values of a diff, as it is now."""
    if storage.leased:
        storage.array()[: history.size] = history
    else:
        storage.expect(_Subtracted(history, storage))
