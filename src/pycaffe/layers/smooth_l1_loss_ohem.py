"""SmoothL1LossOHEM: R-FCN's SmoothL1Loss under a name of its own."""

from __future__ import annotations

from pycaffe.layers._registry import register_layer
from pycaffe.layers.smooth_l1_loss import SmoothL1LossLayer

__all__ = ["SmoothL1LossOHEMLayer"]


@register_layer("SmoothL1LossOHEM")
class SmoothL1LossOHEMLayer(SmoothL1LossLayer):
    """What SmoothL1Loss is in R-FCN, in every dialect: forks that hold both layers renamed this one.

    bottom: a, b (N, C, H, W) and optionally a weight of their difference.
    top: a scalar; optionally each position's loss, (N, 1, H, W), which BoxAnnotatorOHEM reads.

    Parameters (loss_param): as R-FCN's SmoothL1Loss (smooth_l1_loss_ohem_layer.cpp).
    """

    max_bottom_blobs = 3
    checked_by = "R-FCN"
    origin = "R-FCN"

    def meaning(self, bottoms: int) -> str:
        return "rfcn"
