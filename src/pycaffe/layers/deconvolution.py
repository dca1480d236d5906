"""Deconvolution: transposed convolution."""

from __future__ import annotations

from pycaffe.layers._convolution import BaseConvolutionLayer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer

__all__ = ["DeconvolutionLayer"]


@register_layer("Deconvolution")
class DeconvolutionLayer(BaseConvolutionLayer):
    """Convolution with forward and backward exchanged: each input pixel adds its multiple of a filter to the output.

    y[n, o, stride * i + dilation * t - pad] += weight[c, o, t] * x[n, c, i], and bias[o] once; what falls outside is
    lost.

    bottom: one or more, all of one shape (N, C, H, W).
    top: as many, (N, C', H', W') with H' = stride * (H - 1) + dilation * (kernel - 1) + 1 - 2 * pad.
    blobs: weight (C, C' / group, kernel_h, kernel_w) and, with `bias_term`, bias (C',).

    Parameters: see `BaseConvolutionLayer`. As in deconv_layer.cpp and base_conv_layer.cpp.

    Raises:
        LayerError: the window or the groups are wrong.  ShapeError: channels or axes changed, or nothing would remain.
    """

    transposed = True

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        pad = self.window.with_axis().pad
        return [self.lower_one(g, x, params, "ConvTranspose", [*pad, *pad]) for x in bottom]
