"""Reshape: the same values in another shape."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor


@register_layer("Reshape")
class ReshapeLayer(Layer):
    """Replaces the axes from `axis` to `axis + num_axes` by `shape`.

    bottom: any shape; not in place.
    top: as many values, in the same order.
    `reshape_param { shape { dim: D ... } axis: 0 num_axes: -1 }`. A dim of 0 copies the bottom's extent at the place
    where it comes to stand; one dim may be -1 and is computed from the others. A negative axis counts from the end, -1
    being behind the last axis; num_axes -1 stands for all axes from there (reshape_layer.cpp).

    Raises:
        LayerError: the top is the bottom, more than one dim is -1, or axis and num_axes are out of range.
        ShapeError: no axis to copy, or the counts do not agree.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    shares_data = True

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        self.dims = [int(dim) for dim in self.layer_param.reshape_param.shape.dim]
        if self.dims.count(-1) > 1:
            raise self.error(
                "new shape contains multiple -1 dims; at most a single (1) value of -1 may be specified. "
                f"Got {self.dims!r}."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        self.start, self.end = self._replaced_axes(len(shape))
        top = [*shape[: self.start], *self.dims, *shape[self.end :]]
        for i in (i for i, dim in enumerate(self.dims, self.start) if dim == 0):
            if i >= len(shape):
                raise ShapeError(
                    f"new shape contains a 0, but there was no corresponding bottom axis to copy. "
                    f"Got {self.dims!r} at axis {self.start!r} of shape {shape!r}."
                )
            top[i] = shape[i]
        count = math.prod(shape)
        if -1 in self.dims:
            inferred = self.start + self.dims.index(-1)
            explicit = math.prod(top[:inferred] + top[inferred + 1 :])
            if explicit == 0 or count % explicit:
                raise ShapeError(
                    f"bottom count ({count}) must be divisible by the product of the specified dimensions "
                    f"({explicit}). Got shape {shape!r} for dims {self.dims!r}."
                )
            top[inferred] = count // explicit
        if any(dim < 0 for dim in top) or math.prod(top) != count:
            raise ShapeError(
                f"output count must match input count. Got {math.prod(top)!r} for {count!r}: "
                f"shape {shape!r} cannot become {tuple(top)!r}."
            )
        return [tuple(top)]

    def _replaced_axes(self, num_axes: int) -> tuple[int, int]:
        param = self.layer_param.reshape_param
        start = param.axis if param.axis >= 0 else num_axes + param.axis + 1
        if not 0 <= start <= num_axes:
            raise self.error(f"axis {param.axis} out of range for {num_axes}-D input blob.")
        if param.num_axes < -1:
            raise self.error(f"num_axes must be >= 0, or -1 for all. Got {param.num_axes!r}.")
        end = num_axes if param.num_axes == -1 else start + param.num_axes
        if end > num_axes:
            raise self.error(
                "end_axis = axis + num_axes is out of range. "
                f"Got axis {param.axis!r}, num_axes {param.num_axes!r} for a {num_axes}-D blob."
            )
        return start, end

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0].reshape(self.top_shapes[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        # 0 and -1 mean in ONNX what they mean here, so no extent is fixed that the prototxt does not fix.
        behind = list(self.bottom_shapes[0][self.end :])
        if self.end == 0 and behind and -1 not in self.dims:
            behind[0] = -1  # the batch, moved back by new axes
        return [g.reshape(bottom[0], [0] * self.start + self.dims + behind)]
