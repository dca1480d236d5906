"""Correlation: how alike patches of two images are, over a neighbourhood of displacements."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["CorrelationLayer"]

SUBTRACT = 1  # CorrelationParameter.CorrelationType; MULTIPLY is 0
INT_MAX = 2**31 - 1
MOST_LOWERED = 1024  # displacements; each is three nodes of the graph


@register_layer("Correlation")
class CorrelationLayer(Layer):
    """y[n, q, i, j] = mean over channels and a K x K patch at (i, j) of a * b displaced by the q-th displacement.

    bottom: a, b (N, C, H, W).
    top: (N, D * D, H', W'), D = 2 * (max_displacement // stride_2) + 1: displacements in steps of stride_2 from
        -max_displacement on, row by row; H' = ceil((H + 2 * pad - 2 * (max_displacement + K // 2)) / stride_1).

    Parameters (correlation_param): kernel_size (K, odd) and max_displacement, required; pad (0), of zeros around both
    images; stride_1 (1), from patch to patch; stride_2 (1); correlation_type: MULTIPLY (default) or SUBTRACT, the mean
    of |a - b|. `do_abs` and `single_direction` are read and not used, as in the original.

    backward: the derivative. The original's for SUBTRACT takes its signs from pixels that do not belong together
    (correlation_layer.cu of FlowNet).

    Raises:
        LayerError: a required parameter is missing, `kernel_size` is even, or a stride is 0.
        ShapeError: the bottoms' shapes differ, no patch fits, or the padded image is too large.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "FlowNet"
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.correlation_param
        if not param.HasField("kernel_size"):
            raise self.error("Filter kernel_size is not set.")
        if not param.HasField("max_displacement"):
            raise self.error("Max displacement is required.")
        if param.kernel_size % 2 == 0:
            raise self.error(f"Odd kernel size required. Got {param.kernel_size!r}.")
        if 0 in (param.stride_1, param.stride_2):
            raise self.error(f"Strides cannot be zero. Got stride_1 {param.stride_1!r}, stride_2 {param.stride_2!r}.")
        self.kernel, self.reach, self.pad = int(param.kernel_size), int(param.max_displacement), int(param.pad)
        self.stride, self.step = int(param.stride_1), int(param.stride_2)
        self.subtract = param.correlation_type == SUBTRACT

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 4 or bottom[0] != bottom[1]:
            raise ShapeError(
                "Both bottom blobs must have same width, height and channels. Expected two of (N, C, H, W), "
                f"got shapes {bottom[0]!r} and {bottom[1]!r}."
            )
        num, channels, *size = bottom[0]
        padded = [extent + 2 * self.pad for extent in size]
        self.out = [-(-(extent - 2 * (self.reach + self.kernel // 2)) // self.stride) for extent in padded]
        if min(self.out) < 1:
            raise ShapeError(
                "Correlation cannot be done with current settings. Neighborhood and kernel don't fit in blob. "
                f"Got shape {bottom[0]!r}, padded {padded!r}, for displacement {self.reach} and kernel {self.kernel}."
            )
        if num * channels * math.prod(padded) > INT_MAX:
            raise ShapeError(f"blob size exceeds INT_MAX. Got the padded shape {(num, channels, *padded)!r}.")
        return [(num, self._displacements() ** 2, *self.out)]

    def _displacements(self) -> int:
        return 2 * (self.reach // self.step) + 1

    def multiply_adds(self) -> int:
        return math.prod(self.top_shapes[0]) * self.bottom_shapes[0][1] * self.kernel**2

    def _offsets(self) -> list[tuple[int, int]]:
        """Where the second image is read for each displacement: row and column in the padded image."""
        radius = self.reach // self.step
        steps = [self.reach + self.step * i for i in range(-radius, radius + 1)]
        return [(row, column) for row in steps for column in steps]

    def _spans(self) -> tuple[int, int]:
        """How many rows and columns of pixels all patches of one displacement cover."""
        height, width = ((extent - 1) * self.stride + self.kernel for extent in self.out)
        return height, width

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        a, b = (torch.nn.functional.pad(x, (self.pad,) * 4) for x in bottom)
        height, width = self._spans()
        a = a[:, :, self.reach : self.reach + height, self.reach : self.reach + width]
        maps = []
        for row, column in self._offsets():
            other = b[:, :, row : row + height, column : column + width]
            maps.append(((a - other).abs() if self.subtract else a * other).mean(1))
        alike = torch.stack(maps, 1)
        if self.kernel == 1:
            return [alike[:, :, :: self.stride, :: self.stride]]
        return [torch.nn.functional.avg_pool2d(alike, self.kernel, self.stride)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        offsets, (height, width) = self._offsets(), self._spans()
        if len(offsets) > MOST_LOWERED:
            raise NotLowerable(f"Correlation: {len(offsets)} displacements; at most {MOST_LOWERED} are written out")
        a, b = bottom
        if self.pad:
            pads = g.shape((0, 0, self.pad, self.pad) * 2)
            a, b = g.op("Pad", a, pads), g.op("Pad", b, pads)

        def piece(x: str, row: int, column: int) -> str:
            return g.op("Slice", x, g.shape((row, column)), g.shape((row + height, column + width)), g.shape((2, 3)))

        a, maps = piece(a, self.reach, self.reach), []
        for row, column in offsets:
            other = piece(b, row, column)
            value = g.op("Abs", g.op("Sub", a, other)) if self.subtract else g.op("Mul", a, other)
            maps.append(g.op("ReduceMean", value, axes=[1], keepdims=1))
        alike = g.op("Concat", *maps, axis=1)
        if self.kernel == 1 and self.stride == 1:
            return [alike]
        return [g.op("AveragePool", alike, kernel_shape=[self.kernel] * 2, strides=[self.stride] * 2)]
