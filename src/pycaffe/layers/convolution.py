"""Convolution."""

from __future__ import annotations

from pycaffe.layers._convolution import BaseConvolutionLayer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer

__all__ = ["ConvolutionLayer"]


@register_layer("Convolution")
class ConvolutionLayer(BaseConvolutionLayer):
    """Correlates each bottom with a bank of learned filters and adds a bias, in any number of spatial dimensions.

    y[n, o, i] = bias[o] + sum over c, t of weight[o, c, t] * x[n, c, stride * i + dilation * t - pad], zeros outside;
    c runs over the input channels of the group of o.

    bottom: one or more, all of one shape (N, C, H, W).
    top: as many, (N, C', H', W') with H' = (H + 2 * pad - (dilation * (kernel - 1) + 1)) / stride + 1. The division
        truncates towards zero, as C's does: a kernel that overhangs the padded image by less than a stride gives one
        output.
    blobs: weight (C', C / group, kernel_h, kernel_w) and, with `bias_term`, bias (C',).

    Parameters: see `BaseConvolutionLayer`. As in conv_layer.cpp and base_conv_layer.cpp.

    Raises:
        LayerError: the window or the groups are wrong.  ShapeError: channels or axes changed, or nothing would remain.
    """

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        window = self.window.with_axis()
        spatial = self.bottom_shapes[0][self.axis + 1 :] or (1,)
        pads = [*window.pad, *window.end_pad(spatial)]
        return [self.lower_one(g, x, params, "Conv", pads) for x in bottom]
