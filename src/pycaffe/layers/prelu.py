"""PReLU: a ReLU whose negative slope is learned."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.proto import schema


@register_layer("PReLU")
class PReLULayer(NeuronLayer):
    """y = max(x, 0) + a * min(x, 0) with a slope a for each channel (He, Zhang, Ren and Sun 2015).

    bottom, top: (N, C, ...), at least two axes.
    blobs: the slopes, (C,), or a scalar with `channel_shared: true`.
    `prelu_param { filler channel_shared: false }`; the slopes start as 0.25 without a filler. The gradient at 0 is that
    of the left side (prelu_layer.cpp).

    Raises:
        ShapeError: fewer than two axes, or another number of channels than the slopes have.
    """

    def setup(self, bottom: list[Shape]) -> None:
        channels = self._channels(bottom[0])
        param = self.layer_param.prelu_param
        filler_param = param.filler if param.HasField("filler") else None
        if filler_param is None:
            filler_param = schema.FillerParameter(type="constant", value=0.25)
        self.add_blob(() if param.channel_shared else (channels,), filler_param)

    @staticmethod
    def _channels(shape: Shape) -> int:
        if len(shape) < 2:
            raise ShapeError(f"Number of axes of bottom blob must be >=2. Got shape {shape!r}.")
        return shape[1]

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        channels, slopes = self._channels(bottom[0]), self.blobs[0].shape
        if slopes not in ((), (channels,)):
            raise ShapeError(
                f"Negative slope size is inconsistent with prototxt config. Got {channels!r} channels for slopes of "
                f"shape {slopes!r}."
            )
        return [bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.nn.functional.prelu(bottom[0], params[0].reshape(-1))]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        spatial = len(self.bottom_shapes[0]) - 2
        return [g.op("PRelu", bottom[0], g.reshape(params[0], [-1] + [1] * spatial))]
