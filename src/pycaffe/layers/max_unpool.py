"""MaxUnpool."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor
from pycaffe.layers._unpooling import MaskedUnpooling, check_mask, lower_unpool, unpool

__all__ = ["MaxUnpoolLayer"]


@register_layer("MaxUnpool", "MaxUnPool")
class MaxUnpoolLayer(MaskedUnpooling):
    """Puts each value where a max pooling took it from, and zeros everywhere else.

    y[n, c, mask[n, c, i]] = x[n, c, i], with y's plane counted row by row.

    bottom: values (N, C, H, W); the second top of a Pooling (N, C, H, W).
    top: (N, C, dst_h, dst_w). `max_unpool_param { dst_h dst_w }`, both required. As in maxunpool_layer.cpp.
    backward: each value gets the gradient of its place; the mask gets none.

    Raises:
        LayerError: dst_h or dst_w is missing or 0.  ShapeError: the shapes differ.
        InputError: the mask names a place outside the top.
    """

    origin = "HiSilicon Caffe"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.max_unpool_param
        self.size: tuple[int, int] = (param.dst_h, param.dst_w)
        if 0 in self.size:
            raise self.error(f"dst_h and dst_w are required. Got dst_h {param.dst_h!r} and dst_w {param.dst_w!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_mask(bottom)
        return [(*bottom[0][:2], *self.size)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [unpool(bottom[0], bottom[1], *self.size)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [lower_unpool(g, bottom[0], bottom[1], *self.size)]
