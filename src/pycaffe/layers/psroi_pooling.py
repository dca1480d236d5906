"""PSROIPooling: averages over the bins of regions of interest, each bin from channels of its own."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._roi import ONNX_FLOAT, ONNX_INT64, check_rois, lower_rois, lower_round, read_rois, round_away
from pycaffe.layers._torch import Tensor, torch

__all__ = ["PSROIPoolingLayer"]

SMALLEST = 0.1  # of a region's extents in features
ONNX_DOUBLE = 11  # TensorProto.DataType


@register_layer("PSROIPooling")
class PSROIPoolingLayer(Layer):
    """y[r, d, i, j] = mean of x[image_r, (d * G + i) * G + j] over bin (i, j) of region r: position-sensitive pooling.

    bottom: features (N, D * G * G, H, W); regions (R, 5): image, x1, y1, x2, y2, corners included, in pixels of the
        net's input.
    top: (R, D, G, G).

    Parameters (psroi_pooling_param): spatial_scale, from pixels to features; output_dim (D); group_size (G). All are
    required.

    Corners are rounded, halves away from zero, then scaled; the region reaches to the end of its last pixel and is at
    least 0.1 wide and high. Bin i of G reaches from floor(start + i * h / G) to ceil(start + (i + 1) * h / G) and is
    cut off at the features' edge; an empty bin gives 0.

    A bin's sum is four values of a table of running sums, in double precision: the cost is the same for small and
    large bins. A region with a value that is not finite gives zeros; a feature that is not spoils all behind it in its
    plane. No gradient flows to the regions (psroi_pooling_layer.cu of R-FCN).

    Raises:
        LayerError: a parameter is not positive.
        ShapeError: the bottoms are not of these shapes.
        InputError: a region's image is not in the batch.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "R-FCN"
    checked_by = "R-FCN"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.psroi_pooling_param
        for name in ("output_dim", "group_size"):
            value = getattr(param, name)
            if value < 1:
                raise self.error(f"Check failed: {name} > 0 ({value} vs. 0) {name} must be > 0. Got {value!r}.")
        if not param.HasField("spatial_scale") or not 0 < param.spatial_scale < float("inf"):
            raise self.error(f"spatial_scale is required and must be positive. Got {param.spatial_scale!r}.")
        self.scale, self.depth, self.group = float(param.spatial_scale), int(param.output_dim), int(param.group_size)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        regions, expected = check_rois(bottom), self.depth * self.group**2
        if bottom[0][1] != expected:
            raise ShapeError(
                f"Check failed: channels_ == output_dim_*group_size_*group_size_ ({bottom[0][1]} vs. {expected}) input "
                f"channel number does not match layer parameters. Got shape {bottom[0]!r}."
            )
        return [(regions, self.depth, self.group, self.group)]

    def _planes(self) -> np.ndarray:
        """The channel of each element of the top, (D, G, G)."""
        return np.arange(self.depth * self.group**2).reshape(self.depth, self.group, self.group)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, (images, channels, height, width) = bottom[0], bottom[0].shape
        image, corners = read_rois(bottom[1], images)
        corners = round_away(corners)
        start, end = corners[:, :2] * self.scale, (corners[:, 2:] + 1) * self.scale
        columns, rows = (self._bins(start[:, axis], end[:, axis], extent) for axis, extent in ((0, width), (1, height)))
        sums = torch.nn.functional.pad(x.to(torch.float64).cumsum(2).cumsum(3), (1, 0, 1, 0)).reshape(-1)
        plane = image[:, None, None, None] * channels + torch.from_numpy(self._planes()).to(image)

        def up_to(row: Tensor, column: Tensor) -> Tensor:
            index = (plane * (height + 1) + row[:, None, :, None]) * (width + 1) + column[:, None, None, :]
            return sums.gather(0, index.reshape(-1)).reshape(index.shape)

        (top, low), (left, right) = rows, columns
        total = up_to(low, right) - up_to(top, right) - up_to(low, left) + up_to(top, left)
        area = (low - top)[:, None, :, None] * (right - left)[:, None, None, :]
        return [(total / area.clamp(min=1)).to(x.dtype)]  # the sum over an empty bin is 0: it is between equal bounds

    def _bins(self, start: Tensor, end: Tensor, extent: int) -> tuple[Tensor, Tensor]:
        step = (end - start).clamp(min=SMALLEST)[:, None] / self.group
        index = torch.arange(self.group, device=start.device).to(start.dtype)
        low = (index * step + start[:, None]).floor().clamp(0, extent)
        high = ((index + 1) * step + start[:, None]).ceil().clamp(0, extent)
        return low.to(torch.int64), torch.maximum(low, high).to(torch.int64)

    # -- ONNX

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        images, channels, height, width = self.bottom_shapes[0]
        image, corners = lower_rois(g, bottom[1], images)
        low, high = g.ops("Split", lower_round(g, corners), g.shape((2, 2)), outputs=2, axis=1)
        scale = g.constant(self.scale)
        start, end = g.op("Mul", low, scale), g.op("Mul", g.op("Add", high, g.constant(1.0)), scale)
        left, right = self._lower_bins(g, start, end, 0, width)
        upper, lower = self._lower_bins(g, start, end, 1, height)
        sums = g.op("Cast", bottom[0], to=ONNX_DOUBLE)
        for axis in (2, 3):
            sums = g.op("CumSum", sums, g.constant(axis, np.int64))
        sums = g.reshape(g.op("Pad", sums, g.shape((0, 0, 1, 1, 0, 0, 0, 0))), (-1,))
        plane = g.op("Mul", g.reshape(image, (-1, 1, 1, 1)), g.constant(channels, np.int64))
        plane = g.op("Add", plane, g.constant(self._planes()[None], np.int64))
        plane = g.op("Mul", plane, g.constant(height + 1, np.int64))

        def up_to(row: str, column: str) -> str:
            index = g.op("Mul", g.op("Add", plane, row), g.constant(width + 1, np.int64))
            return g.op("Gather", sums, g.op("Add", index, column), axis=0)

        total = g.op("Sub", up_to(lower, right), up_to(upper, right))
        total = g.op("Sub", total, g.op("Sub", up_to(lower, left), up_to(upper, left)))
        area = g.op("Mul", g.op("Sub", lower, upper), g.op("Sub", right, left))
        area = g.op("Cast", g.op("Max", area, g.constant(1, np.int64)), to=ONNX_DOUBLE)
        return [g.op("Cast", g.op("Div", total, area), to=ONNX_FLOAT)]

    def _lower_bins(self, g: Lowering, start: str, end: str, axis: int, extent: int) -> tuple[str, str]:
        """`_bins` of x (axis 0) or y (axis 1), with an axis for each of the top's."""
        start, end = (g.op("Gather", value, g.constant([axis], np.int64), axis=1) for value in (start, end))
        step = g.op("Div", g.op("Max", g.op("Sub", end, start), g.constant(SMALLEST)), g.constant(float(self.group)))
        index, limits = np.arange(self.group), (g.constant(0.0), g.constant(float(extent)))

        def bound(count: np.ndarray, rounding: str) -> str:
            at = g.op("Add", g.op("Mul", step, g.constant(count[None])), start)
            return g.op("Clip", g.op(rounding, at), *limits)

        low, high = bound(index, "Floor"), bound(index + 1, "Ceil")
        shape = (-1, 1, 1, self.group) if axis == 0 else (-1, 1, self.group, 1)
        low, high = (g.op("Cast", g.reshape(v, shape), to=ONNX_INT64) for v in (low, g.op("Max", low, high)))
        return low, high
