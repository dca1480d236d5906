"""Eltwise: the product, weighted sum or maximum of blobs, element by element."""

from __future__ import annotations

import functools
import operator

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

PROD, SUM, MAX = 0, 1, 2  # EltwiseParameter.EltwiseOp


@register_layer("Eltwise")
class EltwiseLayer(Layer):
    """Joins two or more blobs of one shape: y = sum coeff_i * x_i (SUM), x_0 * x_1 * ... (PROD), or their MAX.

    bottom, top: the same shape. `eltwise_param { operation: SUM coeff: C ... stable_prod_grad: true }`; coeff is empty
    or has one entry for each bottom.

    backward (eltwise_layer.cpp): the gradient of MAX goes to one bottom: of equal first two values to the second, after
    them to the earlier one. PROD multiplies the other bottoms, or with `stable_prod_grad: false` divides y by x_i,
    which is NaN where x_i is 0.

    Raises:
        LayerError: coeff has the wrong number of entries, or is given with PROD.
        ShapeError: the bottoms' shapes differ.
    """

    min_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.eltwise_param
        self.operation: int = param.operation
        self.coeffs: list[float] = list(param.coeff) or [1.0] * len(bottom)
        if len(self.coeffs) != len(bottom):
            raise self.error(
                "Eltwise Layer takes one coefficient per bottom blob. "
                f"Expected {len(bottom)!r} entries of coeff, got {self.coeffs!r}."
            )
        if self.operation == PROD and len(param.coeff):
            raise self.error(
                f"Eltwise layer only takes coefficients for summation. Got coeff {self.coeffs!r} with PROD."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        for i, shape in enumerate(bottom):
            if shape != bottom[0]:
                raise ShapeError(f"bottom[0]: {bottom[0]!r}, bottom[{i}]: {shape!r}. Eltwise needs equal shapes.")
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        if self.operation == PROD:
            return [functools.reduce(operator.mul, bottom)]
        if self.operation == MAX:
            return [self._maximum(bottom)[0]]
        weighted = [x if coeff == 1 else x * coeff for coeff, x in zip(self.coeffs, bottom)]
        return [functools.reduce(operator.add, weighted)]

    @staticmethod
    def _maximum(bottom: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The maximum, and by bottom where it is the one that gave it."""
        first = bottom[0] > bottom[1]
        y, won = torch.where(first, bottom[0], bottom[1]), [first, ~first]
        for x in bottom[2:]:
            larger = x > y
            y, won = torch.where(larger, x, y), [*(before & ~larger for before in won), larger]
        return y, won

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        diff = top_diff[0]
        won = self._maximum(bottom)[1] if self.operation == MAX else []
        diffs: list[Tensor | None] = [None] * len(bottom)
        for i in (i for i, wanted in enumerate(propagate_down) if wanted):
            if self.operation == MAX:
                diffs[i] = torch.where(won[i], diff, torch.zeros_like(diff))
            elif self.operation == SUM:
                diffs[i] = diff * self.coeffs[i]
            elif self.layer_param.eltwise_param.stable_prod_grad:
                diffs[i] = functools.reduce(operator.mul, (x for j, x in enumerate(bottom) if j != i)) * diff
            else:
                diffs[i] = top[0] / bottom[i] * diff
        return diffs, []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.operation == MAX:
            return [g.op("Max", *bottom)]
        if self.operation == PROD:
            return [functools.reduce(lambda a, b: g.op("Mul", a, b), bottom)]
        weighted = [x if coeff == 1 else g.op("Mul", x, g.constant(coeff)) for coeff, x in zip(self.coeffs, bottom)]
        return [functools.reduce(lambda a, b: g.op("Add", a, b), weighted)]
