"""What forks call L2Norm, L2Normalization and L2Normalize: items of length 1, nothing learned."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["ItemNormLayer"]

EPS = 1e-10


class ItemNormLayer(NeuronLayer):
    """y = x / sqrt(sum of x^2 + 1e-10), the sum over all axes of an item but the first.

    Raises:
        ShapeError: fewer than 2 axes.

    Forks add 0, 1e-10 or 1e-7 in different places; those without anything give NaN for an item of zeros, this 0.
    """

    origin = "several forks"
    checked_by = "NumPy loop"

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) < 2:
            raise ShapeError(f"Number of axes of bottom blob must be >=2. Got shape {bottom[0]!r}.")
        return [bottom[0]]

    @property
    def _axes(self) -> list[int]:
        return list(range(1, len(self.bottom_shapes[0])))

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        flat = x.reshape(len(x), -1)
        norm = torch.sqrt((flat * flat).sum(1) + EPS)
        return [x / norm.reshape(-1, *[1] * (x.dim() - 1))]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        energy = g.op("ReduceSumSquare", bottom[0], axes=self._axes, keepdims=1)
        return [g.op("Div", bottom[0], g.op("Sqrt", g.op("Add", energy, g.constant(EPS))))]
