"""Nesterov: momentum that looks ahead."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["Nesterov"]


@register_solver("Nesterov")
class Nesterov(UpdateRule):
    """h' = momentum · h + rate · g;  w -= (1 + momentum) · h' - momentum · h.

    As nesterov_solver.cpp.
    """

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (h,), (before,) = history, scratch
        momentum = self.param.momentum
        before.copy_(h)
        h.mul_(momentum).add_(diff, alpha=rate)
        torch.mul(h, 1 + momentum, out=diff)
        diff.add_(before, alpha=-momentum)
