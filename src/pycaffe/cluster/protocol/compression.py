"""How gradients and values look on their way: as they are, as fp16, or only the largest elements of a gradient.

What a worker rounds or leaves out of a push it keeps and adds to its next gradient (error feedback; Seide and others,
2014; Lin and others, 2018), so that nothing is lost but time. A worker that dies takes its remainders with it.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.errors import SolverError
from pycaffe.layers._torch import Tensor, torch

__all__ = [
    "Compression",
    "Dense",
    "Encoded",
    "GradientEncoder",
    "NonFinite",
    "Sparse",
    "decode",
    "encode_values",
    "is_finite",
    "parse_compression",
]


@dataclass(frozen=True)
class Compression:
    """What `parse_compression` found.

    Attributes:
        kind: "none", "fp16" or "topk".
        fraction: of "topk": the part of a gradient's elements that is pushed.
    """

    kind: str = "none"
    fraction: float = 1.0


NO_COMPRESSION = Compression()
HALF_MAX = float(np.finfo(np.float16).max)
# A bound for a gradient's largest elements is guessed from every so many of them, a prime so that no layout repeats in
# these; and how many more than asked for are to lie above it.
SAMPLED, MARGIN = 61, 1.25
MIN_SAMPLED = 1 << 16  # elements; below, a guess costs more than it saves

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Dense:
    """All elements, as float32 or float16."""

    values: FloatArray | Half

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return int(self.values.nbytes)


@dataclass(frozen=True)
class Sparse:
    """Elements of a gradient of `size` elements, the others being 0."""

    indices: npt.NDArray[np.uint32]
    values: FloatArray
    size: int

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return int(self.indices.nbytes + self.values.nbytes)


@dataclass(frozen=True)
class NonFinite:
    """Stands for a gradient with NaN or infinity in it, which a server refuses anyway."""

    nbytes: int = 0


Encoded = Dense | Sparse | NonFinite


def parse_compression(text: str | None) -> Compression:
    """None, "none", "fp16" or "topk:F" with 0 < F <= 1.

    Raises:
        SolverError: anything else.
    """
    if text is None or text == "none":
        return Compression()
    if text == "fp16":
        return Compression("fp16")
    kind, _, number = text.partition(":")
    try:
        fraction = float(number)
    except ValueError:
        fraction = math.nan
    if kind != "topk" or not 0 < fraction <= 1:
        raise SolverError(
            f"compression is None, 'fp16' or 'topk:F' with 0 < F <= 1, such as 'topk:0.01'; got {text!r}."
        )
    return Compression("topk", fraction)


class GradientEncoder:
    """One worker's pushes, with what they left out so far.

    Args:
        compression: of the run.
    """

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._left: dict[int, FloatArray] = {}

    def encode(self, piece: int, gradient: FloatArray) -> Encoded:
        """The push of a piece's gradient, flat float32, which is left as it is.

        Without compression the answer holds `gradient` itself. One with NaN or infinity in it leaves the remainders as
        they are.
        """
        if self._compression.kind == "none":
            return Dense(gradient)
        if not is_finite(gradient):
            return NonFinite()
        if piece in self._left:
            self._left[piece] += gradient
        else:
            self._left[piece] = gradient.copy()
        whole = self._left[piece]  # what is sent goes out of it below
        if self._compression.kind == "fp16":
            rounded = _half(whole)
            whole -= _single(rounded)
            return Dense(rounded)
        count = min(whole.size, math.ceil(self._compression.fraction * whole.size))
        indices = _largest(np.abs(whole), count)
        values = whole[indices]
        whole[indices] = 0
        return Sparse(indices, values, whole.size)

    def reset(self) -> None:
        """Forgets the remainders: the parameters went back to a checkpoint."""
        self._left.clear()


def encode_values(compression: Compression, values: FloatArray) -> Dense:
    """What a pull carries: fp16 halves it; top-k is for gradients only. May hold `values` itself."""
    return Dense(_half(values) if compression.kind == "fp16" else values)


def decode(encoded: Dense | Sparse) -> FloatArray:
    """The float32 elements; of float32 ones the same array."""
    if isinstance(encoded, Sparse):
        whole = np.zeros(encoded.size, np.float32)
        whole[encoded.indices] = encoded.values
        return whole
    return _single(encoded.values)


def is_finite(values: FloatArray) -> bool:
    """Whether there is neither NaN nor infinity among them."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(np.dot(values, values))
    # Many times faster than to look at each, but squares of large numbers overflow.
    if math.isfinite(squares):
        return True
    return bool(np.isfinite(values).all())


def _largest(magnitudes: FloatArray, count: int) -> npt.NDArray[np.uint32]:
    """Where the `count` largest are, in ascending order.

    Where most are smaller than a bound guessed from a sample, only the others are sorted out (a third of the time).
    """
    candidates = None
    sample = magnitudes[::SAMPLED]
    above = math.ceil(MARGIN * count * sample.size / magnitudes.size)
    if magnitudes.size >= MIN_SAMPLED and above < sample.size:
        candidates = np.flatnonzero(magnitudes >= np.partition(sample, sample.size - above)[sample.size - above])
    if candidates is None or candidates.size < count:
        candidates = np.arange(magnitudes.size)
    largest = np.argpartition(magnitudes[candidates], candidates.size - count)[candidates.size - count :]
    return np.sort(candidates[largest]).astype(np.uint32)


def _half(values: FloatArray) -> Half:
    """Rounded to float16; what is larger than it can hold becomes its largest."""
    half: Half = torch.clamp(_tensor(values), -HALF_MAX, HALF_MAX).half().numpy()
    return half


def _single(values: FloatArray | Half) -> FloatArray:
    """As float32; the same array where it is that already."""
    single: FloatArray = np.asarray(_tensor(values).float() if values.dtype == np.float16 else values, np.float32)
    return single


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Of the same memory, only to be read. torch converts float16 ten times as fast as NumPy.

    The detour is for arrays in Ray's store, which cannot be written: torch.from_numpy would warn of them.
    """
    octets: Any = (ctypes.c_byte * array.nbytes).from_address(array.ctypes.data)
    return torch.from_numpy(np.frombuffer(octets, array.dtype))
