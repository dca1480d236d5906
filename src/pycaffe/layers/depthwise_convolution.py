"""DepthwiseConvolution."""

from __future__ import annotations

from pycaffe.layers._registry import register_layer
from pycaffe.layers.convolution import ConvolutionLayer

__all__ = ["DepthwiseConvolutionLayer"]


@register_layer("DepthwiseConvolution")
class DepthwiseConvolutionLayer(ConvolutionLayer):
    """A Convolution under another name, whose prototxts have as many groups as channels (MobileNet).

    bottom: one or more, all of one shape (N, C, H, W).  top: as many, (N, C', H', W').
    blobs: weight (C', C / group, kernel_h, kernel_w) and, with `bias_term`, bias (C',).

    Parameters: see `BaseConvolutionLayer`. As in depth_conv_layer.cpp on the CPU, where `group` says how many channels
    a filter sees; the fork's GPU code takes one channel a filter whatever `group` is.
    """

    origin = "MobileNet"
    checked_by = "MobileNet-YOLO"
