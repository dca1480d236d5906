"""SoftmaxWithLossOHEM: R-FCN's SoftmaxWithLoss under a name of its own."""

from __future__ import annotations

from pycaffe.layers._registry import register_layer
from pycaffe.layers.softmax_with_loss import SoftmaxWithLossLayer

__all__ = ["SoftmaxWithLossOHEMLayer"]


@register_layer("SoftmaxWithLossOHEM")
class SoftmaxWithLossOHEMLayer(SoftmaxWithLossLayer):
    """SoftmaxWithLoss, whose third top, each position's loss, BoxAnnotatorOHEM reads; forks renamed R-FCN's layer.

    bottom: scores (N, C, H, W) and labels.
    top: a scalar; the softmax, (N, C, H, W); each position's loss, of the labels' shape.

    Parameters: as SoftmaxWithLoss (softmax_loss_ohem_layer.cpp).
    """

    origin = "R-FCN"
    checked_by = "NumPy loop"
