"""ResizeBilinear."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._resize import check_planes, lower_resize, sample_from_corner
from pycaffe.layers._torch import Tensor

__all__ = ["ResizeBilinearLayer"]


@register_layer("ResizeBilinear")
class ResizeBilinearLayer(Layer):
    """Resizes planes bilinearly: pixel (h, w) of the top shows (h * H / H', w * W / W') of the bottom.

    bottom: (N, C, H, W).  top: (N, C, H', W'), rounded down from H * factor, or as `height` and `width` say.

    Parameters (resize_bilinear_param): factor, or height and width. As in resizebilinear_layer.cpp, which has no
    backward; here it is the derivative.

    Raises:
        LayerError: neither or both, or a size that is not positive.  ShapeError: nothing remains.
    """

    origin = "TensorFlow converters"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.resize_bilinear_param
        has = param.HasField
        self.factor: float | None = param.factor if has("factor") else None
        self.size = (param.height, param.width)
        by_size = has("height") and has("width")
        if by_size == has("factor") or (has("factor") and not 0 < param.factor < float("inf")):
            raise self.error(
                "Only supports factor greater than 0, or height and width. "
                f"Got factor {self.factor!r}, height {param.height!r}, width {param.width!r}."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        num, channels, height, width = check_planes("ResizeBilinear", bottom[0])
        size = self.size if self.factor is None else (int(height * self.factor), int(width * self.factor))
        if 0 in size:
            raise ShapeError(f"output height and width should be positive. Got {size!r} for shape {bottom[0]!r}.")
        return [(num, channels, *size)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        height, width = self.top_shapes[0][2:]
        return [sample_from_corner(bottom[0], (height, width))]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        (height, width), wanted = self.bottom_shapes[0][2:], self.top_shapes[0][2:]
        options = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
        return [lower_resize(g, bottom[0], (height, width), (wanted[0], wanted[1]), **options)]
