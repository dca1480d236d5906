"""Interp: bilinear resizing."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._resize import Size, check_planes, lower_resize
from pycaffe.layers._torch import Tensor, torch

__all__ = ["InterpLayer"]


@register_layer("Interp")
class InterpLayer(Layer):
    """Resizes planes bilinearly, corner pixels onto corner pixels, after an optional crop (DeepLab, PSPNet, ICNet).

    bottom[0]: (N, C, H, W).  bottom[1], optional: only its height and width matter; it gets no gradient.
    top: (N, C, H', W'). With H the height that the crop leaves, H' is by the parameters present (interp_param):
        shrink_factor: (H - 1) / shrink_factor + 1, rounded down.
        zoom_factor: H + (H - 1) * (zoom_factor - 1); with shrink_factor, too, after it.
        height and width: these.  A second bottom: its height and width.
    pad_beg, pad_end (0): not above 0; so many rows and columns are cut off at the begin and at the end.
    As in interp_layer.cpp.

    Raises:
        LayerError: no size or several, a factor below 1, a pad above 0.  ShapeError: nothing remains.
    """

    origin = "DeepLab"
    checked_by = "NumPy loop"
    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.interp_param
        self.pad_beg, self.pad_end = param.pad_beg, param.pad_end
        if max(self.pad_beg, self.pad_end) > 0:
            raise self.error(
                "Only supports non-pos padding (cropping) for now. "
                f"Got pad_beg {self.pad_beg!r}, pad_end {self.pad_end!r}."
            )
        given = [name for name in ("shrink_factor", "zoom_factor", "height", "width") if param.HasField(name)]
        self.by_factor = "shrink_factor" in given or "zoom_factor" in given
        sizes = (len(bottom) == 2) + self.by_factor + ("height" in given or "width" in given)
        if sizes != 1 or ("height" in given) != ("width" in given):
            raise self.error(
                "Interp layer parameters are unspecified or ambiguous: it takes shrink_factor and zoom_factor, or "
                f"height and width, or a second bottom. Got {given!r} and {len(bottom)!r} bottoms."
            )
        for name in ("shrink_factor", "zoom_factor"):
            if getattr(param, name) < 1:
                raise self.error(f"{name.split('_')[0].title()} factor must be positive. Got {getattr(param, name)!r}.")

    def _wanted(self, extent: int, axis: int, bottom: list[Shape]) -> int:
        param = self.layer_param.interp_param
        if len(bottom) == 2:
            return bottom[1][2 + axis]
        if not self.by_factor:
            return int((param.height, param.width)[axis])
        shrunk = (extent - 1) // param.shrink_factor + 1
        return int(shrunk + (shrunk - 1) * (param.zoom_factor - 1))

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        num, channels, height, width = check_planes("Interp", bottom[0])
        if len(bottom) == 2:
            check_planes("Interp", bottom[1])
        cut = self.pad_beg + self.pad_end
        self.kept: Size = (height + cut, width + cut)
        if min(self.kept) < 1:
            raise ShapeError(f"height and width should be positive. The crop leaves {self.kept!r} of {bottom[0]!r}.")
        wanted = [self._wanted(extent, axis, bottom) for axis, extent in enumerate(self.kept)]
        if min(wanted) < 1:
            raise ShapeError(f"height and width should be positive. Got {tuple(wanted)!r}.")
        return [(num, channels, *wanted)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        begin, (height, width) = -self.pad_beg, self.kept
        x = bottom[0][:, :, begin : begin + height, begin : begin + width]
        size = self.top_shapes[0][2:]
        return [torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x, begin, (height, width) = bottom[0], -self.pad_beg, self.kept
        if self.pad_beg or self.pad_end:
            x = g.op("Slice", x, g.shape([begin] * 2), g.shape([begin + height, begin + width]), g.shape([2, 3]))
        wanted = self.top_shapes[0][2:]
        if wanted == self.kept:
            return [g.op("Identity", x)]
        options = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        return [lower_resize(g, x, self.kept, (wanted[0], wanted[1]), **options)]
