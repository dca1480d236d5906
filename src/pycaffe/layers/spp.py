"""SPP: spatial pyramid pooling."""

from __future__ import annotations

import math
from typing import Any

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import TRAIN, Layer
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._pooling import STOCHASTIC, PoolWindow
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["SPPLayer"]


@register_layer("SPP")
class SPPLayer(Layer):
    """Pools the image into 1, 4, 16, ... bins and joins them: a vector of one length for images of any size.

    Level l has kernel = stride = ceil(H / 2^l) and pad = ceil((kernel * 2^l - H) / 2), likewise in width; its bins are
    pooled as by Pooling, flattened to (N, C * bins), and the levels are joined along the channels (He et al. 2014).

    bottom: (N, C, H, W).
    top: (N, C * (1 + 4 + ... + 4^(pyramid_height - 1))); with `pyramid_height: 1` it is (N, C, 1, 1), not flattened.

    Parameters (spp_param): pyramid_height, pool (MAX; AVE, STOCHASTIC). As in spp_layer.cpp.

    Raises:
        LayerError: no level, an empty image, or an image so small that padding reaches the kernel's size.
        ShapeError: not 4 axes.
    """

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.spp_param
        self.method, self.pyramid_height = param.pool, param.pyramid_height
        if self.pyramid_height < 1:
            raise self.error(f"Check failed: pyramid_height > 0. Got {self.pyramid_height!r}.")
        self._generator = child_generator() if self.method == STOCHASTIC and self.phase == TRAIN else None

    def _level(self, level: int, height: int, width: int) -> PoolWindow:
        bins = 2**level
        kernel = math.ceil(height / bins), math.ceil(width / bins)
        pad = (kernel[0] * bins - height + 1) // 2, (kernel[1] * bins - width + 1) // 2
        return PoolWindow(self.method, kernel, kernel, pad)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 4:
            raise ShapeError(
                f"Input must have 4 axes, corresponding to (num, channels, height, width). Got shape {bottom[0]!r}."
            )
        num, channels, height, width = bottom[0]
        if height < 1 or width < 1:
            raise self.error(f"Input dimensions cannot be zero. Got shape {bottom[0]!r}.")
        self.levels = [self._level(level, height, width) for level in range(self.pyramid_height)]
        bins = [level.output((height, width)) for level in self.levels]
        if self.pyramid_height == 1:
            return [(num, channels, *bins[0])]
        return [(num, channels * sum(rows * columns for rows, columns in bins))]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        pooled = [level.forward(bottom[0], self._generator)[0] for level in self.levels]
        return pooled if len(pooled) == 1 else [torch.cat([bins.flatten(1) for bins in pooled], 1)]

    def state(self) -> dict[str, Any]:
        return {} if self._generator is None else {"generator": self._generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self._generator = generator_in_state(state["generator"])

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self._generator is not None:
            raise NotLowerable("SPP: STOCHASTIC draws random numbers in the TRAIN phase")
        height, width = self.bottom_shapes[0][2:]
        pooled = [level.lower(g, bottom[0], (height, width))[0] for level in self.levels]
        if len(pooled) == 1:
            return pooled
        return [g.op("Concat", *(g.op("Flatten", bins, axis=1) for bins in pooled), axis=1)]
