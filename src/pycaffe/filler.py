"""Initial values of parameters: the seven fillers of filler.hpp.

`filler(param, shape)` checks at once and returns a function that fills a flat array later: a net whose weights come
from a file never pays for it. Each filler draws from a generator of its own, fixed when it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.errors import LayerError, did_you_mean
from pycaffe.rng import child_generator

__all__ = ["filler"]

Fill = Callable[[FloatArray], None]
Generator = np.random.Generator | None


def filler(param: Any, shape: Shape, generator: Generator = None) -> Fill:
    """The fill function for a FillerParameter and a blob of `shape`; draws from `generator`, or from one of its own.

    Raises:
        LayerError: unknown filler type, an empty blob, no axes where inputs are counted, `sparse` with another filler
            than gaussian or beyond the first axis, a std that is not positive, min above max, or a bilinear filler on a
            blob that is not N x C x K x K.
    """
    known = {
        "constant": _constant,
        "gaussian": _gaussian,
        "positive_unitball": _positive_unitball,
        "uniform": _uniform,
        "xavier": _xavier,
        "msra": _msra,
        "bilinear": _bilinear,
    }
    if param.type not in known:
        raise LayerError(f"Unknown filler name: {param.type!r}.{did_you_mean(param.type, known)}")
    if math.prod(shape) == 0:
        raise LayerError(f"Check failed: count. Filler {param.type!r} on an empty blob of shape {shape!r}.")
    if not shape and param.type in ("positive_unitball", "xavier", "msra"):
        raise LayerError(f"axis 0 out of range for a 0-D Blob. Filler {param.type!r} needs at least one axis.")
    if param.sparse != -1 and param.type != "gaussian":
        raise LayerError(f"Sparsity not supported by this Filler. Filler {param.type!r}, sparse {param.sparse!r}.")
    return known[param.type](param, shape, generator)


def _constant(param: Any, shape: Shape, generator: Generator) -> Fill:
    value = param.value

    def fill(array: FloatArray) -> None:
        array[...] = value

    return fill


def _uniform_between(low: float, high: float, generator: Generator) -> Fill:
    own = generator or child_generator()

    def fill(array: FloatArray) -> None:
        own.random(out=array, dtype=np.float32)
        array *= np.float32(high - low)
        array += np.float32(low)

    return fill


def _normal(mean: float, std: float, generator: Generator) -> Fill:
    own = generator or child_generator()

    def fill(array: FloatArray) -> None:
        own.standard_normal(out=array, dtype=np.float32)
        array *= np.float32(std)
        array += np.float32(mean)

    return fill


def _uniform(param: Any, shape: Shape, generator: Generator) -> Fill:
    if param.min > param.max:
        raise LayerError(f"Check failed: a <= b. Filler 'uniform' with min {param.min!r} and max {param.max!r}.")
    return _uniform_between(param.min, param.max, generator)


def _gaussian(param: Any, shape: Shape, generator: Generator) -> Fill:
    if param.sparse < -1:
        raise LayerError(f"Check failed: sparse >= -1. Got {param.sparse!r}.")
    if not param.std > 0:
        raise LayerError(f"Check failed: sigma > 0. Filler 'gaussian' with std {param.std!r}; use 'constant' for 0.")
    normal = _normal(param.mean, param.std, generator)
    if param.sparse < 0:
        return normal
    if not shape:
        raise LayerError("Check failed: blob->num_axes() >= 1. A sparse gaussian filler on a scalar.")
    if param.sparse > shape[0]:
        raise LayerError(f"Check failed: p <= 1. Filler 'gaussian' with sparse {param.sparse!r} for shape {shape!r}.")
    probability, own = param.sparse / shape[0], generator or child_generator()

    def fill(array: FloatArray) -> None:
        normal(array)
        array *= own.random(array.size) < probability

    return fill


def _positive_unitball(param: Any, shape: Shape, generator: Generator) -> Fill:
    uniform = _uniform_between(0.0, 1.0, generator)

    def fill(array: FloatArray) -> None:
        uniform(array)
        rows = array.reshape(shape[0], -1)
        rows /= rows.sum(axis=1, keepdims=True)

    return fill


def _fan(param: Any, shape: Shape) -> float:
    """fan_in, fan_out or their mean, by `variance_norm`."""
    count = math.prod(shape)
    fan_in = count // shape[0]
    fan_out = count // shape[1] if len(shape) > 1 else count
    norms = {0: float(fan_in), 1: float(fan_out), 2: (fan_in + fan_out) / 2}
    return norms[param.variance_norm]


def _xavier(param: Any, shape: Shape, generator: Generator) -> Fill:
    scale = math.sqrt(3 / _fan(param, shape))
    return _uniform_between(-scale, scale, generator)


def _msra(param: Any, shape: Shape, generator: Generator) -> Fill:
    return _normal(0.0, math.sqrt(2 / _fan(param, shape)), generator)


def _bilinear(param: Any, shape: Shape, generator: Generator) -> Fill:
    if len(shape) != 4:
        raise LayerError(f"Blob must be 4 dim. Got shape {shape!r}.")
    if shape[2] != shape[3]:
        raise LayerError(f"Filter must be square. Got shape {shape!r}.")
    size = shape[3]

    def fill(array: FloatArray) -> None:
        factor = math.ceil(size / 2)
        centre = (size - 1) / (2 * factor)
        line = 1 - np.abs(np.arange(size) / factor - centre)
        array.reshape(shape)[...] = np.outer(line, line).astype(np.float32)

    return fill
