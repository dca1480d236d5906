"""BatchNorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import TEST, Layer, canonical_axis
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["BatchNormLayer"]

MIN_EPS = 1e-5  # of NVCaffe's


@register_layer("BatchNorm")
class BatchNormLayer(Layer):
    """Normalizes each channel to zero mean and unit variance; Scale learns the rest (Ioffe and Szegedy 2015).

    y = (x - mean) / sqrt(variance + eps), over all axes but the channels. In TRAIN of the batch itself, in TEST of the
    moving averages; `use_global_stats` overrides the phase.

    bottom, top: (N, C, ...).
    blobs: mean sum (C,), variance sum (C,), scale factor (1,). Averages are sums divided by the scale factor; a factor
        of 0 makes both 0. A forward with batch statistics updates them: each is multiplied by
        `moving_average_fraction`,
        then
        gains the batch's mean, its variance * m / (m - 1) (m values a channel, no correction for one), and 1.

    Parameters (batch_norm_param): use_global_stats (by phase), moving_average_fraction (0.999), eps (1e-5). As in
    batch_norm_layer.cpp: the blobs are no learnable parameters; their `lr_mult` must be, and is, 0.

    NVCaffe's (`scale_bias`, or a scale_filler or bias_filler): y = scale * (x - mean) / sqrt(variance + eps) + bias.
    blobs: mean (C,), variance (C,), a 1 that counts for nothing, scale (C,) and bias (C,), ones and zeros without a
        filler. mean and variance are averages, not sums: each becomes moving_average_fraction * average +
        (1 - moving_average_fraction) * batch, without correction, but the first two forwards copy the batch's.
        eps is at least 1e-5. The first three have lr_mult 0, whatever the prototxt says.

    Raises:
        LayerError: a `param` with another lr_mult than 0, or fewer than 2 axes.  ShapeError: the channels changed.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1
    forward_changes_blobs = True

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.batch_norm_param
        self.fraction, self.eps = param.moving_average_fraction, param.eps
        self.use_global_stats = self.phase == TEST
        if param.HasField("use_global_stats"):
            self.use_global_stats = param.use_global_stats
        self.channels = bottom[0][canonical_axis(1, len(bottom[0]))]
        self.scale_bias = param.scale_bias or param.HasField("scale_filler") or param.HasField("bias_filler")
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_blob(shape)
        if self.scale_bias:
            self._set_up_scale_bias(param)
        own = type(self.layer_param)()  # the specs added here are this layer's, not the net's
        own.CopyFrom(self.layer_param)
        for index in range(3):
            if len(own.param) == index:
                own.param.add().lr_mult = 0.0
            elif self.scale_bias:
                own.param[index].lr_mult = own.param[index].decay_mult = 0.0
            elif own.param[index].lr_mult != 0:
                raise self.error(
                    "Cannot configure batch normalization statistics as layer parameters. "
                    f"Got lr_mult {own.param[index].lr_mult!r} for blob {index}; leave `param` out or set lr_mult: 0."
                )
        self.layer_param = own

    def _set_up_scale_bias(self, param: Any) -> None:
        self.eps = max(self.eps, MIN_EPS)
        self.blobs[2].data[...] = 1
        for field, value in (("scale_filler", 1.0), ("bias_filler", 0.0)):
            given = getattr(param, field)
            self.add_blob((self.channels,), given if param.HasField(field) else type(given)(value=value))
        self._forwards = 0  # with the batch's statistics

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if shape[canonical_axis(1, len(shape))] != self.channels:
            raise ShapeError(
                "Check failed: bottom[0]->shape(1) == channels_. "
                f"Expected {self.channels} channels, got shape {shape!r}."
            )
        return [shape]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x, batch_norm = bottom[0], torch.nn.functional.batch_norm
        if self.scale_bias:
            return [self._normalize_and_scale(x, params)]
        if self.use_global_stats:
            mean_sum, variance_sum, factor = (blob.detach() for blob in params)
            average = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
            return [batch_norm(x, mean_sum * average, variance_sum * average, eps=self.eps)]
        count = x.numel() // self.channels
        self._update(x.detach(), count, params)
        if count == 1:  # torch refuses to take the variance of one value; it is 0, and so is x - mean
            return [x - x]
        return [batch_norm(x, None, None, training=True, eps=self.eps)]

    def _normalize_and_scale(self, x: Tensor, params: list[Tensor]) -> Tensor:
        wide = (1, self.channels, *(1,) * (x.dim() - 2))
        mean, variance, scale, bias = (params[i].reshape(wide) for i in (0, 1, 3, 4))
        if self.use_global_stats:
            mean, variance = mean.detach(), variance.detach()
        else:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
            kept = self.fraction if self._forwards > 1 else 0.0
            self._forwards += 1
            with torch.no_grad():
                for average, batch in zip(params, (mean, variance)):
                    average.mul_(kept).add_(batch.reshape(average.shape), alpha=1 - kept)
        return (x - mean) / torch.sqrt(variance + self.eps) * scale + bias

    def state(self) -> dict[str, Any]:
        return {"forwards": self._forwards} if self.scale_bias and not self.use_global_stats else {}

    def restore(self, state: dict[str, Any]) -> None:
        self._forwards = int(state["forwards"])

    def _update(self, x: Tensor, count: int, params: list[Tensor]) -> None:
        """Moves the averages, in the blobs' own memory."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        with torch.no_grad():
            params[0].mul_(self.fraction).add_(mean)
            params[1].mul_(self.fraction).add_(variance * (count / (count - 1) if count > 1 else 1.0))
            params[2].mul_(self.fraction).add_(1.0)

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if not self.use_global_stats:
            raise NotLowerable("BatchNorm: with use_global_stats: false a forward changes the moving averages")
        if self.scale_bias:
            mean, variance, _, *scale_bias = params
            return [g.op("BatchNormalization", bottom[0], *scale_bias, mean, variance, epsilon=self.eps)]
        zero = g.constant([0.0])
        average = g.op("Where", g.op("Equal", params[2], zero), zero, g.op("Reciprocal", params[2]))
        mean, variance = g.op("Mul", params[0], average), g.op("Mul", params[1], average)
        scale, bias = g.constant(np.ones(self.channels)), g.constant(np.zeros(self.channels))
        return [g.op("BatchNormalization", bottom[0], scale, bias, mean, variance, epsilon=self.eps)]
