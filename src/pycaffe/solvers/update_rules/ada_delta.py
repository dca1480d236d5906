"""AdaDelta: steps as large as the recent ones, in units of the recent gradients."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver

__all__ = ["AdaDelta"]


@register_solver("AdaDelta")
class AdaDelta(UpdateRule):
    """h = momentum · h + (1 - momentum) · g²;  u = g · √((k + delta) / (h + delta));
    k = momentum · k + (1 - momentum) · u²;  w -= rate · u.

    History: h of all parameters, then k of all. As adadelta_solver.cpp.
    """

    num_histories = 2
    num_scratch = 2

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        (h, k), (ratio, below) = history, scratch
        momentum, delta = self.param.momentum, self.param.delta
        h.mul_(momentum).addcmul_(diff, diff, value=1 - momentum)
        torch.add(k, delta, out=ratio)
        torch.add(h, delta, out=below)
        diff.mul_(ratio.div_(below).sqrt_())
        k.mul_(momentum).addcmul_(diff, diff, value=1 - momentum)
        diff.mul_(rate)
