"""Tile: repeats a blob along an axis."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Tile")
class TileLayer(Layer):
    """Puts `tiles` copies of its bottom behind each other along an axis.

    bottom: any shape with the axis.
    top: its extent along the axis is `tiles` times the bottom's.
    `tile_param { axis: 1 tiles: T }`; tiles is required (tile_layer.cpp).

    Raises:
        LayerError: tiles is missing or not positive, or the axis is out of range.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param, shape = self.layer_param.tile_param, bottom[0]
        axis = canonical_axis(param.axis, len(shape))
        if not param.HasField("tiles"):
            raise self.error("Number of tiles must be specified. Add tiles to tile_param.")
        if param.tiles <= 0:
            raise self.error(f"Number of tiles must be positive. Got {param.tiles!r}.")
        self.repeats = [param.tiles if i == axis else 1 for i in range(len(shape))]
        return [tuple(extent * repeat for extent, repeat in zip(shape, self.repeats))]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].repeat(self.repeats)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Tile", bottom[0], g.shape(self.repeats))]
