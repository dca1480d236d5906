"""AdaGrad: a rate for each weight, smaller the larger its gradients were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycaffe.errors import SolverError
from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["AdaGrad"]


@register_solver("AdaGrad")
class AdaGrad(UpdateRule):
    """h += g²;  w -= rate · g / (√h + delta).

    As adagrad_solver.cpp. Raises SolverError where momentum is set.
    """

    def __init__(self, param: Any) -> None:
        super().__init__(param)
        if param.momentum != 0:
            raise SolverError(f"Momentum cannot be used with AdaGrad. Got momentum: {param.momentum:g}; remove it.")

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (h,), (root,) = history, scratch
        h.addcmul_(diff, diff)
        torch.sqrt(h, out=root)
        diff.div_(root.add_(self.param.delta)).mul_(rate)
