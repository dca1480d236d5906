"""Upsample: repeats pixels, or puts values back where a pooling took them from."""

from __future__ import annotations

from typing import Any

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor
from pycaffe.layers._unpooling import MaskedUnpooling, check_mask, lower_unpool, unpool

__all__ = ["UpsampleLayer"]

SIZES = ("scale_h", "scale_w", "pad_out_h", "pad_out_w", "upsample_h", "upsample_w")


@register_layer("Upsample")
class UpsampleLayer(MaskedUnpooling):
    """Enlarges each plane. One bottom is YOLO's layer, a second one, a pooling's mask, makes it SegNet's.

    YOLO: y[n, c, h, w] = x[n, c, h / scale, w / scale], rounded down.
        bottom: (N, C, H, W).  top: (N, C, H * scale, W * scale).  upsample_param: scale (1).
    SegNet: y[n, c, mask[n, c, i]] = x[n, c, i], zeros elsewhere; of several values at one place the last stays.
        bottom: values (N, C, H, W); the second top of a Pooling, of the same shape; it gets no gradient.
        top: (N, C, upsample_h, upsample_w), or (N, C, H * scale_h - pad_out_h, W * scale_w - pad_out_w).
        upsample_param: upsample_h and upsample_w; or scale (2), or scale_h and scale_w; pad_out_h, pad_out_w (false).

    As in upsample_layer.cpp of MobileNet-YOLO and of caffe-segnet.

    Raises:
        LayerError: parameters are missing, contradict each other or are of the other fork's layer.
        ShapeError: not 4 axes, or the mask has another shape.  InputError: the mask names a place outside the top.
    """

    origin = "YOLOv3, SegNet"
    checked_by = "MobileNet-YOLO, SegNet"
    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.upsample_param
        self.masked = len(bottom) == 2
        self.size: tuple[int, int] | None = None
        self.pad_out = (int(param.pad_out_h), int(param.pad_out_w))
        if self.masked:
            self._read_segnet(param)
            return
        self.scale = (param.scale if param.HasField("scale") else 1,) * 2
        given = [name for name in SIZES if param.HasField(name)]
        if given or 0 in self.scale:
            raise self.error(
                f"Upsample without a mask takes one parameter, scale > 0. Got scale {self.scale[0]!r} and {given!r}; "
                "with a Pooling's second top as a second bottom it takes the others."
            )

    def _read_segnet(self, param: Any) -> None:
        has = param.HasField
        if has("upsample_h") and has("upsample_w"):
            self.size = (param.upsample_h, param.upsample_w)
            if min(self.size) <= 1:
                raise self.error(f"Check failed: upsample_h_ > 1, upsample_w_ > 1. Got {self.size!r}.")
            return
        if has("scale_h") != has("scale_w") or (has("scale_h") and has("scale")):
            raise self.error(
                "upsample_h & upsample_w are required, else (DEPRECATED) scale OR scale_h & scale_w are required. "
                f"Got {[name for name in ('scale', *SIZES) if has(name)]!r}."
            )
        square = (param.scale if has("scale") else 2,) * 2
        self.scale = (param.scale_h, param.scale_w) if has("scale_h") else square
        if min(self.scale) <= 1:
            raise self.error(f"Check failed: scale_h_ > 1, scale_w_ > 1. Got {self.scale!r}.")
        for axis, pad, scale in zip(("height", "width"), self.pad_out, self.scale):
            if pad and scale != 2:
                raise self.error(
                    f"Output {axis} padding compensation requires scale_{axis[0]} == 2, otherwise the output size is "
                    f"ill-defined. Got {scale!r}."
                )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if self.masked:
            check_mask(bottom)
        if len(bottom[0]) != 4:
            raise ShapeError(f"Upsample's bottom has 4 axes (N, C, H, W). Got shape {bottom[0]!r}.")
        num, channels, height, width = bottom[0]
        size = (height * self.scale[0], width * self.scale[1]) if self.size is None else self.size
        if self.masked and self.size is None:
            size = (size[0] - self.pad_out[0], size[1] - self.pad_out[1])
        return [(num, channels, *size)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, (_, _, height, width) = bottom[0], self.top_shapes[0]
        if self.masked:
            return [unpool(x, bottom[1], height, width)]
        repeated = x[:, :, :, None, :, None].expand(-1, -1, -1, self.scale[0], -1, self.scale[1])
        return [repeated.reshape(*x.shape[:2], height, width)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        if self.masked:
            return super().backward(top_diff, top, bottom, params, propagate_down)
        num, channels, height, width = bottom[0].shape
        blocks = top_diff[0].reshape(num, channels, height, self.scale[0], width, self.scale[1])
        return [blocks.sum((3, 5))], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.masked:
            return [lower_unpool(g, bottom[0], bottom[1], *self.top_shapes[0][2:])]
        scales = g.constant([1, 1, *self.scale])
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return [g.op("Resize", bottom[0], "", scales, **options)]
