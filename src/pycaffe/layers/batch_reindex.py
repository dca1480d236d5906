"""BatchReindex: picks items of a batch, in any order and number."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("BatchReindex")
class BatchReindexLayer(Layer):
    """y[m] = x[index[m]].

    bottom: x, (N, ...); index, (M,), whole numbers in [0, N).
    top: (M, ...).

    backward: the gradients of an item that was picked several times add up. Nothing flows to the index: as in the
    original it is an error to ask for that; but `force_backward`, which asks for it there, does not here
    (batch_reindex_layer.cpp).

    Raises:
        ShapeError: the index does not have one axis, or x has none.
        LayerError: an index is out of range (in forward), or backward to the index is asked for.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        x, index = bottom
        if len(index) != 1:
            raise ShapeError(f"Check failed: 1 == bottom[1]->num_axes() (1 vs. {len(index)}). Got shape {index!r}.")
        if not x:
            raise ShapeError(f"bottom[0] needs a batch axis. Got shape {x!r}.")
        return [(index[0], *x[1:])]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, index = bottom
        if index.numel():
            smallest, largest = float(index.min()), float(index.max())
            if not smallest >= 0:
                raise self.error(f"Index specified for reindex layer was negative. Got {smallest!r}.")
            if not largest < x.shape[0]:
                raise self.error(
                    "Index specified for reindex layer was greater than batch size. "
                    f"Got {largest!r} for a batch of {x.shape[0]!r}."
                )
        return [x.index_select(0, index.long())]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        if propagate_down[1]:
            raise self.error("Cannot backprop to index. Set propagate_down: true, propagate_down: false in this layer.")
        if not propagate_down[0]:
            return [None, None], []
        return [torch.zeros_like(bottom[0]).index_add(0, bottom[1].long(), top_diff[0]), None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        from onnx import TensorProto

        index = g.op("Cast", bottom[1], to=TensorProto.INT64)
        # ONNX counts negative indices from the end; out of bounds, onnxruntime refuses them.
        negative, beyond = g.op("Less", bottom[1], g.constant(0)), g.constant(2**31 - 1, np.int64)
        return [g.op("Gather", bottom[0], g.op("Where", negative, beyond, index), axis=0)]
