"""L2Norm on both engines."""

from __future__ import annotations

from tests.layers.item_norm import ItemNormTests


class TestL2Norm(ItemNormTests):
    type = "L2Norm"
