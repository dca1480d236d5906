"""Inputs that a user hands over in bulk, for int8's calibration and for comparisons: checked, and cut into batches."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.engines.segment import Segment
from pycaffe.errors import InputError

if TYPE_CHECKING:
    from pycaffe.net.net import Net

__all__ = ["Calibration", "named_inputs"]


class Calibration:
    """The inputs whose ranges become int8's scales.

    Args:
        net: the net that they are for.
        inputs: arrays or dicts of arrays by input name; see `named_inputs`. All are kept in memory.

    Raises:
        InputError: an input does not fit the net, or there is none.
    """

    def __init__(self, net: Net, inputs: Iterable[Any]) -> None:
        self._net = weakref.ref(net)
        self._inputs = list(named_inputs(net, inputs))
        if not self._inputs:
            raise InputError("calibration is empty. Pass some inputs that are like those at inference: 20 to 200 do.")

    def samples(self, segment: Segment) -> Iterator[dict[str, FloatArray]]:
        """What a segment's own inputs are for each of the calibration inputs, computed in float32 up to its start."""
        net = self._net()
        if net is None:
            raise ReferenceError("The net is gone.")
        names = {name: net._graph.blob_names[blob] for name, blob in segment.inputs}
        if set(names.values()) <= set(net.inputs):
            dims = {
                names[value.name]: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
                for value in segment.model.graph.input
                if value.name in names
            }
            for batch in self._batches(dims):
                yield {name: batch[blob] for name, blob in names.items()}
        else:
            yield from self._samples_inside(net, segment, names)

    def _samples_inside(self, net: Net, segment: Segment, names: dict[str, str]) -> Iterator[dict[str, FloatArray]]:
        before = net._sibling(engine="onnxruntime")
        for batch in self._batches({name: list(net.blobs[name].shape) for name in net.inputs}):
            for name, array in batch.items():
                before.blobs[name].reshape(*array.shape)
                before.blobs[name].data[...] = array
            before._forward(0, segment.start - 1)
            yield {name: before.blobs[blob].data.copy() for name, blob in names.items()}

    def _batches(self, dims: Mapping[str, list[int | None]]) -> Iterator[dict[str, FloatArray]]:
        """The inputs in batches of the extents wanted; None stands for any. The last batch begins again in front."""
        items = [{name: item[name] for name in dims} for item in self._inputs]
        for item in items:
            for name, extents in dims.items():
                if item[name].ndim != len(extents) or any(
                    want not in (None, got) for want, got in zip(extents[1:], item[name].shape[1:])
                ):
                    raise InputError(
                        f"Calibration inputs for {name!r} have shape {item[name].shape!r}, and the net now runs with "
                        f"{tuple(extents)!r}. Make a net for these shapes, calibrated with inputs of these shapes."
                    )
        if all(len(extents) and extents[0] in (None, i[n].shape[0]) for i in items for n, extents in dims.items()):
            yield from items
            return
        joined = {name: np.concatenate([item[name] for item in items]) for name in dims}
        count = len(next(iter(joined.values())))
        size = max(extents[0] or 1 for extents in dims.values())
        for begin in range(0, count, size):
            chosen = np.arange(begin, begin + size) % count
            yield {name: np.ascontiguousarray(array[chosen]) for name, array in joined.items()}


def named_inputs(net: Net, inputs: Iterable[Any]) -> Iterator[dict[str, FloatArray]]:
    """Each of a user's inputs as float32 arrays by input name.

    Args:
        net: whose inputs they are.
        inputs: each a dict by input name, or for a net of one input an array. An array that lacks the batch axis, as a
            single image (C, H, W) does, becomes a batch of one.

    Raises:
        InputError: names or axes do not fit, or the net has no inputs.
    """
    if not net.inputs:
        raise InputError("The net has no Input layer: it reads its data by itself, and none can be passed.")
    if isinstance(inputs, (Mapping, str, bytes)):
        raise InputError(f"Expected an iterable of inputs (arrays or dicts of arrays), got {inputs!r}.")
    for index, given in enumerate(inputs):
        if not isinstance(given, Mapping):
            if len(net.inputs) != 1:
                raise InputError(f"Input {index} is not a dict, and the net has several inputs: {net.inputs!r}.")
            given = {net.inputs[0]: given}
        if set(given) != set(net.inputs):
            raise InputError(f"Input {index} has {sorted(given)!r}, expected {sorted(net.inputs)!r}.")
        yield {name: _array(value, net.blobs[name].shape, index, name) for name, value in given.items()}


def _array(value: Any, shape: Shape, index: int, name: str) -> FloatArray:
    try:
        array = np.ascontiguousarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"Input {index} for {name!r} is no array of numbers: {error}") from error
    if array.ndim == len(shape) - 1:
        array = array[np.newaxis]
    if array.ndim != len(shape):
        raise InputError(f"Input {index} for {name!r} has shape {array.shape!r}, expected one like {shape!r}.")
    return array
