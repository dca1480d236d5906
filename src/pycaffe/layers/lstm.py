"""LSTM: long short-term memory, unrolled over time."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._recurrent import RecurrentLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.layers.lstm_unit import lower_lstm_unit, lstm_unit

__all__ = ["LSTMLayer"]


@register_layer("LSTM")
class LSTMLayer(RecurrentLayer):
    """(c_t, h_t) = LSTMUnit(c_{t-1}, gates_t, cont_t); y_t = h_t.

    gates_t = W_hc * (cont_t * h_{t-1}) + W_xc * x_t + b_c + W_xc_static * x_static, in the order i, f, o, g.

    bottom: x (T, N, ...); cont (T, N); optionally x_static (N, ...); with `expose_hidden` h_0 and c_0, (1, N, D) each.
    top: y (T, N, D); with `expose_hidden` h_T and c_T, (1, N, D) each.
    blobs: W_xc (4D, I), b_c (4D), W_xc_static (4D, S) if there is x_static, W_hc (4D, D).

    `recurrent_param`: num_output (D, needed), weight_filler, bias_filler, expose_hidden (false); debug_info is ignored.
    The base class says how the state is carried. As in lstm_layer.cpp; for a cont that is neither 0 nor 1 the gradient
    is the derivative (see LSTMUnit).
    """

    num_states = 2
    gates = 4

    def add_cell_blobs(self) -> None:
        self.add_blob((4 * self.num_output, self.num_output), self.layer_param.recurrent_param.weight_filler)

    def step(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], params: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        hidden, cell = states
        gates = torch.nn.functional.linear(cont * hidden, params[0]) + inputs
        cell, hidden = lstm_unit(cell, gates, cont)
        return hidden, [hidden, cell]

    def lower_step(
        self, g: Lowering, inputs: str, cont: str, states: list[str], params: list[str]
    ) -> tuple[str, list[str]]:
        hidden, cell = states
        gates = g.op("Gemm", g.op("Mul", hidden, cont), params[0], inputs, transB=1)
        cell, hidden = lower_lstm_unit(g, cell, gates, cont)
        return hidden, [hidden, cell]
