"""LSTMUnit: one time step of an LSTM's non-linearity."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["LSTMUnitLayer", "lower_lstm_unit", "lstm_unit"]


def lstm_unit(cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """The next cell and hidden state for cell (..., D), gate inputs (..., 4D) and continuation (..., 1)."""
    i, f, o, new = gates.chunk(4, -1)
    forget = torch.where(cont == 0, torch.zeros_like(f), cont * torch.sigmoid(f))
    cell = forget * cell + torch.sigmoid(i) * torch.tanh(new)
    return cell, torch.sigmoid(o) * torch.tanh(cell)


def lower_lstm_unit(g: Lowering, cell: str, gates: str, cont: str) -> tuple[str, str]:
    """`lstm_unit` in ONNX."""
    i, f, o, new = g.ops("Split", gates, outputs=4, axis=-1)
    forget = g.op("Mul", cont, g.op("Sigmoid", f))
    update = g.op("Mul", g.op("Sigmoid", i), g.op("Tanh", new))
    cell = g.op("Add", g.op("Mul", forget, cell), update)
    return cell, g.op("Mul", g.op("Sigmoid", o), g.op("Tanh", cell))


@register_layer("LSTMUnit")
class LSTMUnitLayer(Layer):
    """i, f, o = sigmoid, g = tanh of the gate inputs; c' = cont * f * c + i * g; h' = o * tanh(c').

    bottom: the cell state c (1, N, D); gate inputs (1, N, 4D) in the order i, f, o, g; continuation cont (1, N), 0
        where a new sequence begins.
    top: c' (1, N, D); h' (1, N, D).

    As in lstm_unit_layer.cpp. cont gets no gradient.
    """

    exact_num_bottom_blobs = 3
    exact_num_top_blobs = 2
    checked_by = "NumPy loop"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        got = f"Expected (1, N, D), (1, N, 4 * D) and (1, N), got {', '.join(map(repr, bottom))}."
        for i, (shape, axes) in enumerate(zip(bottom, (3, 3, 2))):
            if len(shape) != axes:
                raise ShapeError(f"Check failed: {axes} == bottom[{i}]->num_axes() ({axes} vs. {len(shape)}). {got}")
            if shape[0] != 1:
                raise ShapeError(f"Check failed: 1 == bottom[{i}]->shape(0) (1 vs. {shape[0]}). {got}")
            if shape[1] != bottom[0][1]:
                raise ShapeError(
                    f"Check failed: num_instances == bottom[{i}]->shape(1) ({bottom[0][1]} vs. {shape[1]}). {got}"
                )
        if bottom[1][2] != 4 * bottom[0][2]:
            raise ShapeError(
                f"Check failed: 4 * hidden_dim_ == bottom[1]->shape(2) ({4 * bottom[0][2]} vs. {bottom[1][2]}). {got}"
            )
        return [bottom[0], bottom[0]]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [*lstm_unit(bottom[0], bottom[1], bottom[2].detach().unsqueeze(-1))]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Differs from the derivative for a cont that is neither 0 nor 1 (f * (1 - f) with f = cont * sigmoid)."""
        if propagate_down[2]:
            raise self.error("Cannot backpropagate to sequence indicators (bottom 2).")
        cont = bottom[2].unsqueeze(-1)
        i, f, o, new = bottom[1].chunk(4, -1)
        i, o, new = torch.sigmoid(i), torch.sigmoid(o), torch.tanh(new)
        f = torch.where(cont == 0, torch.zeros_like(f), cont * torch.sigmoid(f))
        tanh_cell = torch.tanh(f * bottom[0] + i * new)
        cell_diff = top_diff[0] + top_diff[1] * o * (1 - tanh_cell * tanh_cell)
        gates_diff = torch.cat(
            [
                cell_diff * new * i * (1 - i),
                cell_diff * bottom[0] * f * (1 - f),
                top_diff[1] * tanh_cell * o * (1 - o),
                cell_diff * i * (1 - new * new),
            ],
            -1,
        )
        return [cell_diff * f, gates_diff, None], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [*lower_lstm_unit(g, bottom[0], bottom[1], g.op("Unsqueeze", bottom[2], g.shape((-1,))))]
