"""BN: batch normalization with its scale and shift, in the two meanings that forks gave it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import TEST, Layer
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["BNLayer"]

INFERENCE = 1  # BNParameter.BNMode
SEGNET = ("scale_filler", "shift_filler", "bn_mode")
RUNNING = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")
SEGNET_EPS = 1e-9


@register_layer("BN")
class BNLayer(Layer):
    """y = scale * (x - mean) / sqrt(variance + eps) + shift, over all axes but the channels.

    bottom, top: (N, C, ...).

    SegNet (bn_layer.cpp of caffe-segnet): blobs scale and shift, each (1, C, 1, 1). `bn_mode: LEARN` (the default)
        takes the statistics of the batch in both phases, with eps 1e-9; a second and third top are its mean and its
        variance, (1, C, 1, 1). `bn_mode: INFERENCE` is y = scale * x + shift: the statistics are in the two blobs
        already. The fork's backward overwrites the parameters' diffs; here it adds to them, as every other layer's.
        bn_param: scale_filler (zeros), shift_filler (zeros), bn_mode.
    With running averages (PSPNet, TSN): blobs slope, bias, mean, variance, each (1, C). TRAIN takes the batch's
        statistics and moves the averages, average = momentum * average + (1 - momentum) * batch (variance without
        correction); TEST, or `frozen`, takes the averages. Those have lr_mult 0 and no diff, with `frozen` all four.
        bn_param: slope_filler (zeros), bias_filler (zeros), momentum (0.9), eps (1e-5), frozen (false).

    Which one it is: the parameters say so; where there are none of either, three or more `param` mean running averages,
    else it is SegNet's.

    Raises:
        LayerError: parameters of both, tops that the layer does not make.  ShapeError: no channels, or others than at
            set-up.
    """

    origin = "SegNet, PSPNet"
    checked_by = "SegNet; running averages: NumPy loop"
    exact_num_bottom_blobs = 1
    min_top_blobs = 1
    max_top_blobs = 3
    forward_changes_blobs = True

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.bn_param
        segnet, running = ([name for name in names if param.HasField(name)] for names in (SEGNET, RUNNING))
        if segnet and running:
            raise self.error(
                f"BN takes SegNet's parameters {list(SEGNET)!r} or {list(RUNNING)!r}. Got {segnet + running!r}."
            )
        self.running = bool(running) or (not segnet and len(self.layer_param.param) > 2)
        self.eps: float = param.eps if self.running else SEGNET_EPS
        self.learn = not self.running and param.bn_mode != INFERENCE
        if self.num_top > 1 and not self.learn:
            raise self.error(f"BN gives mean and variance in SegNet's LEARN mode alone. Got {self.num_top!r} tops.")
        if len(bottom[0]) < 2:
            raise ShapeError(f"BN's bottom has channels, axis 1. Got shape {bottom[0]!r}.")
        self.channels = bottom[0][1]
        if self.running:
            self._set_up_running(param)
            return
        for name in ("scale_filler", "shift_filler"):
            self.add_blob((1, self.channels, 1, 1), getattr(param, name))

    def _set_up_running(self, param: Any) -> None:
        self.frozen: bool = param.frozen
        self.use_averages = self.frozen or self.phase == TEST
        self.momentum: float = param.momentum
        shape = (1, self.channels)
        self.add_blob(shape, param.slope_filler)
        self.add_blob(shape, param.bias_filler)
        self.add_blob(shape)
        variance = self.add_blob(shape)
        if self.frozen:
            variance.data[...] = 1
        own = type(self.layer_param)()  # the specs set here are this layer's, not the net's
        own.CopyFrom(self.layer_param)
        while len(own.param) < 4:
            own.param.add()
        for spec in own.param if self.frozen else own.param[2:]:
            spec.lr_mult = spec.decay_mult = 0
        self.layer_param = own

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if len(shape) < 2 or shape[1] != self.channels:
            raise ShapeError(f"BN: the channels may not change. Expected {self.channels!r}, got shape {shape!r}.")
        return [shape, *[(1, self.channels, 1, 1)] * (self.num_top - 1)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        wide = (1, self.channels, *(1,) * (x.dim() - 2))
        scale, shift = (blob.reshape(wide) for blob in params[:2])
        if not self.running and not self.learn:
            return [x * scale + shift]
        if self.running and self.frozen:
            scale, shift = scale.detach(), shift.detach()
        if self.running and self.use_averages:
            mean, variance = (blob.detach().reshape(wide) for blob in params[2:])
        else:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - mean) / torch.sqrt(variance + self.eps) * scale + shift
        if self.running:
            self._move(params, mean, variance)
            return [y]
        statistics = (1, self.channels, 1, 1)
        return [y, mean.reshape(statistics), variance.reshape(statistics)][: self.num_top]

    def _move(self, params: list[Tensor], mean: Tensor, variance: Tensor) -> None:
        """Moves the averages, in the blobs' own memory."""
        if self.use_averages:
            return
        with torch.no_grad():
            for average, batch in zip(params[2:], (mean, variance)):
                average.mul_(self.momentum).add_(batch.reshape(average.shape), alpha=1 - self.momentum)

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.running and not self.use_averages:
            raise NotLowerable("BN: in the TRAIN phase a forward moves the averages")
        if self.learn:
            return self._lower_learn(g, bottom[0], params)
        vectors = [g.reshape(param, (-1,)) for param in params]
        if not self.running:
            vectors += [g.constant(np.zeros(self.channels)), g.constant(np.ones(self.channels))]
        eps = self.eps if self.running else 0.0
        return [g.op("BatchNormalization", bottom[0], *vectors, epsilon=eps)]

    def _lower_learn(self, g: Lowering, x: str, params: list[str]) -> list[str]:
        axes = len(self.bottom_shapes[0])
        over = [axis for axis in range(axes) if axis != 1]
        wide = (1, self.channels, *(1,) * (axes - 2))
        scale, shift = params if axes == 4 else [g.reshape(param, wide) for param in params]
        mean = g.op("ReduceMean", x, axes=over)
        centred = g.op("Sub", x, mean)
        variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes=over)
        deviation = g.op("Sqrt", g.op("Add", variance, g.constant(self.eps)))
        y = g.op("Add", g.op("Mul", centred, g.op("Div", scale, deviation)), shift)
        statistics = [g.reshape(value, (1, self.channels, 1, 1)) for value in (mean, variance)[: self.num_top - 1]]
        return [y, *statistics]
