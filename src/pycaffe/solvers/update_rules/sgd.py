"""SGD: stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.layers._torch import Tensor
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["SGD"]


@register_solver("SGD")
class SGD(UpdateRule):
    """h = momentum · h + rate · g;  w -= h.

    The rate is inside of h, other than in PyTorch's SGD: when it changes, the gradients of earlier steps keep the rate
    of their time. As sgd_solver.cpp.
    """

    num_scratch = 0
    subtracts_history = True

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (h,) = history
        h.mul_(self.param.momentum).add_(diff, alpha=rate)
