"""What reduced precision costs: a net against a float32 reference, on the user's own inputs."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.errors import InputError
from pycaffe.net.calibration import named_inputs

if TYPE_CHECKING:
    from pycaffe.net.net import Net

__all__ = ["Comparison", "OutputDifference", "compare_nets", "reference_of"]


@dataclass
class OutputDifference:
    """How far one output is from the reference, over all inputs.

    Attributes:
        largest: largest absolute difference.
        relative: `largest` over the reference's largest absolute value.
        cosine: between an item's values and the reference's, of the worst item.
        top1: the part of the items whose largest value is at the same index; None where an item is no vector.
    """

    largest: float = 0.0
    relative: float = 0.0
    cosine: float = 1.0
    top1: float | None = None
    _scale: float = field(default=0.0, repr=False)
    _agree: list[bool] = field(default_factory=list, repr=False)

    def add(self, got: FloatArray, want: FloatArray) -> None:
        """Takes one more pair of results into account; values that are not finite count as infinitely far apart."""
        if got.shape != want.shape:
            raise InputError(f"The outputs have different shapes: {got.shape!r} and {want.shape!r}.")
        if not want.size:
            return
        a, b = got.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
        self.largest = max(self.largest, float(np.nan_to_num(difference, nan=np.inf).max()))
        self._scale = max(self._scale, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        if self.largest:
            self.relative = self.largest / self._scale if self._scale else math.inf
        items = len(a) if a.ndim > 1 else 1
        for x, y in zip(a.reshape(items, -1), b.reshape(items, -1)):
            self.cosine = min(self.cosine, _cosine(x, y))
        if a.ndim > 1 and a[0].size == a.shape[1] > 1:
            self._agree += list(a.reshape(items, -1).argmax(1) == b.reshape(items, -1).argmax(1))
            self.top1 = float(np.mean(self._agree))


@dataclass
class Comparison:
    """Differences by output name; prints as a table.

    Attributes:
        outputs: by name.
        inputs: how many were run.
        net, reference: engine and precision of the two.
    """

    outputs: dict[str, OutputDifference]
    inputs: int
    net: str
    reference: str

    def __str__(self) -> str:
        rows = [("output", "largest error", "relative", "cosine", "top-1")]
        for name, d in self.outputs.items():
            top1 = "-" if d.top1 is None else f"{d.top1:.1%}"
            rows.append((name, f"{d.largest:.3g}", f"{d.relative:.3g}", f"{d.cosine:.6f}", top1))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
            for row in rows
        ]
        return "\n".join([f"{self.net} against {self.reference}, {self.inputs} inputs", *lines])


def compare_nets(net: Net, inputs: Iterable[Any], reference: Net) -> Comparison:
    """Runs both nets on each input and compares their outputs.

    Raises:
        InputError: there is no input, or an input does not fit, or the nets have different outputs.
    """
    if net.outputs != reference.outputs:
        raise InputError(f"The nets have different outputs: {net.outputs!r} and {reference.outputs!r}.")
    shapes = [(n.blobs[name], n.blobs[name].shape) for n in (net, reference) for name in n.inputs]
    differences = {name: OutputDifference() for name in net.outputs}
    count = 0
    try:
        for arrays in named_inputs(net, inputs):
            count += 1
            got, want = _run(net, arrays), _run(reference, arrays)
            for name, difference in differences.items():
                difference.add(got[name], want[name])
    finally:
        for blob, shape in shapes:
            blob.reshape(*shape)
    if not count:
        raise InputError("There is no input to compare on.")
    return Comparison(differences, count, _described(net), _described(reference))


def reference_of(net: Net) -> Net:
    """A float32 net over the same parameters: on torch where that is installed, else on onnxruntime."""
    return net._sibling(engine="torch" if importlib.util.find_spec("torch") is not None else "onnxruntime")


def _run(net: Net, arrays: dict[str, FloatArray]) -> dict[str, FloatArray]:
    with net._lock:
        for name, array in arrays.items():
            net.blobs[name].reshape(*array.shape)
            net.blobs[name].data[...] = array
        return {name: view.copy() for name, view in net.forward().items()}


def _described(net: Net) -> str:
    return f"{net._engine or 'onnxruntime and torch'} {net._precision}"


def _cosine(x: Any, y: Any) -> float:
    """1 for equal vectors, zeros included; 0 where only one is zero or a value is not finite."""
    if np.array_equal(x, y, equal_nan=True):
        return 1.0
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.dot(x, y) / lengths) if np.isfinite(lengths) and lengths > 0 else 0.0
