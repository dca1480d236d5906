"""Crop."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor

__all__ = ["CropLayer"]


@register_layer("Crop")
class CropLayer(Layer):
    """Cuts a piece of the size of the second bottom out of the first, on all axes from `axis` on.

    y[n, c, h, w] = x[n, c, h + offset_h, w + offset_w].

    bottom[0]: (N, C, H, W) or any shape.  bottom[1]: only its extents from `axis` on matter; it gets no gradient.
    top: the extents of bottom[0] before `axis`, those of bottom[1] from there on.

    Parameters (crop_param): axis (2), offset (0; once for all axes, or once for each). As in crop_layer.cpp.

    Raises:
        LayerError: `axis` is out of range, or there are neither one offset nor one per axis.
        ShapeError: the piece does not lie within bottom[0].
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param, axes = self.layer_param.crop_param, len(bottom[0])
        start = canonical_axis(param.axis, axes)
        if len(param.offset) > 1 and start + len(param.offset) != axes:
            raise self.error(
                "number of offset values specified must be equal to the number of dimensions following axis. "
                f"Got offset {list(param.offset)!r} for {axes - start} axes of shape {bottom[0]!r}."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        (source, size), offset = bottom, list(self.layer_param.crop_param.offset)
        start = canonical_axis(self.layer_param.crop_param.axis, len(source))
        if len(size) < len(source):
            raise ShapeError(
                f"axis {len(source) - 1} out of range for {len(size)}-D Blob with shape {size!r}, the crop's size: "
                f"bottom[0] has shape {source!r}."
            )
        self.offsets = (0,) * start + tuple(offset if len(offset) > 1 else (offset or [0]) * (len(source) - start))
        for axis in range(start, len(source)):
            if source[axis] - self.offsets[axis] < size[axis]:
                raise ShapeError(
                    f"the crop for dimension {axis} is out-of-bounds with size {size[axis]} and offset "
                    f"{self.offsets[axis]}. bottom[0] has shape {source!r}, bottom[1] {size!r}."
                )
        return [source[:start] + size[start : len(source)]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [bottom[0][tuple(slice(at, at + size) for at, size in zip(self.offsets, self.top_shapes[0]))]]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        source, top = self.bottom_shapes[0], self.top_shapes[0]
        cut = [axis for axis in range(len(source)) if source[axis] != top[axis]]
        if not cut:
            return [g.op("Identity", bottom[0])]
        bounds = np.array([(self.offsets[axis], self.offsets[axis] + top[axis], axis) for axis in cut], np.int64)
        starts, ends, axes = (g.shape(column) for column in bounds.T)
        return [g.op("Slice", bottom[0], starts, ends, axes)]
