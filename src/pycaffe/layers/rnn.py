"""RNN: a recurrent network with tanh, unrolled over time."""

from __future__ import annotations

from pycaffe.layers._lowering import Lowering
from pycaffe.layers._recurrent import RecurrentLayer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["RNNLayer"]


@register_layer("RNN")
class RNNLayer(RecurrentLayer):
    """h_t = tanh(W_hh * (cont_t * h_{t-1}) + W_xh * x_t + b_h + W_xh_static * x_static); y_t = tanh(W_ho * h_t + b_o).

    bottom: x (T, N, ...); cont (T, N); optionally x_static (N, ...); with `expose_hidden` h_0 (1, N, D).
    top: y (T, N, D); with `expose_hidden` h_T (1, N, D).
    blobs: W_xh (D, I), b_h (D), W_xh_static (D, S) if there is x_static, W_hh (D, D), W_ho (D, D), b_o (D).

    `recurrent_param`: num_output (D, needed), weight_filler, bias_filler, expose_hidden (false); debug_info is ignored.
    The base class says how the state is carried. As in rnn_layer.cpp.
    """

    num_states = 1
    gates = 1

    def add_cell_blobs(self) -> None:
        param, width = self.layer_param.recurrent_param, self.num_output
        self.add_blob((width, width), param.weight_filler)
        self.add_blob((width, width), param.weight_filler)
        self.add_blob((width,), param.bias_filler)

    def step(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], params: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        linear = torch.nn.functional.linear
        hidden = torch.tanh(linear(cont * states[0], params[0]) + inputs)
        return torch.tanh(linear(hidden, params[1], params[2])), [hidden]

    def lower_step(
        self, g: Lowering, inputs: str, cont: str, states: list[str], params: list[str]
    ) -> tuple[str, list[str]]:
        hidden = g.op("Tanh", g.op("Gemm", g.op("Mul", states[0], cont), params[0], inputs, transB=1))
        return g.op("Tanh", g.op("Gemm", hidden, params[1], params[2], transB=1)), [hidden]
