"""Im2col: the windows of a convolution as columns."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._convolution import ConvolutionWindow, im2col
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["Im2colLayer"]


@register_layer("Im2col")
class Im2colLayer(Layer):
    """Copies each window of a convolution into a column, in any number of spatial dimensions.

    y[n, (c * kernel_h + i) * kernel_w + j, h, w] = x[n, c, stride_h * h + dilation_h * i - pad_h, ...], zeros outside.

    bottom: (N, C, H, W).
    top: (N, C * kernel_h * kernel_w, H', W') with H' as in Convolution.

    Parameters (convolution_param): kernel_size, stride, pad, dilation, axis, force_nd_im2col as in Convolution. As in
    im2col_layer.cpp.

    Raises:
        LayerError: the window is wrong, or there is no spatial axis.  ShapeError: no window fits.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param, shape = self.layer_param.convolution_param, bottom[0]
        self.axis = canonical_axis(param.axis, len(shape))
        if self.axis == len(shape) - 1:
            raise self.error(f"Check failed: num_spatial_axes_ >= 1. Got shape {shape!r} and axis {param.axis!r}.")
        self.window = ConvolutionWindow.of(param, len(shape) - self.axis - 1)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        spatial = shape[self.axis + 1 :]
        if len(spatial) != len(self.window.kernel):
            raise ShapeError(
                f"bottom num_axes may not change. Expected {len(self.window.kernel)} spatial axes, got shape {shape!r}."
            )
        output = self.window.output(spatial)
        if any(extent < 1 for extent in output):
            raise ShapeError(
                f"Check failed: shape[i] >= 0. The output would have extents {output!r}: input {spatial!r}, "
                f"{self.window!r}. Give a larger input or more pad."
            )
        return [(*shape[: self.axis], shape[self.axis] * math.prod(self.window.kernel), *output)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0].reshape(-1, *self.bottom_shapes[0][self.axis :])
        return [im2col(x, self.window).reshape(self.top_shapes[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        """A depthwise Conv whose filters are one-hot: ONNX has Col2Im, but no inverse of it."""
        channels, *spatial = self.bottom_shapes[0][self.axis :]
        taps = math.prod(self.window.kernel)
        weight = g.constant(np.tile(np.eye(taps), (channels, 1)).reshape(channels * taps, 1, *self.window.kernel))
        x = bottom[0] if self.axis == 1 else g.reshape(bottom[0], (-1, channels, *spatial))
        pads = [*self.window.pad, *self.window.end_pad(spatial)]
        y = g.op("Conv", x, weight, pads=pads, group=channels, **self.window.onnx())
        top = self.top_shapes[0]
        return [y if self.axis == 1 else g.reshape(y, (-1, *top[1:]) if self.axis else top)]
