"""ImResize: bicubic resizing of score maps, averaged over scales."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._resize import Size, check_planes, lower_resize
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ImResizeLayer"]


@register_layer("ImResize")
class ImResizeLayer(Layer):
    """Resizes planes with OpenCV's INTER_CUBIC; the items of a batch are one image at several scales (OpenPose).

    bottom: (N, C, H, W): item n shows the image at scale start_scale - n * scale_gap, with a frame around it.
    top: (1, C, H', W'): the mean of the items, each without its frame and resized. H' is H * factor, rounded down, or
        target_spatial_height.

    Parameters (imresize_param): factor (0: use the targets), target_spatial_height and target_spatial_width (368),
    start_scale (1), scale_gap (0.1). As in CPM's imresize_layer: the frame and the mean are its GPU's (its CPU writes
    behind the top where N > 1), the kernel (a = -0.75) is its CPU's. It has no backward; here it is the derivative.

    Raises:
        LayerError: the factor is negative or not finite.  ShapeError: nothing remains, of a frame or of the top.
    """

    origin = "OpenPose"
    checked_by = "OpenCV"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.imresize_param
        self.factor: float = param.factor
        if not 0 <= self.factor < math.inf:
            raise self.error(f"ImResize's factor is not negative. Got {self.factor!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param = self.layer_param.imresize_param
        num, channels, height, width = check_planes("ImResize", bottom[0])
        size = (param.target_spatial_height, param.target_spatial_width)
        if self.factor:
            size = (int(height * self.factor), int(width * self.factor))
        self.frames = [self._frame(param.start_scale - n * param.scale_gap, (height, width)) for n in range(num)]
        for rows, columns in self.frames:
            if min(rows, columns, height - 2 * rows - 1, width - 2 * columns - 1) < 0:
                raise ShapeError(
                    "ImResize: the scales start_scale - n * scale_gap lie between 0 and 1 and leave some of the image. "
                    f"Got start_scale {param.start_scale!r}, scale_gap {param.scale_gap!r} for shape {bottom[0]!r}."
                )
        if 0 in size or not num:
            raise ShapeError(f"ImResize's top would be empty. Got shape {bottom[0]!r} and the size {size!r}.")
        return [(1, channels, *size)]

    def _frame(self, scale: float, size: Size) -> Size:
        """Rows and columns at each side that are not the image. A scale that is no number leaves nothing."""
        if not math.isfinite(scale):
            return -1, -1
        rows, columns = (math.floor(extent // 2 * round(1 - scale, 6)) for extent in size)
        return rows, columns

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        _, _, height, width = bottom[0].shape
        resized = []
        for n, (rows, columns) in enumerate(self.frames):
            inside = bottom[0][n : n + 1, :, rows : height - rows, columns : width - columns]
            size = self.top_shapes[0][2:]
            resized.append(torch.nn.functional.interpolate(inside, size, mode="bicubic", align_corners=False))
        return [torch.cat(resized).mean(0, keepdim=True)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        (_, _, height, width), (_, _, *wanted) = self.bottom_shapes[0], self.top_shapes[0]
        options = {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.75}
        resized = []
        for n, (rows, columns) in enumerate(self.frames):
            starts, ends = (n, rows, columns), (n + 1, height - rows, width - columns)
            inside = g.op("Slice", bottom[0], g.shape(starts), g.shape(ends), g.shape([0, 2, 3]))
            size = (height - 2 * rows, width - 2 * columns)
            resized.append(lower_resize(g, inside, size, (wanted[0], wanted[1]), **options))
        return [g.op("Mean", *resized)]
