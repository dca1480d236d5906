"""Adam: momentum, in units of the recent size of the gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["Adam"]


@register_solver("Adam")
class Adam(UpdateRule):
    """m = momentum · m + (1 - momentum) · g;  v = momentum2 · v + (1 - momentum2) · g²;
    w -= rate · √(1 - momentum2^t) / (1 - momentum^t) · m / (√v + delta), at the t-th step.

    History: m of all parameters, then v of all. delta is added to √v before the correction, other than in the paper
    (Kingma and Ba, 2015). As adam_solver.cpp.
    """

    num_histories = 2

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (m, v), (root,) = history, scratch
        beta1, beta2 = self.param.momentum, self.param.momentum2
        m.mul_(beta1).add_(diff, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(diff, diff, value=1 - beta2)
        torch.sqrt(v, out=root)
        torch.div(m, root.add_(self.param.delta), out=diff)
        correction = math.sqrt(1 - beta2 ** (iteration + 1)) / (1 - beta1 ** (iteration + 1))
        diff.mul_(rate * correction)
