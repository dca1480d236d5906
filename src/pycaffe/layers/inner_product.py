"""InnerProduct: the fully connected layer."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["InnerProductLayer"]


@register_layer("InnerProduct")
class InnerProductLayer(Layer):
    """Multiplies the bottom, flattened from `axis` on, with a matrix and adds a bias: y = x W^T + b.

    bottom: (N, C, H, W) or any shape; with `axis: 1` N vectors of K = C * H * W.
    top: the axes before `axis`, then num_output: (N, num_output).
    blobs: weight (num_output, K), or (K, num_output) with `transpose`; with `bias_term`, bias (num_output,).

    Parameters (inner_product_param): num_output, bias_term (true), axis (1), transpose (false), weight_filler,
    bias_filler. As in inner_product_layer.cpp.

    Raises:
        LayerError: `axis` is out of range.  ShapeError: K changed.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    computes_tops = True

    def setup(self, bottom: list[Shape]) -> None:
        param, shape = self.layer_param.inner_product_param, bottom[0]
        self.num_output, self.transpose = param.num_output, param.transpose
        self.inner = math.prod(shape[canonical_axis(param.axis, len(shape)) :])
        weight = (self.inner, self.num_output) if self.transpose else (self.num_output, self.inner)
        self.add_blob(weight, param.weight_filler)
        if param.bias_term:
            self.add_blob((self.num_output,), param.bias_filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        self.axis = canonical_axis(self.layer_param.inner_product_param.axis, len(shape))
        inner = math.prod(shape[self.axis :])
        if inner != self.inner:
            raise ShapeError(
                "Input size incompatible with inner product parameters. "
                f"Expected vectors of {self.inner}, got {inner}, from shape {shape!r} and axis {self.axis}."
            )
        return [(*shape[: self.axis], self.num_output)]

    def multiply_adds(self) -> int:
        return math.prod(self.top_shapes[0]) * self.inner

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        weight = params[0].t() if self.transpose else params[0]
        bias = params[1] if len(params) > 1 else None
        return [torch.nn.functional.linear(bottom[0].flatten(self.axis), weight, bias)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        flat = self.axis == 1 and len(self.bottom_shapes[0]) == 2
        x = bottom[0] if flat else g.op("Flatten", bottom[0], axis=self.axis)
        y = g.op("Gemm", x, *params, transB=int(not self.transpose))
        if self.axis == 1:
            return [y]
        top = self.top_shapes[0]
        return [g.reshape(y, (-1, *top[1:]))]
