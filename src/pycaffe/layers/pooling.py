"""Pooling."""

from __future__ import annotations

from typing import Any

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import TRAIN, Layer
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._pooling import MAX, STOCHASTIC, Pair, PoolWindow
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["PoolingLayer"]

CEIL = 0  # PoolingParameter.RoundMode


@register_layer("Pooling")
class PoolingLayer(Layer):
    """Pools each channel over a sliding window: MAX, AVE or STOCHASTIC.

    bottom: (N, C, H, W).
    top: (N, C, H', W') with H' = ceil((H + 2 * pad - kernel) / stride) + 1 (floor with `round_mode: FLOOR`);
        MAX may add a second top: the index of each maximum in its (H, W) plane.

    As in pooling_layer.cpp: with pad > 0 a last window that starts outside the image is dropped, and AVE divides by the
    window clipped to the padded image. Without pad such a window (kernel < stride) reads past the blob there; dropped
    here. Of equal maxima the first one counts, and gets the gradient. STOCHASTIC follows pooling_layer.cu, since the
    original's CPU has none: in TRAIN a pixel is drawn with a probability in proportion to its (non-negative) value and
    gets the gradient; in TEST the top is the expected value, sum(x * x) / sum(x), or 0 where sum(x) <= 0. In TEST the
    original's backward reads indices that nothing wrote; here it is the derivative.

    Parameters (pooling_param): pool (MAX); kernel_size or kernel_h and kernel_w; pad (0) or pad_h and pad_w; stride
    (1) or stride_h and stride_w; global_pooling (false: the window is the whole image); round_mode (CEIL), which forks
    write as ceil_mode (true); engine: ignored.

    Raises:
        LayerError: the window is given twice, incompletely, or is impossible.  ShapeError: not 4 axes, or no window
            fits.
    """

    exact_num_bottom_blobs = 1
    min_top_blobs = 1
    max_top_blobs = 2
    computes_tops = True
    checked_by = "reference Caffe; STOCHASTIC: NumPy loop and distribution"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.pooling_param
        self.method, self.ceil = param.pool, param.round_mode == CEIL and param.ceil_mode
        if self.method != MAX and self.num_top > 1:
            raise self.error(
                f"Pooling Layer takes at most 1 top blob(s) as output. Got {self.num_top}: only MAX has a mask."
            )
        self._check_named_once(param)
        self.kernel: Pair | None = None
        if not param.global_pooling:
            square = param.HasField("kernel_size")
            self.kernel = (param.kernel_size,) * 2 if square else (param.kernel_h, param.kernel_w)
        self.pad: Pair = (param.pad_h, param.pad_w) if param.HasField("pad_h") else (param.pad,) * 2
        self.stride: Pair = (param.stride_h, param.stride_w) if param.HasField("stride_h") else (param.stride,) * 2
        if self.kernel is None and (self.pad != (0, 0) or self.stride != (1, 1)):
            raise self.error(
                f"With Global_pooling: true; only pad = 0 and stride = 1. Got pad {self.pad!r}, stride {self.stride!r}."
            )
        if self.kernel is not None:
            self._window_for(self.kernel)
        self._generator = child_generator() if self.method == STOCHASTIC and self.phase == TRAIN else None

    def _check_named_once(self, param: Any) -> None:
        has = param.HasField
        sizes = [name for name in ("kernel_size", "kernel_h", "kernel_w") if has(name)]
        if param.global_pooling and sizes:
            raise self.error(f"With Global_pooling: true Filter size cannot specified. Got {sizes!r}.")
        if not param.global_pooling and has("kernel_size") == (has("kernel_h") and has("kernel_w")):
            raise self.error(f"Filter size is kernel_size OR kernel_h and kernel_w; not both. Got {sizes!r}.")
        for name, sentence in (
            ("pad", "pad is pad OR pad_h and pad_w are required."),
            ("stride", "Stride is stride OR stride_h and stride_w are required."),
        ):
            height, width = has(f"{name}_h"), has(f"{name}_w")
            if (height or width) and not (height and width and not has(name)):
                got = [field for field in (name, f"{name}_h", f"{name}_w") if has(field)]
                raise self.error(f"{sentence} Got {got!r}.")

    def _window_for(self, kernel: Pair) -> PoolWindow:
        return PoolWindow(self.method, kernel, self.stride, self.pad, self.ceil)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 4:
            raise ShapeError(
                f"Input must have 4 axes, corresponding to (num, channels, height, width). Got shape {bottom[0]!r}."
            )
        num, channels, height, width = bottom[0]
        self.window = self._window_for(self.kernel or (height, width))
        return [(num, channels, *self.window.output((height, width)))] * self.num_top

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return self.window.forward(bottom[0], self._generator, mask=self.num_top > 1)

    def state(self) -> dict[str, Any]:
        return {} if self._generator is None else {"generator": self._generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self._generator = generator_in_state(state["generator"])

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self._generator is not None:
            raise NotLowerable("Pooling: STOCHASTIC draws random numbers in the TRAIN phase")
        height, width = self.bottom_shapes[0][2:]
        return self.window.lower(g, bottom[0], (height, width), mask=self.num_top > 1)
