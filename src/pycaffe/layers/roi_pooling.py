"""ROIPooling: the largest value in each bin of regions of interest."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._roi import LIMIT, ONNX_FLOAT, check_pooled, check_rois, lower_rois, read_rois, round_away
from pycaffe.layers._roi_max import argmax_in_bins
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ROIPoolingLayer"]


@register_layer("ROIPooling")
class ROIPoolingLayer(Layer):
    """Cuts each region into PH x PW bins and takes the largest value of each.

    bottom: features (N, C, H, W); regions (R, 5): image, x1, y1, x2, y2, corners included, in pixels of the net's
        input.
    top: (R, C, PH, PW).

    Parameters (roi_pooling_param): pooled_h (PH) and pooled_w (PW), required; spatial_scale (1), from pixels to
    features; pad_ratio (0), which widens a region by that share of its size at each side and then, in features, cuts
    it at 0 and round(extent / spatial_scale) - 1 (MS-CNN).

    Corners are scaled, then rounded, halves away from zero. Bin i of n reaches from floor(i * h / n) to
    ceil((i + 1) * h / n), where h is the region's extent, at least 1, and is cut off at the features' edge; an empty
    bin gives 0. Bins overlap.

    backward: to the first of the largest values of each bin in row order. Regions that are inverted get none, although
    they are pooled as one pixel; nor do the regions' coordinates (roi_pooling_layer.cu of Fast R-CNN and R-FCN).

    A region with a value that is not finite lies outside the features: it gives zeros.

    Raises:
        LayerError: an extent of the top is 0, or the scale is not positive.
        ShapeError: the bottoms are not of these shapes.
        InputError: a region's image is not in the batch.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "Fast R-CNN"
    checked_by = "R-FCN"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.roi_pooling_param
        self.pooled = check_pooled(param.pooled_h, param.pooled_w)
        self.scale, self.pad_ratio = float(param.spatial_scale), float(param.pad_ratio)
        if not (0 < self.scale < math.inf and 0 <= self.pad_ratio < math.inf):
            raise self.error(
                "spatial_scale must be positive and pad_ratio must not be negative. "
                f"Got {self.scale!r} and {self.pad_ratio!r}."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [(check_rois(bottom), bottom[0][1], *self.pooled)]

    def _limits(self, width: int, height: int) -> tuple[list[float], list[float]]:
        """What the scaled corners are cut at: x1, y1, x2, y2, from below and from above."""
        if not self.pad_ratio:
            return [-LIMIT] * 4, [LIMIT] * 4
        ends = [min(LIMIT, math.floor(extent / self.scale + 0.5) - 1.0) for extent in (width, height)]
        return [0.0, 0.0, -LIMIT, -LIMIT], [LIMIT, LIMIT, *ends]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, (channels, height, width) = bottom[0], bottom[0].shape[1:]
        image, corners = read_rois(bottom[1], x.shape[0])
        if self.pad_ratio:
            pad = (corners[:, 2:] - corners[:, :2] + 1) * self.pad_ratio
            corners = torch.cat([corners[:, :2] - pad, corners[:, 2:] + pad], 1)
        lowest, highest = (torch.tensor(limit).to(x) for limit in self._limits(width, height))
        corners = round_away(torch.minimum(torch.maximum(corners * self.scale, lowest), highest)).to(torch.int64)
        start, size = corners[:, :2], corners[:, 2:] - corners[:, :2] + 1
        columns = _bins(start[:, 0], size[:, 0], self.pooled[1], width, x.dtype)
        rows = _bins(start[:, 1], size[:, 1], self.pooled[0], height, x.dtype)
        index = argmax_in_bins(x.detach(), image, rows, columns)
        plane = (image[:, None] * channels + torch.arange(channels, device=x.device)) * (height * width)
        values = x.reshape(-1).gather(0, (plane[:, :, None, None] + index).reshape(-1)).reshape(index.shape)
        inverted = (size < 1).any(1)
        values = torch.where(inverted[:, None, None, None], values.detach(), values)
        empty = (rows[0] == rows[1])[:, :, None] | (columns[0] == columns[1])[:, None, :]
        return [torch.where(empty[:, None], torch.zeros_like(values), values)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        image, corners = lower_rois(g, bottom[1], self.bottom_shapes[0][0])
        if self.pad_ratio:
            low, high = g.ops("Split", corners, g.shape((2, 2)), outputs=2, axis=1)
            size = g.op("Add", g.op("Sub", high, low), g.constant(1.0))
            pad = g.op("Mul", size, g.constant(self.pad_ratio))
            corners = g.op("Concat", g.op("Sub", low, pad), g.op("Add", high, pad), axis=1)
        # scaled here, since MaxRoiPool would turn huge coordinates into integers unclipped
        scaled = g.op("Mul", corners, g.constant(self.scale))
        lowest, highest = self._limits(*self.bottom_shapes[0][:1:-1])
        scaled = g.op("Min", g.op("Max", scaled, g.constant([lowest])), g.constant([highest]))
        rois = g.op("Concat", g.op("Cast", image, to=ONNX_FLOAT), scaled, axis=1)
        return [g.op("MaxRoiPool", bottom[0], rois, pooled_shape=list(self.pooled), spatial_scale=1.0)]


def _bins(start: Tensor, size: Tensor, bins: int, extent: int, dtype: object) -> tuple[Tensor, Tensor]:
    """First and past-the-end positions of each region's bins along one axis, (R, bins), within 0 .. extent."""
    # float arithmetic decides where a bin ends, as in the original: 3 * (7 / 3) may be above 7
    step = size.clamp(min=1).to(dtype)[:, None] / bins
    index = torch.arange(bins, device=start.device).to(dtype)
    low = (index * step).floor().to(torch.int64) + start[:, None]
    high = ((index + 1) * step).ceil().to(torch.int64) + start[:, None]
    low, high = low.clamp(0, extent), high.clamp(0, extent)
    return low, torch.maximum(low, high)
