"""WarpCTC: WarpCTCLoss under a shorter name."""

from __future__ import annotations

from pycaffe.layers._registry import register_layer
from pycaffe.layers.warp_ctc_loss import WarpCTCLossLayer

__all__ = ["WarpCTCLayer"]


@register_layer("WarpCTC", "WarpCtc")
class WarpCTCLayer(WarpCTCLossLayer):
    """As WarpCTCLoss, in all."""
