"""ROIAlign: averages of interpolated values in the bins of regions of interest."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._roi import check_pooled, check_rois, lower_rois, read_rois
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ROIAlignLayer"]

BEYOND = 8  # how many extents of the features a region may reach out of them
MOST_SAMPLES = 1024
CHUNK = 2**24  # values of half-interpolated features at a time


@register_layer("ROIAlign")
class ROIAlignLayer(Layer):
    """Cuts each region into PH x PW bins and averages bilinear samples at even distances in each.

    bottom: features (N, C, H, W); regions (R, 5): image, x1, y1, x2, y2, in pixels of the net's input.
    top: (R, C, PH, PW).

    Parameters (roi_align_param): pooled_h (PH) and pooled_w (PW), required; spatial_scale (1), from pixels to
    features; sampling_ratio (-1): samples a bin along each axis; not above 0: ceil(bin's extent).

    Nothing is rounded: corners are scaled, the extents are x2 - x1 and y2 - y1, at least 1. Values lie at integer
    positions; a sample farther than 1 beyond them counts as 0, a nearer one takes the edge's value. As in Detectron and
    the forks that port it; ports of Mask R-CNN from before it differ (one sample a bin, or the largest).

    Both interpolations and the averages are linear and separate: a region's bins are A x B, with A of (PH, H) and B of
    (W, PW). No gradient flows to the regions.

    Regions are cut where they reach out of the features by more than 8 times their extent, which bounds the number of
    samples; one with a value that is not finite gives zeros.

    Raises:
        LayerError: an extent of the top is 0, the scale is not positive, or `sampling_ratio` is above 1024.
        ShapeError: the bottoms are not of these shapes.
        InputError: a region's image is not in the batch.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "Mask R-CNN"
    checked_by = "NumPy loop"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.roi_align_param
        self.pooled = check_pooled(param.pooled_h, param.pooled_w)
        self.scale, self.samples = float(param.spatial_scale), max(0, int(param.sampling_ratio))
        if not 0 < self.scale < math.inf:
            raise self.error(f"spatial_scale must be positive. Got {self.scale!r}.")
        if self.samples > MOST_SAMPLES:
            raise self.error(f"sampling_ratio must be at most {MOST_SAMPLES}. Got {self.samples!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [(check_rois(bottom), bottom[0][1], *self.pooled)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, (images, channels, height, width) = bottom[0], bottom[0].shape
        image, corners = read_rois(bottom[1], images)
        corners = corners * self.scale
        across = self._shares(corners[:, 0], corners[:, 2], self.pooled[1], width)
        down = self._shares(corners[:, 1], corners[:, 3], self.pooled[0], height)
        order = torch.argsort(image, stable=True)
        parts = []
        for n in range(images):
            plane = x[n].permute(1, 0, 2).reshape(height, channels * width)
            chunk = max(1, CHUNK // (self.pooled[0] * channels * width))
            for some in order[image[order] == n].split(chunk):
                rows = down[some].reshape(-1, height) @ plane
                rows = rows.reshape(len(some), self.pooled[0] * channels, width) @ across[some].transpose(1, 2)
                parts.append(rows.reshape(len(some), self.pooled[0], channels, self.pooled[1]).transpose(1, 2))
        if not parts:
            return [x.new_zeros(0, channels, *self.pooled)]
        return [torch.cat(parts)[torch.argsort(order)]]

    def _shares(self, start: Tensor, end: Tensor, bins: int, extent: int) -> Tensor:
        """What each position adds to each bin along one axis: (R, bins, extent)."""
        start, end = (corner.clamp(-BEYOND * extent, (BEYOND + 1) * extent) for corner in (start, end))
        size = (end - start).clamp(min=1)
        step = (size / bins)[:, None, None]
        samples = torch.full_like(step, self.samples) if self.samples else step.ceil()
        each = torch.arange(int(samples.max()) if len(samples) else 0, device=start.device).to(start.dtype) + 0.5
        bin_index = torch.arange(bins, device=start.device).to(start.dtype)[:, None]
        at = start[:, None, None] + bin_index * step + each * step / samples
        share = ((each < samples) & (at >= -1) & (at <= extent)).to(at.dtype) / samples
        at = at.clamp(0, extent - 1)
        low = at.floor()
        shares = torch.zeros(*at.shape[:2], extent, dtype=at.dtype, device=at.device)
        shares.scatter_add_(2, low.to(torch.int64), share * (1 - (at - low)))
        shares.scatter_add_(2, (low + 1).clamp(max=extent - 1).to(torch.int64), share * (at - low))
        return shares

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        images, _, height, width = self.bottom_shapes[0]
        image, corners = lower_rois(g, bottom[1], images)
        corners = g.op("Mul", corners, g.constant(self.scale))
        extents = [width, height, width, height]
        corners = g.op("Max", corners, g.constant([[-float(BEYOND * extent) for extent in extents]]))
        corners = g.op("Min", corners, g.constant([[float((BEYOND + 1) * extent) for extent in extents]]))
        return [
            g.op(
                "RoiAlign",
                bottom[0],
                corners,
                g.reshape(image, (-1,)),
                coordinate_transformation_mode="output_half_pixel",
                mode="avg",
                output_height=self.pooled[0],
                output_width=self.pooled[1],
                sampling_ratio=self.samples,
                spatial_scale=1.0,
            )
        ]
