"""How gradients and values look on their way: as they are, as fp16, or only the largest elements of a gradient.

What a worker rounds or leaves out of a push it keeps and adds to its next gradient (error feedback; Seide and others,
2014; Lin and others, 2018), so that nothing is lost but time. A worker that dies takes its remainders with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.errors import SolverError

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
        left = self._left.get(piece)
        whole = gradient.copy() if left is None else gradient + left
        self._left[piece] = whole
        if self._compression.kind == "fp16":
            rounded = _half(whole)
            whole -= rounded
            return Dense(rounded)
        count = min(whole.size, math.ceil(self._compression.fraction * whole.size))
        largest = np.argpartition(np.abs(whole), whole.size - count)[whole.size - count :]
        indices = np.sort(largest).astype(np.uint32)
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
    return encoded.values.astype(np.float32, copy=False)


def is_finite(values: FloatArray) -> bool:
    """Whether there is neither NaN nor infinity among them."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(np.dot(values, values))
    # Many times faster than to look at each, but squares of large numbers overflow.
    if math.isfinite(squares):
        return True
    return bool(np.isfinite(values).all())


def _half(values: FloatArray) -> Half:
    """Rounded to float16; what is larger than it can hold becomes its largest."""
    return np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)
