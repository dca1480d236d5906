"""L2Normalization: items of length 1."""

from __future__ import annotations

from pycaffe.layers._item_norm import ItemNormLayer
from pycaffe.layers._registry import register_layer


@register_layer("L2Normalization")
class L2NormalizationLayer(ItemNormLayer):
    """Divides each item by its L2 norm: y = x / sqrt(sum of x^2 + 1e-10).

    bottom, top: (N, ...); the sum goes over everything but N. No parameters: see _item_norm.py for where forks differ.
    SSD's Normalize has a scale, and norms by pixel.
    """
