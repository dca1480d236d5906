"""`export_onnx`: a net becomes one .onnx file, checked before it takes its place."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import ExportError, ExportMismatch, InputError
from pycaffe.export.check import TOLERANCE, CheckInputs, ExportReport, check_inputs, measure
from pycaffe.export.lowered_net import LoweredNet, lower_net
from pycaffe.export.preprocessing import FoldedPreprocess
from pycaffe.export.source import exportable_net, refuse_host_layers, source_of
from pycaffe.images import ImagePreprocess
from pycaffe.layers._lowering import OPSET
from pycaffe.net import TEST, Net

__all__ = ["OPSETS", "export_onnx"]

Path = str | os.PathLike[str]
OPSETS = range(13, 22)
# A protobuf message ends at 2 GiB; the rest is for the nodes.
LARGEST_FILE = 2**31 - 2**24
PAGE = 4096  # tensors in a .data file begin at pages, so that readers can map them
IN_PROTO = 1024  # bytes: smaller arrays (shapes, axes) stay in the .onnx, where readers want them for their own folding


def export_onnx(
    net_or_files: Net | tuple[Path, Path],
    path: Path,
    *,
    opset: int = OPSET,
    dynamic_batch: bool = True,
    preprocessing: ImagePreprocess | None = None,
    check: CheckInputs = None,
    tolerance: float = TOLERANCE,
) -> ExportReport:
    """Writes a net as one self-contained ONNX model, whose inputs and outputs have the names of the net's blobs.

    Every layer is expressed, or the export is refused. An input that no layer reads stays an input, and is not an
    output as it is in Caffe; an output that is an input's own blob, changed in place, has the name of the last layer
    that changed it. The file is checked under another name and takes its place at the end; on an error nothing is left.

    Args:
        net_or_files: a TEST-phase net, or (prototxt, caffemodel).
        path: the file to write. Weights that would take it over 2 GB are in `<path>.data` beside it; both are needed.
        opset: 13 to 21.
        dynamic_batch: whether the first extent of the inputs is open ('N'). The net must allow it. False exports for
            the present shape of the net's inputs. Inputs whose first extent is not that of the first input keep theirs.
        preprocessing: its mean, scale and channel order become part of the model, which then takes raw images:
            float32 (N, 3, H, W) with values 0 to 255 in the order blue, green, red (grey: (N, 1, H, W)), of the net's
            own height and width. With channel_order RGB the channels are exchanged first; then the mean is subtracted,
            then the scale multiplied. Resizing and cropping stay the caller's.
        check: inputs by name to compare the written file on, against the net run by torch; several such dicts; or True
            for seeded random ones. With `preprocessing` the images are raw ones.
        tolerance: the largest error of the check, as a fraction of the output's largest value.

    Returns:
        What was written, and with `check` the largest error of each output; `print` it.

    Raises:
        ExportError: a layer has no ONNX form (it names layer, type, file and line, and the reason), bakes the batch
            in, or the file cannot be written.
        ExportMismatch: an error exceeds the tolerance.
        InputError: the inputs of the check do not fit the net.
    """
    if isinstance(opset, bool) or not isinstance(opset, int) or opset not in OPSETS:
        raise ExportError(f"Cannot export to opset {opset!r}. Expected one from {OPSETS[0]} to {OPSETS[-1]}.")
    net = _net(net_or_files)
    lowered = lower_net(net, dynamic_batch)
    folded = FoldedPreprocess(preprocessing, lowered.inputs) if preprocessing is not None else None
    inputs = check_inputs(check, net, lowered, folded.input if folded is not None else None)
    if folded is not None:
        folded.prepend(lowered)
    model = _model(lowered, net._graph.name, opset, folded)
    with _taking_its_place(path) as temporary:
        size = _write(model, lowered.arrays, temporary)
        errors = measure(temporary, net, lowered, inputs, folded) if inputs else {}
        description = folded.description if folded is not None else None
        report = ExportReport(os.fspath(path), opset, lowered.inputs, lowered.outputs, size, description, errors)
        if any(not error.relative <= tolerance for error in errors.values()):
            raise ExportMismatch(
                f"The exported file differs from the net by more than {tolerance:g} of an output's largest value. "
                f"Nothing was written.\n{report}"
            )
    return report


def _net(net_or_files: Net | tuple[Path, Path]) -> Net:
    if not isinstance(net_or_files, Net):
        if not isinstance(net_or_files, (tuple, list)) or len(net_or_files) != 2:
            raise InputError(f"Expected a Net or (prototxt, caffemodel), got {net_or_files!r}.")
        return exportable_net(*net_or_files)
    if net_or_files._graph.phase != TEST:
        raise ExportError(
            "Cannot export a net of the TRAIN phase to ONNX. Build it with pycaffe.TEST, from its deploy form."
        )
    refuse_host_layers(source_of(net_or_files._graph), "to ONNX")
    return net_or_files


# -- the model


def _model(lowered: LoweredNet, name: str, opset: int, preprocessing: FoldedPreprocess | None) -> Any:
    """The ModelProto; the larger arrays are declared as inputs after the others, to be made initializers later."""
    from onnx import TensorProto, helper, numpy_helper

    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, _dims(s)) for n, s in lowered.inputs.items()]
    if preprocessing is not None:
        next(value for value in inputs if value.name == preprocessing.input).doc_string = preprocessing.description
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, _dims(s)) for n, s in lowered.outputs.items()]
    small = [numpy_helper.from_array(a, n) for n, a in lowered.arrays.items() if a.nbytes <= IN_PROTO]
    for array_name, array in lowered.arrays.items():
        if array.nbytes > IN_PROTO:
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(array_name, dtype, array.shape))
    graph = helper.make_graph(lowered.nodes, name or "net", inputs, outputs, small)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    if opset != OPSET:
        model = _converted(model, opset)
    del model.graph.input[len(lowered.inputs) :]
    del model.graph.value_info[:]  # the converter's guesses
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    model.producer_name, model.producer_version = "pycaffe", metadata.version("pycaffe")
    return model


def _dims(shape: tuple[int | str, ...]) -> list[int | str | None]:
    return [None if extent == "?" else extent for extent in shape]


def _converted(model: Any, opset: int) -> Any:
    """The model in another opset.

    Down to 13 ONNX took from our operators only element types that we do not have and attributes that we do not set, so
    that the nodes stay as they are (its converter has no way down for most of them). The checker refuses an operator
    or an attribute that is younger.
    """
    from onnx import checker, version_converter

    try:
        if opset > OPSET:
            return version_converter.convert_version(model, opset)
        model.opset_import[0].version = opset
        checker.check_model(model, full_check=True)
    except Exception as error:  # of many types: an adapter that is missing is a RuntimeError, and so on
        raise ExportError(f"Cannot express this net in opset {opset}: {error}. Opset {OPSET} can.") from error
    return model


# -- the file


@contextlib.contextmanager
def _taking_its_place(path: Path) -> Iterator[str]:
    """The name of a file in a new folder beside `path`; at the end of the block it and its .data file take their place.

    A link is followed. The .data file is found by its name, so that both get their final names in the folder already.
    """
    target = os.path.realpath(path)
    folder = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{uuid.uuid4().hex}.tmp")
    try:
        if os.path.isdir(target):
            raise IsADirectoryError(None, "Is a directory", target)
        os.mkdir(folder)
        temporary = os.path.join(folder, os.path.basename(target))
        yield temporary
        if os.path.exists(f"{temporary}.data"):
            os.replace(f"{temporary}.data", f"{target}.data")
        os.replace(temporary, target)
    except OSError as error:
        raise ExportError(f"Could not write {os.fspath(path)!r}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(model: Any, arrays: dict[str, npt.NDArray[Any]], path: str) -> int:
    """Writes the model with its arrays; returns the bytes written."""
    from onnx import TensorProto, helper

    large = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array.nbytes > IN_PROTO}
    external = sum(array.nbytes for array in large.values()) > LARGEST_FILE - model.ByteSize()
    data = open(f"{path}.data", "wb") if external else None  # noqa: SIM115 - closed by the stack
    with contextlib.ExitStack() as stack:
        if data is not None:
            stack.enter_context(data)
        for name, array in large.items():
            tensor = model.graph.initializer.add()
            tensor.name, tensor.data_type = name, helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor.dims.extend(array.shape)
            if data is None:
                tensor.raw_data = array.tobytes()
                continue
            data.write(bytes(-data.tell() % PAGE))
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": f"{os.path.basename(path)}.data", "offset": data.tell(), "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            data.write(array.data)
    with open(path, "wb") as file:
        file.write(model.SerializeToString())
    return sum(os.path.getsize(name) for name in (path, f"{path}.data") if os.path.exists(name))
