"""Permute: the axes in another order."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Permute")
class PermuteLayer(Layer):
    """Puts the bottom's axes into another order: axis i of the top is axis `order[i]` of the bottom.

    bottom: any shape; not in place.
    top: its axes in the order; (N, C, H, W) with `order: 0 order: 2 order: 3 order: 1` becomes (N, H, W, C).
    `permute_param { order: A ... }`, none by default. Axes that it does not name follow in their own order
    (permute_layer.cpp of SSD).

    Raises:
        LayerError: an axis that the bottom does not have, or twice the same one, or the top is the bottom.
        ShapeError: the bottom has another number of axes than at first.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    origin = "SSD"

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        named, axes = list(self.layer_param.permute_param.order), len(bottom[0])
        for axis in named:
            if axis >= axes:
                raise self.error(
                    f"order should be less than the input dimension. Got {axis!r} for shape {bottom[0]!r}."
                )
        if len(set(named)) != len(named):
            raise self.error(f"there are duplicate orders. Got {named!r}.")
        self.order = [*named, *(axis for axis in range(axes) if axis not in named)]

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != len(self.order):
            raise ShapeError(f"Check failed: num_axes_ == orders.size() ({len(bottom[0])} vs. {len(self.order)}).")
        return [tuple(bottom[0][axis] for axis in self.order)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].permute(self.order)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Transpose", bottom[0], perm=self.order)]
