"""RMSProp: a rate for each weight by the recent size of its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycaffe.errors import SolverError
from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["RMSProp"]


@register_solver("RMSProp")
class RMSProp(UpdateRule):
    """h = rms_decay · h + (1 - rms_decay) · g²;  w -= rate · g / (√h + delta).

    As rmsprop_solver.cpp. Raises SolverError where momentum is set, or rms_decay is not in [0, 1).
    """

    def __init__(self, param: Any) -> None:
        super().__init__(param)
        if param.momentum != 0:
            raise SolverError(f"Momentum cannot be used with RMSProp. Got momentum: {param.momentum:g}; remove it.")
        if not 0 <= param.rms_decay < 1:
            raise SolverError(f"rms_decay should lie between 0 and 1. Got rms_decay: {param.rms_decay:g}.")

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (h,), (root,) = history, scratch
        decay = self.param.rms_decay
        h.mul_(decay).addcmul_(diff, diff, value=1 - decay)
        torch.sqrt(h, out=root)
        diff.div_(root.add_(self.param.delta)).mul_(rate)
