"""MemoryData: images and labels from arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Blob, FloatArray
from pycaffe.errors import InputError
from pycaffe.layers._reader import ReaderLayer
from pycaffe.layers._registry import register_layer

__all__ = ["MemoryDataLayer"]

logger = logging.getLogger(__name__)


@register_layer("MemoryData")
class MemoryDataLayer(ReaderLayer):
    """Hands out the arrays that `reset` was given, batch by batch, over and over.

    top[0]: (N, C, H, W) as `memory_data_param` says (`batch_size`, `channels`, `height`, `width`: all needed).
    top[1]: labels, (N,) after set-up and (N, 1, 1, 1) from the first forward pass on, as in the original.

    Raises:
        LayerError: a parameter is not positive; a forward pass before `reset`.

    As memory_data_layer.cpp. The arrays are not copied: what is written to them later is seen by the next forward pass.
    A saved state holds the place in the arrays, not the arrays: give them again first.
    """

    exact_num_top_blobs = 2
    checked_by = "NumPy loop"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        param = self.layer_param.memory_data_param
        self.batch_size, self.image_shape = param.batch_size, (param.channels, param.height, param.width)
        if min(self.batch_size, *self.image_shape) <= 0:
            raise self.error(
                "batch_size, channels, height, and width must be specified and positive in memory_data_param. Got "
                f"batch_size {self.batch_size!r}, (channels, height, width) {self.image_shape!r}."
            )
        self._data: FloatArray | None = None
        self._labels: FloatArray | None = None
        self._position = 0
        top[0].reshape(self.batch_size, *self.image_shape)
        top[1].reshape(self.batch_size)

    def reset(self, data: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Takes the arrays that the next forward passes hand out (MemoryData's Reset, _caffe.cpp's Net_SetInputArrays).

        Args:
            data: (M, C, H, W), float32 and C contiguous; M is a multiple of batch_size.
            labels: (M, 1, 1, 1), float32 and C contiguous.

        Raises:
            InputError: an array is none of that.
        """
        _check_array(data, "data array", self.image_shape)
        _check_array(labels, "labels array", (1, 1, 1))
        if len(data) != len(labels):
            raise InputError(
                f"data and labels must have the same first dimension. Got {len(data)!r} and {len(labels)!r}."
            )
        if len(data) == 0 or len(data) % self.batch_size:
            raise InputError(
                "first dimensions of input arrays must be a multiple of batch size. "
                f"Got {len(data)!r}, batch size {self.batch_size!r}."
            )
        if self.layer_param.HasField("transform_param"):
            logger.warning("%s does not transform array data on Reset()", self.type)
        self._data, self._labels, self._position = data, labels, 0

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self._data is None or self._labels is None:
            raise self.error(
                "MemoryDataLayer needs to be initialized by calling Reset. Call net.set_input_arrays first."
            )
        rows = slice(self._position, self._position + self.batch_size)
        for blob, array in zip(top, (self._data, self._labels)):
            blob.reshape(self.batch_size, *array.shape[1:])
            blob.raw_data()[...] = array[rows]
        self._position = rows.stop % len(self._data)

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def restore_parts(self, state: dict[str, Any]) -> None:
        position = int(state["position"])
        if self._data is not None and not 0 <= position < len(self._data):
            raise IndexError(f"position {position!r} in {len(self._data)!r} rows")
        self._position = position


def _check_array(array: Any, name: str, shape: tuple[int, int, int]) -> None:
    """CheckContiguousArray of _caffe.cpp."""
    if not isinstance(array, np.ndarray):
        raise InputError(f"{name} must be a NumPy array, not {type(array).__name__}")
    if not array.flags.c_contiguous:
        raise InputError(f"{name} must be C contiguous. Use numpy.ascontiguousarray.")
    if array.ndim != 4:
        raise InputError(f"{name} must be 4-d. Got shape {array.shape!r}.")
    if array.dtype != np.float32:
        raise InputError(f"{name} must be float32. Got {array.dtype.name!r}.")
    for what, expected, got in zip(("number of channels", "height", "width"), shape, array.shape[1:]):
        if got != expected:
            raise InputError(f"{name} has wrong {what}: expected {expected!r}, got {got!r}.")
