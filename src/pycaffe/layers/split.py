"""Split: gives one blob to several readers."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Split")
class SplitLayer(Layer):
    """Every top equals the bottom; the bottom's gradient is the sum of theirs.

    bottom, tops: any shape; not in place. Nets insert this layer where a blob has several readers (split_layer.cpp,
    insert_splits.cpp).

    Raises:
        LayerError: a top is the bottom.
    """

    exact_num_bottom_blobs = 1
    min_top_blobs = 1
    shares_data = True

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [bottom[0]] * self.num_top

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].view_as(bottom[0]) for _ in range(self.num_top)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Identity", bottom[0]) for _ in range(self.num_top)]
