"""What an int8 net takes and gives when its user deals in int8: scales and zero points, measured as OpenCV does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.errors import InputError

__all__ = ["Quantization", "Scale", "measure"]

CV_8S, CV_32F = 1, 5
SOFTMAX_SCALE = (1 / 256, -128)  # OpenCV's, whatever the outputs are


@dataclass(frozen=True)
class Scale:
    """A value is (int8 - zero_point) * scale."""

    scale: float
    zero_point: int

    def to_float(self, values: npt.NDArray[Any]) -> FloatArray:
        """The values that int8 numbers stand for."""
        result: FloatArray = (values.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return result

    def to_int8(self, values: FloatArray) -> npt.NDArray[np.int8]:
        """The nearest int8 numbers."""
        nearest = np.rint(values / self.scale) + self.zero_point
        result: npt.NDArray[np.int8] = np.clip(nearest, -128, 127).astype(np.int8)
        return result


@dataclass(frozen=True)
class Quantization:
    """The scales of an int8 net's inputs, in order, and outputs, by layer name; and whether its user deals in int8."""

    inputs: tuple[Scale, ...]
    outputs: Mapping[str, Scale]
    int8_inputs: bool
    int8_outputs: bool

    def input_values(self, number: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the net is given."""
        if not self.int8_inputs:
            return values
        if values.dtype != np.int8:
            raise InputError(f"The net was quantized for inputs of CV_8S. Got an array of {values.dtype}.")
        return self.inputs[number].to_float(values)

    def output_values(self, layer: str, values: FloatArray) -> npt.NDArray[Any]:
        """What the user is given; layers within the net come as floats."""
        return self.outputs[layer].to_int8(values) if self.int8_outputs and layer in self.outputs else values

    def input_details(self) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        """Scales and zero points of the inputs."""
        return _details(self.inputs)

    def output_details(self) -> tuple[FloatArray, npt.NDArray[np.int32]]:
        """Scales and zero points of the outputs."""
        return _details(tuple(self.outputs.values()))


def measure(
    inputs: Sequence[FloatArray],
    outputs: Mapping[str, FloatArray],
    softmax: Collection[str],
    inputs_dtype: int,
    outputs_dtype: int,
) -> Quantization:
    """The scales of a net for which these inputs and outputs are typical.

    Args:
        inputs: samples of each input.
        outputs: what the net made of them, by layer name.
        softmax: the names of those that come from a Softmax, which get OpenCV's fixed scale.
        inputs_dtype: CV_32F or CV_8S.
        outputs_dtype: the same for the outputs.

    Raises:
        InputError: another type.
    """
    for what, dtype in (("Input", inputs_dtype), ("Output", outputs_dtype)):
        if dtype not in (CV_8S, CV_32F):
            raise InputError(f"{what} depth should be CV_32F ({CV_32F}) or CV_8S ({CV_8S}). Got {dtype!r}.")
    return Quantization(
        inputs=tuple(_scale_of(values) for values in inputs),
        outputs={name: Scale(*SOFTMAX_SCALE) if name in softmax else _scale_of(v) for name, v in outputs.items()},
        int8_inputs=inputs_dtype == CV_8S,
        int8_outputs=outputs_dtype == CV_8S,
    )


def _scale_of(values: FloatArray) -> Scale:
    """The scale that spreads the values, and zero, over -128 to 127."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    return Scale(scale, round(-128 - low / scale))


def _details(scales: Sequence[Scale]) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    return (
        np.array([scale.scale for scale in scales], np.float32),
        np.array([scale.zero_point for scale in scales], np.int32),
    )
