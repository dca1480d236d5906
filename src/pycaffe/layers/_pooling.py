"""The sliding window of Pooling, SPP and LRN within a channel: geometry, torch and ONNX."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pycaffe.errors import LayerError, ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor, torch

__all__ = ["AVE", "MAX", "Pair", "PoolWindow", "STOCHASTIC"]

MAX, AVE, STOCHASTIC = 0, 1, 2  # PoolMethod of both PoolingParameter and SPPParameter
Pair = tuple[int, int]


@dataclass(frozen=True)
class PoolWindow:
    """One pooling: the method, and kernel, stride and pad as (height, width); `ceil` keeps a last, partial window.

    Raises:
        LayerError: kernel or stride is zero, or the padding is as large as the kernel or not possible for the method.
    """

    method: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    ceil: bool = True

    def __post_init__(self) -> None:
        if 0 in self.kernel:
            raise LayerError(f"Filter dimensions cannot be zero. Got kernel {self.kernel!r}.")
        if 0 in self.stride:
            raise LayerError(f"Stride dimensions cannot be zero. Got stride {self.stride!r}.")
        if self.pad != (0, 0):
            if self.method == STOCHASTIC:
                raise LayerError(f"Padding implemented only for average and max pooling. Got pad {self.pad!r}.")
            if self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]:
                raise LayerError(
                    f"Check failed: pad_h_ < kernel_h_, pad_w_ < kernel_w_. "
                    f"Got pad {self.pad!r}, kernel {self.kernel!r}."
                )

    def output(self, size: Pair) -> Pair:
        """The extents (H', W') for an image of (H, W); a last window that starts outside the image is dropped.

        Raises:
            ShapeError: no window fits.
        """
        out = tuple(self._output(*axis) for axis in zip(size, self.kernel, self.stride, self.pad))
        if min(out) < 1:
            raise ShapeError(
                f"Check failed: shape[i] >= 0. The output would have extents {out!r}: input {size!r}, {self!r}."
            )
        return out[0], out[1]

    def _output(self, size: int, kernel: int, stride: int, pad: int) -> int:
        room = size + 2 * pad - kernel
        out = (-(-room // stride) if self.ceil else room // stride) + 1
        return out - 1 if (out - 1) * stride >= size + pad else out

    def end_pad(self, size: Pair) -> Pair:
        """How far the last windows reach beyond the image, at least 0."""
        reach = [
            max(0, (out - 1) * s + k - p - extent)
            for extent, out, k, s, p in zip(size, self.output(size), self.kernel, self.stride, self.pad)
        ]
        return reach[0], reach[1]

    # -- torch

    def forward(self, x: Tensor, generator: np.random.Generator | None = None, mask: bool = False) -> list[Tensor]:
        """x: (N, C, H, W) -> pooled, and with `mask` (for MAX) also the index of each maximum in its plane.

        STOCHASTIC samples with `generator`; without one it gives the expected value, as in the TEST phase.
        """
        if self.method == MAX:
            return self._max(x, mask)
        if self.method == AVE:
            return [self._average(x)]
        return [self._expected(x) if generator is None else self._sample(x, generator)]

    def _padded(self, x: Tensor, value: float) -> tuple[Tensor, Pair]:
        """As torch pads by half a kernel at most; more is padded here. Returns the padding that is left to do."""
        if all(2 * p <= k for p, k in zip(self.pad, self.kernel)):
            return x, self.pad
        (height, width), pad = self.pad, torch.nn.functional.pad
        return pad(x, (width, width, height, height), value=value), (0, 0)

    def _max(self, x: Tensor, mask: bool) -> list[Tensor]:
        width, out = x.shape[3], self.output(tuple(x.shape[2:]))
        padded, pad = self._padded(x, -math.inf)
        pool = torch.nn.functional.max_pool2d
        y, index = pool(padded, self.kernel, self.stride, pad, ceil_mode=self.ceil, return_indices=True)
        y = _first(y, out)
        if not mask:
            return [y]
        index = _first(index, out)
        if pad != self.pad:
            row, column = index // padded.shape[3] - self.pad[0], index % padded.shape[3] - self.pad[1]
            index = row * width + column
        return [y, index.to(x.dtype)]

    def _average(self, x: Tensor) -> Tensor:
        out = self.output(tuple(x.shape[2:]))
        padded, pad = self._padded(x, 0.0)
        # torch clips the divisor to the padded image, too: its rule comes from Caffe
        y = torch.nn.functional.avg_pool2d(padded, self.kernel, self.stride, pad, ceil_mode=self.ceil)
        return _first(y, out)

    def _expected(self, x: Tensor) -> Tensor:
        total, squares = self._average(x), self._average(x * x)  # their common divisor cancels
        some = total > 0
        return torch.where(some, squares / torch.where(some, total, 1.0), 0.0)

    def _sample(self, x: Tensor, generator: np.random.Generator) -> Tensor:
        """The first pixel at which the running sum reaches a uniform (0, 1] share of the window's sum."""
        bottom, right = self.end_pad(tuple(x.shape[2:]))
        x = torch.nn.functional.pad(x, (0, right, 0, bottom))
        windows = x.unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1]).flatten(4)
        running = windows.detach().cumsum(-1)
        share = 1 - torch.from_numpy(generator.random(tuple(running.shape[:-1]), np.float32)).to(x)
        chosen = (running >= share.unsqueeze(-1) * running[..., -1:]).to(torch.uint8).argmax(-1, keepdim=True)
        return windows.gather(-1, chosen).squeeze(-1)

    # -- ONNX

    def lower(self, g: Lowering, x: str, size: Pair, mask: bool = False) -> list[str]:
        """The values and, with `mask`, the indices, for images of (H, W). STOCHASTIC gives the expected value."""
        if self.method == MAX:
            return self._lower_max(g, x, size, mask)
        if self.method == AVE:
            return [self._lower_average(g, x, size)]
        total, squares = self._lower_average(g, x, size), self._lower_average(g, g.op("Mul", x, x), size)
        zero = g.constant(0.0)
        return [g.op("Where", g.op("Greater", total, zero), g.op("Div", squares, total), zero)]

    def _is_global(self, size: Pair) -> bool:
        return self.kernel == size and self.pad == (0, 0)

    def _lower_max(self, g: Lowering, x: str, size: Pair, mask: bool) -> list[str]:
        if self._is_global(size) and not mask:
            return [g.op("GlobalMaxPool", x)]
        pads = [*self.pad, *self.end_pad(size)]
        tops = g.ops(
            "MaxPool", x, outputs=2 if mask else 1, kernel_shape=list(self.kernel), strides=list(self.stride), pads=pads
        )
        if not mask:
            return tops
        plane = g.constant(size[0] * size[1], np.int64)  # ONNX counts through the whole tensor, Caffe in one plane
        return [tops[0], g.op("Cast", g.op("Mod", tops[1], plane), to=1)]

    def _lower_average(self, g: Lowering, x: str, size: Pair) -> str:
        if self._is_global(size):
            return g.op("GlobalAveragePool", x)
        end = self.end_pad(size)
        # Without pad Caffe divides by the pixels in the window; with pad by the window clipped to the padded image: the
        # whole kernel, but for the overhang that `ceil` makes.
        y = g.op(
            "AveragePool",
            x,
            kernel_shape=list(self.kernel),
            strides=list(self.stride),
            pads=[*self.pad, *end],
            count_include_pad=int(self.pad != (0, 0)),
        )
        if self.pad == (0, 0) or (end[0] <= self.pad[0] and end[1] <= self.pad[1]):
            return y
        rows, columns = (
            k / np.minimum(k, extent + 2 * p - s * np.arange(out))
            for extent, out, k, s, p in zip(size, self.output(size), self.kernel, self.stride, self.pad)
        )
        return g.op("Mul", y, g.constant(np.outer(rows, columns)[None, None]))


def _first(y: Tensor, size: Pair) -> Tensor:
    """The first rows and columns; a slice only where there are more, since its backward fills and copies a plane."""
    return y if tuple(y.shape[2:]) == size else y[..., : size[0], : size[1]]
