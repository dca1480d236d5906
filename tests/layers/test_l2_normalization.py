"""L2Normalization on both engines."""

from __future__ import annotations

from tests.layers.item_norm import ItemNormTests


class TestL2Normalization(ItemNormTests):
    type = "L2Normalization"
