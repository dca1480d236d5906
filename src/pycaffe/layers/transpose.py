"""Transpose: the axes in another order."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["TransposeLayer"]


@register_layer("Transpose")
class TransposeLayer(Layer):
    """Axis i of the top is axis dim[i] of the bottom.

    bottom: any shape.  top: the same extents in another order. `transpose_param { dim: ... }`, once for each axis.
    As in transpose_layer.cpp of caffe_ocr.

    Raises:
        LayerError: the top is the bottom.  ShapeError: `dim` does not name each axis once.
    """

    origin = "caffe_ocr"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        self.dim = tuple(self.layer_param.transpose_param.dim)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if sorted(self.dim) != list(range(len(shape))):
            raise ShapeError(
                "the dimensions of the top blob and bottom blob must be equal. "
                f"dim names each axis once: got dim {list(self.dim)!r} for shape {shape!r}."
            )
        return [tuple(shape[axis] for axis in self.dim)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].permute(self.dim)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.op("Transpose", bottom[0], perm=list(self.dim))]
