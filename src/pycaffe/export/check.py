"""The proof: the exported file, run by onnxruntime, against the net, run layer by layer by torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.engines.runtime import load_onnxruntime
from pycaffe.errors import ExportMismatch, InputError
from pycaffe.export.lowered_net import BATCH, Extent, LoweredNet
from pycaffe.export.preprocessing import FoldedPreprocess
from pycaffe.export.source import batched_inputs, source_of
from pycaffe.net import TEST, Net

__all__ = ["CheckInputs", "ExportReport", "OutputError", "TOLERANCE", "check_inputs", "measure"]

FloatArray = npt.NDArray[np.float32]
Inputs = dict[str, FloatArray]
CheckInputs = bool | Mapping[str, npt.ArrayLike] | Sequence[Mapping[str, npt.ArrayLike]] | None
TOLERANCE = 1e-4  # of an output's largest value; a deep net's rounding stays far below
SEED = 20140613


@dataclass(frozen=True)
class OutputError:
    """The largest difference of an output, and the same as a fraction of the output's largest value."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the .onnx file.
        opset: of its operators.
        inputs, outputs: shapes by name; an open batch is 'N', a multiple of it '2*N'.
        size: bytes of the file, and of its .data file where it has one.
        preprocessing: what the file does to its image input; None where nothing was folded in.
        errors: by output, how far the file is from the net on the inputs of the check; empty without a check.
    """

    path: str
    opset: int
    inputs: dict[str, tuple[Extent, ...]]
    outputs: dict[str, tuple[Extent, ...]]
    size: int
    preprocessing: str | None = None
    errors: dict[str, OutputError] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.path}: opset {self.opset}, {self.size / 1e6:.1f} MB"]
        lines += [f"  input  {name} {_shape_text(shape)}" for name, shape in self.inputs.items()]
        if self.preprocessing is not None:
            lines.append(f"  {self.preprocessing}")
        for name, shape in self.outputs.items():
            line = f"  output {name} {_shape_text(shape)}"
            if name in self.errors:
                error = self.errors[name]
                line += f"  largest error {error.absolute:.3g}, {error.relative:.3g} of the largest value"
            lines.append(line)
        return "\n".join(lines)


def _shape_text(shape: tuple[Extent, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


# -- inputs


def check_inputs(check: CheckInputs, net: Net, lowered: LoweredNet, image_input: str | None) -> list[Inputs]:
    """The inputs to compare on: those given, or with True seeded ones, at another batch as well where it is open.

    Raises:
        InputError: an input is missing, unknown or of another shape.
    """
    if check is None or check is False:
        return []
    if check is True:
        return _random_inputs(net, lowered, image_input)
    given = [check] if isinstance(check, Mapping) else list(check)
    if not given:
        raise InputError("check holds no inputs. Give a dict of arrays by input name, a list of them, or True.")
    return [_checked(inputs, lowered.inputs) for inputs in given]


def _checked(given: Mapping[str, npt.ArrayLike], shapes: dict[str, tuple[Extent, ...]]) -> Inputs:
    if not isinstance(given, Mapping) or set(given) != set(shapes):
        names = sorted(given) if isinstance(given, Mapping) else given
        raise InputError(f"check: expected arrays for the inputs {sorted(shapes)!r}, got {names!r}.")
    arrays = {name: np.ascontiguousarray(given[name], np.float32) for name in shapes}
    batches: set[int] = set()
    for name, shape in shapes.items():
        got = arrays[name].shape
        if len(got) != len(shape) or any(want not in (extent, BATCH) for want, extent in zip(shape, got)):
            raise InputError(f"check: input {name!r} has shape {got!r}, expected {_shape_text(shape)}.")
        batches.update(extent for want, extent in zip(shape, got) if want == BATCH)
    if len(batches) > 1 or 0 in batches:
        raise InputError(f"check: expected one batch for all inputs, got {sorted(batches)!r}.")
    return arrays


def _random_inputs(net: Net, lowered: LoweredNet, image_input: str | None) -> list[Inputs]:
    generator = np.random.default_rng(SEED)
    batch = batched_inputs(net._graph)[0] or 1
    is_open = any(BATCH in shape for shape in lowered.inputs.values())
    result = []
    for extent in (batch, batch + 1) if is_open else (batch,):
        inputs: Inputs = {}
        for name, shape in lowered.inputs.items():
            concrete = tuple(extent if axis == BATCH else int(axis) for axis in shape)
            if name == image_input:
                inputs[name] = generator.integers(0, 256, concrete).astype(np.float32)
            elif _holds_indices(net, name):
                inputs[name] = np.zeros(concrete, np.float32)
            else:
                inputs[name] = generator.standard_normal(concrete, np.float32)
        result.append(inputs)
    return result


def _holds_indices(net: Net, name: str) -> bool:
    """Whether a layer takes an input, perhaps through Splits, as labels or as other indices."""
    graph = net._graph
    blobs = {graph.blob_names.index(name)}
    for node in graph.nodes:
        for position, blob in enumerate(node.bottom):
            if blob not in blobs:
                continue
            if node.type == "Split":
                blobs.update(node.top)
            elif not node.layer.allow_force_backward(position) or (node.type, position) in _INDICES:
                return True
    return False


_INDICES = {("Embed", 0), ("BatchReindex", 1)}


# -- comparison


def measure(
    path: str, net: Net, lowered: LoweredNet, inputs: Sequence[Inputs], preprocessing: FoldedPreprocess | None
) -> dict[str, OutputError]:
    """The largest error of each output over all inputs.

    Raises:
        ExportMismatch: onnxruntime cannot run the file, or an output has another shape.
    """
    reference = _torch_net(net)
    session = _session(path)
    worst = dict.fromkeys(lowered.outputs, (0.0, 0.0))
    for arrays in inputs:
        expected = _run_net(reference, arrays, lowered, preprocessing)
        try:
            got = dict(zip(lowered.outputs, session.run(list(lowered.outputs), arrays)))
        except Exception as error:  # onnxruntime's own, of many types
            raise ExportMismatch(f"onnxruntime cannot run the exported file: {error}") from error
        for name, value in got.items():
            difference, scale = _difference(name, expected[name], value)
            worst[name] = (max(worst[name][0], difference), max(worst[name][1], scale))
    return {name: OutputError(error, error / scale if error else 0.0) for name, (error, scale) in worst.items()}


def _torch_net(net: Net) -> Net:
    """A net of its own over the same parameters; the user's keeps its blobs."""
    reference = Net(source_of(net._graph), TEST, engine="torch")
    for mine, theirs in zip(reference._graph.nodes, net._graph.nodes):
        for blob, other in zip(mine.layer.blobs, theirs.layer.blobs):
            blob.share_data(other)
    return reference


def _session(path: str) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportMismatch(f"onnxruntime cannot load the exported file: {error}") from error


def _run_net(net: Net, arrays: Inputs, lowered: LoweredNet, preprocessing: FoldedPreprocess | None) -> Inputs:
    for name, array in arrays.items():
        net.blobs[name].reshape(*array.shape)
        if preprocessing is not None and name == preprocessing.input:
            array = preprocessing.apply(array)
        net.blobs[name].data[...] = array
    net.reshape()
    net.forward()
    return {name: net.blobs[blob].data.copy() for name, blob in lowered.output_blobs.items()}


def _difference(name: str, want: FloatArray, got: FloatArray) -> tuple[float, float]:
    """The largest difference, infinite where one is not finite and the other is, and the largest value."""
    if got.shape != want.shape:
        raise ExportMismatch(f"Output {name!r} of the exported file has shape {got.shape!r}, the net's {want.shape!r}.")
    if not want.size:
        return 0.0, 0.0
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        difference = np.abs(got.astype(np.float64) - want)
    difference = np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
    finite = np.abs(want[np.isfinite(want)], dtype=np.float64)
    return float(difference.max()), float(finite.max(initial=np.finfo(np.float32).tiny))
