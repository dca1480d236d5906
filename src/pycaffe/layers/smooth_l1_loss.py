"""SmoothL1Loss: squares of small differences, absolute values of large ones."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import BATCH_SIZE, FULL, NONE, PRE_FIXED, VALID, check_first_dimension, legacy_extents
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["SmoothL1LossLayer"]


@register_layer("SmoothL1Loss")
class SmoothL1LossLayer(LossLayer):
    """loss = 1/Z * sum of w_out * f(w_in * (a - b)), f(d) = s^2 d^2 / 2 where |d| < 1 / s^2, else |d| - 1 / (2 s^2).

    bottom: a and b (N, C, H, W); w_in of that shape (optional); w_out of that shape (Faster R-CNN's, together with
        w_in). a and b get gradients, weights none.
    top: a scalar; R-FCN's optional second one is the sum over C of f, (N, 1, H, W), through which no gradient flows.

    The forks give the type three meanings:

    - SSD, YOLO and SegNet: s = 1, Z = N.
    - R-FCN: s = 1, `sigma` is ignored; Z by `loss_param`: N * H * W for FULL and VALID (default), N for BATCH_SIZE, 1
      for NONE, `pre_fixed_normalizer` (1) for PRE_FIXED; at least 1. The flag `normalize` means VALID or BATCH_SIZE.
    - Faster R-CNN: s = `smooth_l1_loss_param.sigma` (1), Z = N; both weights or none.

    Four bottoms are Faster R-CNN's. Else the net's dialect decides where it is "rfcn" or "frcnn"; without it,
    `loss_param` or a second top mean R-FCN, `sigma` Faster R-CNN (R-FCN with three bottoms), and the rest is SSD.

    backward: f' / Z. With w_in alone (SSD, R-FCN) it is not multiplied by w_in, which the derivative would be
    (smooth_L1_loss_layer.cpp and .cu of the forks).

    Raises:
        LayerError: Faster R-CNN's with one weight or two tops, or its sigma is 0.
        ShapeError: the bottoms' shapes differ.
    """

    exact_num_bottom_blobs = None
    min_bottom_blobs = 2
    max_bottom_blobs = 4
    min_top_blobs = 1
    max_top_blobs = 2
    origin = "Fast R-CNN"
    checked_by = "SSD, R-FCN, Faster R-CNN"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2

    def meaning(self, bottoms: int) -> str:
        """The dialect that this layer is written in."""
        loss = self.layer_param.loss_param
        if bottoms == 4:
            return "frcnn"
        if self.dialect in ("rfcn", "frcnn"):
            return self.dialect
        if self.num_top == 2 or any(map(loss.HasField, ("normalization", "normalize", "pre_fixed_normalizer"))):
            return "rfcn"
        if self.layer_param.smooth_l1_loss_param.HasField("sigma"):
            return "frcnn" if bottoms == 2 else "rfcn"
        return "ssd"

    def setup(self, bottom: list[Shape]) -> None:
        meaning = self.meaning(len(bottom))
        sigma = self.layer_param.smooth_l1_loss_param.sigma if meaning == "frcnn" else 1.0
        self.sigma2 = float(sigma) ** 2
        if not 0 < self.sigma2 < math.inf:
            raise self.error(f"sigma must be a number other than 0. Got {sigma!r}.")
        if meaning == "frcnn" and len(bottom) == 3:
            raise self.error(
                "If weights are used, must specify both inside and outside weights. Got 3 bottoms; R-FCN's layer takes "
                'one weight: dialect="rfcn".'
            )
        if meaning == "frcnn" and self.num_top > 1:
            raise self.error("Faster R-CNN's SmoothL1Loss has one top; only R-FCN's has a second. Got 2 tops.")
        self.mode = self._mode() if meaning == "rfcn" else BATCH_SIZE
        self.fixed = max(1.0, float(self.layer_param.loss_param.pre_fixed_normalizer))

    def _mode(self) -> int:
        param = self.layer_param.loss_param
        if param.HasField("normalize") and not param.HasField("normalization"):
            return VALID if param.normalize else BATCH_SIZE
        return int(param.normalization)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        extents = [legacy_extents(shape) for shape in bottom]
        for i, other in enumerate(extents[1:], 1):
            if other != extents[0]:
                raise ShapeError(
                    f"Check failed: bottom[0]->channels() == bottom[{i}]->channels(), and so on for height and width. "
                    f"Inputs must have the same dimension. Got shapes {bottom[0]!r} and {bottom[i]!r}."
                )
        num, _, height, width = extents[0]
        return [(), (num, 1, height, width)][: self.num_top]

    # -- torch

    def _difference(self, bottom: list[Tensor]) -> Tensor:
        difference = bottom[0] - bottom[1].reshape(bottom[0].shape)
        return difference * bottom[2].reshape(difference.shape) if len(bottom) > 2 else difference

    def _divisor(self, shape: Shape) -> float:
        num, _, height, width = legacy_extents(shape)
        divisors = {BATCH_SIZE: num, FULL: num * height * width, VALID: num * height * width, NONE: 1}
        return self.fixed if self.mode == PRE_FIXED else float(max(1, divisors[self.mode]))

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        difference = self._difference(bottom)
        size = difference.abs()
        errors = torch.where(
            size < 1 / self.sigma2, 0.5 * self.sigma2 * difference * difference, size - 0.5 / self.sigma2
        )
        if len(bottom) == 4:
            errors = errors * bottom[3].reshape(errors.shape)
        tops = [errors.sum() / self._divisor(tuple(errors.shape))]
        if self.num_top > 1:
            tops.append(errors.detach().reshape(legacy_extents(tuple(errors.shape))).sum(1, keepdim=True))
        return tops

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Slope / Z; times both weights where there are two, but not times a single one."""
        difference = self._difference(bottom)
        slope = torch.where(difference.abs() < 1 / self.sigma2, self.sigma2 * difference, difference.sign())
        slope = slope * (top_diff[0] / self._divisor(tuple(slope.shape)))
        if len(bottom) == 4:
            slope = slope * bottom[2].reshape(slope.shape) * bottom[3].reshape(slope.shape)
        diffs: list[Tensor | None] = [None] * len(bottom)
        for i, sign in ((0, 1), (1, -1)):
            if propagate_down[i]:
                diffs[i] = (sign * slope).reshape(bottom[i].shape)
        return diffs, []

    # -- ONNX

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        shape = self.bottom_shapes[0]
        values = [g.reshape(v, (-1, *shape[1:])) if s != shape else v for v, s in zip(bottom, self.bottom_shapes)]
        difference = g.op("Sub", values[0], values[1])
        if len(values) > 2:
            difference = g.op("Mul", difference, values[2])
        size = g.op("Abs", difference)
        square = g.op("Mul", g.op("Mul", difference, difference), g.constant(0.5 * self.sigma2))
        small = g.op("Less", size, g.constant(1 / self.sigma2))
        errors = g.op("Where", small, square, g.op("Sub", size, g.constant(0.5 / self.sigma2)))
        if len(values) == 4:
            errors = g.op("Mul", errors, values[3])
        tops = [self._lower_loss(g, errors)]
        if self.num_top > 1:
            _, channels, height, width = legacy_extents(shape)
            errors = g.reshape(errors, (-1, channels, height, width))
            tops.append(g.op("ReduceSum", errors, g.shape((1,)), keepdims=1))
        return tops

    def _lower_loss(self, g: Lowering, errors: str) -> str:
        """The sum by Z; as a multiple of the mean where Z has N in it, which keeps the batch size out of the graph."""
        _, channels, height, width = legacy_extents(self.bottom_shapes[0])
        if self.mode in (NONE, PRE_FIXED):
            divisor = self.fixed if self.mode == PRE_FIXED else 1.0
            return g.op("Div", g.op("ReduceSum", errors, keepdims=0), g.constant(divisor))
        terms = channels * (height * width if self.mode == BATCH_SIZE else 1)
        return g.op("Mul", g.op("ReduceMean", errors, keepdims=0), g.constant(float(terms)))
