"""ConvolutionDepthwise."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import canonical_axis
from pycaffe.layers._registry import register_layer
from pycaffe.layers.convolution import ConvolutionLayer

__all__ = ["ConvolutionDepthwiseLayer"]


@register_layer("ConvolutionDepthwise", "ConvolutionDepthWise")
class ConvolutionDepthwiseLayer(ConvolutionLayer):
    """Correlates each channel with one filter of its own (ShuffleNet).

    y[n, c, i] = bias[c] + sum over t of weight[c, 0, t] * x[n, c, stride * i + dilation * t - pad], zeros outside.

    bottom: (N, C, H, W).  top: (N, C, H', W') as Convolution's.
    blobs: weight (C, 1, kernel_h, kernel_w) and, with `bias_term`, bias (C,).

    Parameters (convolution_param): as `BaseConvolutionLayer`'s, but `num_output` and `group` count for nothing: both
    are C, as in the fork's conv_dw_layer.cpp.
    """

    origin = "ShuffleNet"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        own = type(self.layer_param)()  # what is set here is this layer's, not the net's
        own.CopyFrom(self.layer_param)
        param = own.convolution_param
        param.num_output = param.group = bottom[0][canonical_axis(param.axis, len(bottom[0]))]
        self.layer_param = own
        super().setup(bottom)
