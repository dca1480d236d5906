"""L2Normalize on both engines."""

from __future__ import annotations

from tests.layers.item_norm import ItemNormTests


class TestL2Normalize(ItemNormTests):
    type = "L2Normalize"
