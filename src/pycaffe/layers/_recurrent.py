"""What RNN and LSTM share: a cell unrolled over T time steps of N independent streams (recurrent_layer.cpp)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._torch import Tensor, torch

__all__ = ["RecurrentLayer"]

MAX_UNROLLED = 64  # steps that are written out in ONNX: a step is a dozen nodes


class RecurrentLayer(Layer):
    """Base of the recurrent layers. A subclass gives the cell: `add_cell_blobs`, `step` and `lower_step`.

    bottom: x (T, N, ...); cont (T, N), 0 where a stream begins a new sequence, else 1; optionally x_static (N, ...);
        with `expose_hidden` the initial states, each (1, N, D).
    top: y (T, N, D) with D = `num_output`; with `expose_hidden` the last states, each (1, N, D).
    blobs: the weights of x (gates * D, I) and their bias; those of x_static (gates * D, S) if there is one; then the
        cell's own.

    Without `expose_hidden` the layer carries its state from one forward to the next: zeros at first, and again when N
    changes (the original keeps what its memory holds then). The state moves on in `reshape`, which runs before each
    forward of a net but not where an engine computes a forward again for the sake of backward.

    As in the original, no gradient reaches the exposed initial states and none comes from the exposed last ones. Where
    one is asked for cont, backward raises LayerError. The number of time steps is fixed when the net is built.
    """

    min_bottom_blobs = 2
    reshape_has_effects = True  # the last states become the first
    num_states: ClassVar[int] = 1
    gates: ClassVar[int] = 1

    # -- the cell

    def add_cell_blobs(self) -> None:
        """Adds the blobs that follow those of the inputs."""
        raise NotImplementedError(self.type)

    def step(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], params: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """One time step.

        inputs: transformed inputs (N, gates * D); cont (N, 1); params: the cell's blobs. Returns the output and the
        next states, each (N, D).
        """
        raise NotImplementedError(self.type)

    def lower_step(
        self, g: Lowering, inputs: str, cont: str, states: list[str], params: list[str]
    ) -> tuple[str, list[str]]:
        """`step` in ONNX."""
        raise NotImplementedError(self.type)

    # -- set-up and shapes

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.recurrent_param
        self.expose_hidden = bool(param.expose_hidden)
        self.num_output = int(param.num_output)
        exposed = self.num_states if self.expose_hidden else 0
        self._check_counts(len(bottom), exposed)
        self.static_input = len(bottom) > 2 + exposed
        if self.num_output <= 0:
            raise self.error(f"num_output must be positive. Got num_output: {self.num_output!r}.")
        self._check_sequence(bottom)
        self.num_steps = bottom[0][0]
        self.first_states: list[Tensor] = []  # what a forward starts from; none: zeros
        self.last_states: list[Tensor] = []  # what the last one ended with
        width = self.gates * self.num_output
        canonical_axis(2, len(bottom[0]))
        self.add_blob((width, math.prod(bottom[0][2:])), param.weight_filler)
        self.add_blob((width,), param.bias_filler)
        if self.static_input:
            canonical_axis(1, len(bottom[2]))
            self.add_blob((width, math.prod(bottom[2][1:])), param.weight_filler)
        self.add_cell_blobs()

    def _check_counts(self, num_bottom: int, exposed: int) -> None:
        if num_bottom < 2 + exposed:
            raise self.error(
                f"{self.type} Layer takes at least {2 + exposed} bottom blob(s) as input. Got {num_bottom}."
            )
        if num_bottom > 3 + exposed:
            raise self.error(
                f"{self.type} Layer takes at most {3 + exposed} bottom blob(s) as input. Got {num_bottom}."
            )
        if self.num_top != 1 + exposed:
            raise self.error(f"{self.type} Layer produces {1 + exposed} top blob(s) as output. Got {self.num_top}.")

    def _check_sequence(self, bottom: list[Shape]) -> None:
        if len(bottom[0]) < 2:
            raise ShapeError(
                f"bottom[0] must have at least 2 axes -- (#timesteps, #streams, ...). Got shape {bottom[0]!r}."
            )
        if len(bottom[1]) != 2:
            raise ShapeError(f"bottom[1] must have exactly 2 axes -- (#timesteps, #streams). Got shape {bottom[1]!r}.")
        for name, axis in (("T_", 0), ("N_", 1)):
            if bottom[0][axis] != bottom[1][axis]:
                raise ShapeError(
                    f"Check failed: {name} == bottom[1]->shape({axis}) ({bottom[0][axis]} vs. {bottom[1][axis]}). Got "
                    f"shapes {bottom[0]!r} and {bottom[1]!r}."
                )
        if self.static_input and bottom[2][:1] != bottom[0][1:2]:
            raise ShapeError(
                f"Check failed: N_ == bottom[2]->shape(0). The static input needs {bottom[0][1]} streams, got shape "
                f"{bottom[2]!r}."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        self._check_sequence(bottom)
        if bottom[0][0] != self.num_steps:
            raise ShapeError(f"input number of timesteps changed ({self.num_steps} vs. {bottom[0][0]}).")
        widths = [math.prod(bottom[0][2:])] + ([math.prod(bottom[2][1:])] if self.static_input else [])
        for i, (blob, width) in enumerate(zip((self.blobs[0], self.blobs[2]), widths)):
            if blob.shape[1] != width:
                raise ShapeError(
                    f"Input size incompatible with inner product parameters ({blob.shape[1]} vs. {width} elements a "
                    f"stream in bottom {2 * i})."
                )
        state = (1, bottom[0][1], self.num_output)
        for j, shape in enumerate(bottom[2 + self.static_input :]):
            if shape != state:
                raise ShapeError(
                    f"shape mismatch - recur_input_blobs_[{j}]: {state!r} vs. "
                    f"bottom[{2 + self.static_input + j}]: {shape!r}"
                )
        same = self.last_states and self.last_states[0].shape[0] == bottom[0][1]
        self.first_states = self.last_states if same else []
        exposed = self.num_states if self.expose_hidden else 0
        return [(*bottom[0][:2], self.num_output)] + [state] * exposed

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1  # sequence indicators

    def multiply_adds(self) -> int:
        steps, streams = self.bottom_shapes[0][:2]
        matrices = [math.prod(blob.shape) for blob in self.blobs if len(blob.shape) == 2]
        static = matrices.pop(1) if self.static_input else 0  # once for all time steps
        return streams * (steps * sum(matrices) + static)

    # -- engines

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, cont = bottom[0], self._guarded(bottom[1]).unsqueeze(-1)
        inputs = torch.nn.functional.linear(x.flatten(2), params[0], params[1])
        if self.static_input:
            inputs = inputs + torch.nn.functional.linear(bottom[2].flatten(1), params[2])
        if self.expose_hidden:
            states = [state.detach()[0] for state in bottom[2 + self.static_input :]]
        else:
            states = [state.to(inputs) for state in self.first_states] or [
                inputs.new_zeros(inputs.shape[1], self.num_output) for _ in range(self.num_states)
            ]
        outputs = []
        for t in range(x.shape[0]):
            output, states = self.step(inputs[t], cont[t], states, params[2 + self.static_input :])
            outputs.append(output)
        last = [state.detach() for state in states]
        if self.expose_hidden:
            return [torch.stack(outputs), *(state.unsqueeze(0) for state in last)]
        self.last_states = last
        return [torch.stack(outputs)]

    def state(self) -> dict[str, Any]:
        return {"states": [state.tolist() for state in self.last_states]} if self.last_states else {}

    def restore(self, state: dict[str, Any]) -> None:
        self.last_states = [torch.tensor(values, dtype=torch.float32) for values in state["states"]]

    def _guarded(self, cont: Tensor) -> Tensor:
        """cont, refusing gradients when and if they come, as the original does."""
        if not cont.requires_grad:
            return cont

        def refuse(gradient: Tensor) -> None:
            raise self.error(f"Cannot backpropagate to sequence indicators. Layer {self.name!r}, bottom 1.")

        cont = cont.view_as(cont)
        cont.register_hook(refuse)
        return cont

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if not self.expose_hidden:
            raise NotLowerable(
                f"{self.type}: without expose_hidden it carries its hidden state from one forward to the next"
            )
        if self.num_steps > MAX_UNROLLED:
            raise NotLowerable(
                f"{self.type}: {self.num_steps} time steps, more than the {MAX_UNROLLED} that are unrolled"
            )
        flat = g.reshape(bottom[0], (-1, self.blobs[0].shape[1]))
        inputs = g.op("Gemm", flat, params[0], params[1], transB=1)
        inputs = g.reshape(inputs, (self.num_steps, -1, self.blobs[0].shape[0]))
        if self.static_input:
            static = g.reshape(bottom[2], (-1, self.blobs[2].shape[1]))
            inputs = g.op("Add", inputs, g.op("Gemm", static, params[2], transB=1))
        steps = g.ops("Split", inputs, outputs=self.num_steps, axis=0)
        conts = g.ops("Split", bottom[1], outputs=self.num_steps, axis=0)
        states = [g.reshape(state, (-1, self.num_output)) for state in bottom[2 + self.static_input :]]
        outputs, first = [], g.shape((0,))
        for step, cont in zip(steps, conts):
            step, cont = g.op("Squeeze", step, first), g.reshape(cont, (-1, 1))
            output, states = self.lower_step(g, step, cont, states, params[2 + self.static_input :])
            outputs.append(g.op("Unsqueeze", output, first))
        return [g.op("Concat", *outputs, axis=0), *(g.op("Unsqueeze", state, first) for state in states)]
