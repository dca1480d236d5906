"""ArgMax: where the largest values stand."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("ArgMax")
class ArgMaxLayer(Layer):
    """The indices of the `top_k` largest values, largest first; of equal values the one with the larger index first.

    bottom: (N, ...).
    top: without `axis`, over all values of an item: (N, 1, top_k, 1...) indices with as many axes as the bottom and at
        least three; with `out_max_val` (N, 2, top_k, 1...), the indices and then the values. With `axis`, the bottom's
        shape with top_k along the axis: the indices, or with `out_max_val` the values alone.
    `argmax_param { out_max_val: false top_k: 1 axis }` (argmax_layer.cpp, which sorts pairs of value and index). It has
    no backward: as in the original, a gradient that should pass through it is an error; but `force_backward`, which is
    one there, stops here.

    Raises:
        LayerError: top_k is 0, the axis is out of range, or backward is asked for.
        ShapeError: there are fewer than top_k values.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.argmax_param
        self.top_k: int = param.top_k
        self.has_axis: bool = param.HasField("axis")
        self.out_max_val: bool = param.out_max_val
        if self.top_k < 1:
            raise self.error(f"top k must not be less than 1. Got {self.top_k!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if self.has_axis:
            self.axis = canonical_axis(self.layer_param.argmax_param.axis, len(shape))
            if self.top_k > shape[self.axis]:
                raise ShapeError(
                    "top_k must be less than or equal to the dimension of the axis. "
                    f"Got {self.top_k!r} for axis {self.axis!r} of shape {shape!r}."
                )
            return [(*shape[: self.axis], self.top_k, *shape[self.axis + 1 :])]
        if not shape or self.top_k > math.prod(shape[1:]):
            raise ShapeError(
                "top_k must be less than or equal to the dimension of the flattened bottom blob per instance. "
                f"Got {self.top_k!r} for shape {shape!r}."
            )
        self.axis = 1
        return [(shape[0], 2 if self.out_max_val else 1, self.top_k, *[1] * (len(shape) - 3))]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0] if self.has_axis else bottom[0].reshape(len(bottom[0]), -1)
        # Turned round, a stable sort leaves the larger of two equal values' indices in front.
        ordered = torch.sort(x.flip(self.axis), dim=self.axis, descending=True, stable=True)
        values = ordered.values.narrow(self.axis, 0, self.top_k)
        indices = x.shape[self.axis] - 1 - ordered.indices.narrow(self.axis, 0, self.top_k).to(x.dtype)
        if self.has_axis:
            return [values if self.out_max_val else indices]
        both = torch.cat([indices, values], dim=1) if self.out_max_val else indices
        return [both.reshape(len(x), *self.top_shapes[0][1:])]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        if propagate_down[0]:
            raise self.error("Not Implemented Yet: ArgMax has no gradient. Set propagate_down: false in this layer.")
        return [None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x = bottom[0] if self.has_axis else g.op("Flatten", bottom[0], axis=1)
        values, indices = self._lower_top_k(g, x)
        if self.has_axis:
            return [values if self.out_max_val else indices]
        both = g.op("Concat", indices, values, axis=1) if self.out_max_val else indices
        return [g.reshape(both, [0, *self.top_shapes[0][1:]])]

    def _lower_top_k(self, g: Lowering, x: str) -> tuple[str, str]:
        """The largest values along the axis and their indices, as floats."""
        from onnx import TensorProto

        if self.top_k == 1:
            index = g.op("ArgMax", x, axis=self.axis, keepdims=1, select_last_index=1)
            value = g.op("ReduceMax", x, axes=[self.axis], keepdims=1) if self.out_max_val else ""
            return value, g.op("Cast", index, to=TensorProto.FLOAT)
        shape = self.bottom_shapes[0]
        extent = shape[self.axis] if self.has_axis else math.prod(shape[1:])
        # Turned round, because TopK puts the smaller of two equal values' indices in front.
        beyond_start = g.shape([np.iinfo(np.int64).min])
        turned = g.op("Slice", x, g.shape([-1]), beyond_start, g.shape([self.axis]), g.shape([-1]))
        values, places = g.ops("TopK", turned, g.shape([self.top_k]), outputs=2, axis=self.axis)
        places = g.op("Cast", places, to=TensorProto.FLOAT)
        return values, g.op("Sub", g.constant(extent - 1), places)
