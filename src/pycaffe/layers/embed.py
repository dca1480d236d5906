"""Embed: a lookup table."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["EmbedLayer"]


@register_layer("Embed")
class EmbedLayer(Layer):
    """Replaces each index by its row of a learned table: an InnerProduct on one-hot vectors, without the vectors.

    y[..., :] = weight[x[...], :] + bias.

    bottom: any shape, integers in [0, input_dim) stored as floats.
    top: the bottom's shape, then num_output.
    blobs: weight (input_dim, num_output) and, with `bias_term`, bias (num_output,).

    Parameters (embed_param): num_output, input_dim, bias_term (true), weight_filler, bias_filler. As in
    embed_layer.cpp, which has no gradient for its bottom and stops where one is asked for. An index outside the table
    reads foreign memory there; an error here.

    Raises:
        LayerError: num_output or input_dim is not positive, an index is outside the table, or the bottom wants a
            gradient.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.embed_param
        if param.num_output <= 0:
            raise self.error(f"EmbedLayer num_output must be positive. Got {param.num_output!r}.")
        if param.input_dim <= 0:
            raise self.error(f"EmbedLayer input_dim must be positive. Got {param.input_dim!r}.")
        self.num_output, self.input_dim = param.num_output, param.input_dim
        self.add_blob((self.input_dim, self.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((self.num_output,), param.bias_filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [(*bottom[0], self.num_output)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        index = bottom[0].long()
        outside = (index < 0) | (index >= self.input_dim)
        if bool(outside.any()):
            got = int(index[outside][0])
            raise self.error(f"Check failed: index < K_. Index {got!r} is outside the table of {self.input_dim} rows.")
        rows = torch.nn.functional.embedding(index, params[0])
        return [rows + params[1] if len(params) > 1 else rows]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        if propagate_down[0]:
            raise self.error("Can't backpropagate to EmbedLayer input. Got propagate_down true.")
        rows = top_diff[0].reshape(-1, self.num_output)
        diffs = [torch.zeros_like(params[0]).index_add(0, bottom[0].long().reshape(-1), rows)]
        if len(params) > 1:
            diffs.append(rows.sum(0))
        return [None], diffs

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        from onnx import TensorProto

        index = g.op("Cast", bottom[0], to=TensorProto.INT64)
        # ONNX counts negative indices from the end; out of bounds, onnxruntime refuses them.
        negative, beyond = g.op("Less", index, g.constant(0, np.int64)), g.constant(self.input_dim, np.int64)
        rows = g.op("Gather", params[0], g.op("Where", negative, beyond, index), axis=0)
        return [g.op("Add", rows, params[1]) if len(params) > 1 else rows]
