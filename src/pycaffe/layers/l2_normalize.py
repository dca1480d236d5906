"""L2Normalize: items of length 1."""

from __future__ import annotations

from pycaffe.layers._item_norm import ItemNormLayer
from pycaffe.layers._registry import register_layer


@register_layer("L2Normalize")
class L2NormalizeLayer(ItemNormLayer):
    """As L2Norm, under the name that forks for triplets of images use (l2normalize_layer.cpp)."""
