"""LRN: local response normalization."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._pooling import AVE, PoolWindow
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["LRNLayer"]

ACROSS_CHANNELS = 0  # LRNParameter.NormRegion


@register_layer("LRN")
class LRNLayer(Layer):
    """Divides each value by a power of the energy around it.

    ACROSS_CHANNELS: y = x / (k + alpha / n * sum of x^2 over the n channels around)^beta.
    WITHIN_CHANNEL: y = x / (1 + alpha / n^2 * sum of x^2 over the n x n pixels around)^beta; `k` is not used.
    Outside the blob x is zero, and the divisor stays n, or n^2.

    bottom, top: (N, C, H, W).

    Parameters (lrn_param): local_size n (5, odd), alpha (1), beta (0.75), norm_region (ACROSS_CHANNELS), k (1); engine:
    ignored. As in lrn_layer.cpp.

    Raises:
        LayerError: an even local_size.  ShapeError: not 4 axes.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.lrn_param
        self.size, self.across = param.local_size, param.norm_region == ACROSS_CHANNELS
        if self.size % 2 != 1:
            raise self.error(f"LRN only supports odd values for local_size. Got {self.size!r}.")
        self.alpha, self.beta, self.k = param.alpha, param.beta, param.k
        half = (self.size - 1) // 2
        self.window = PoolWindow(AVE, (self.size, self.size), pad=(half, half))

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 4:
            raise ShapeError(
                f"Input must have 4 axes, corresponding to (num, channels, height, width). Got shape {bottom[0]!r}."
            )
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        if self.across:
            return [_across_channels()(x, self._band(x.shape[1]), self.k, self.beta)]
        return [x * (1 + self.alpha * self.window.forward(x * x)[0]) ** -self.beta]

    def _band(self, channels: int) -> FloatArray:
        """The matrix that makes alpha / n * energy of a pixel's squares: alpha / n where two channels are near."""
        distance = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels)))
        band: FloatArray = ((distance <= (self.size - 1) // 2) * (self.alpha / self.size)).astype(np.float32)
        return band

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x = bottom[0]
        scale = self._lower_across(g, x) if self.across else self._lower_within(g, x)
        if self.beta == 0.75:  # two square roots are many times as fast as a power
            root = g.op("Sqrt", scale)
            return [g.op("Div", x, g.op("Mul", root, g.op("Sqrt", root)))]
        return [g.op("Mul", x, g.op("Pow", scale, g.constant(-self.beta)))]

    def _lower_across(self, g: Lowering, x: str) -> str:
        """The divisor's base, k + alpha / n * energy, as a 1 x 1 convolution with a banded matrix over the squares.

        onnxruntime's own LRN takes half of GoogLeNet's time (benchmarks/bench_inference.py). On a CPU a session
        leaves out the zeros around the band (engines/rewrites/banded_convolution.py).
        """
        channels = self.bottom_shapes[0][1]
        weight = g.constant(self._band(channels).reshape(channels, channels, 1, 1))
        return g.op("Conv", g.op("Mul", x, x), weight, g.constant(np.full(channels, self.k)))

    def _lower_within(self, g: Lowering, x: str) -> str:
        height, width = self.bottom_shapes[0][2:]
        energy = self.window.lower(g, g.op("Mul", x, x), (height, width))[0]
        return g.op("Add", g.op("Mul", energy, g.constant(self.alpha)), g.constant(1.0))


@functools.cache
def _across_channels() -> Any:
    """The function of torch; made at the first use, when torch is there.

    With s = k + band x^2 and y = x s^-beta, dx = dy s^-beta - 2 beta x band (dy y / s): two products with the banded
    matrix, where torch's own local_response_norm spends a third of a GoogLeNet's training iteration
    (benchmarks/bench_training.py).
    """

    class AcrossChannels(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Tensor, band: FloatArray, k: float, beta: float) -> Tensor:
            matrix = torch.from_numpy(band).to(x)
            scale = _mix(x * x, matrix).add_(k)
            factor = scale.pow(-beta)
            ctx.save_for_backward(x, scale, factor, matrix)
            ctx.beta = beta
            return x * factor

        @staticmethod
        def backward(ctx: Any, diff: Tensor) -> tuple[Tensor | None, ...]:
            x, scale, factor, matrix = ctx.saved_tensors
            through = diff * factor
            shares = (through * x).div_(scale)
            return through.sub_(_mix(shares, matrix).mul_(x), alpha=2 * ctx.beta), None, None, None

    return AcrossChannels.apply


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """(N, C, H, W) with each pixel's channels multiplied by a (C, C) matrix; channels-last is taken as it lies."""
    return torch.nn.functional.linear(x.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)
