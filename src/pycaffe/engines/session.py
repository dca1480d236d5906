"""Makes onnxruntime sessions that use a net's weights where they lie.

Weights reach onnxruntime in two ways. Large matrices that only a Gemm reads (the fully connected layers, nine tenths of
CaffeNet) are used in place: no copy, no work, pages of the mapped file that processes share. All others are values that
the optimiser folds and reorders (blocked layouts). It reads them from a file that is gone when the session is there,
one by one: handed over in memory, all of them would be there twice.

Packing the large matrices pays from batch 2 on; at batch 1 a product with a vector reads each weight once, and packing
would only copy them. (benchmarks/bench_load.py: for CaffeNet's session 0.05 s instead of 0.5 s.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.engines.rewrites.banded_convolution import use_channel_taps
from pycaffe.engines.rewrites.early_strides import move_strides_up
from pycaffe.engines.rewrites.fold_batch_norm import Values, fold_batch_norms
from pycaffe.engines.rewrites.split_concat import split_concatenations
from pycaffe.engines.rewrites.winograd import use_winograd
from pycaffe.engines.runtime import load_onnxruntime, runs_on
from pycaffe.engines.segment import Segment
from pycaffe.errors import DeviceError

__all__ = ["create_session"]

MIN_IN_PLACE = 1 << 18  # values; below 1 MB a copy costs nothing
WEIGHTS, EMPTY = "weights", "empty"  # files that a session is made from
ALIGNMENT = 4096  # a page: onnxruntime maps what it need not change
# Input channels that a 1x1 convolution takes at a time. onnxruntime's own 128, times 64 channels out, fill a
# first-level cache of 32 KB to the brim. In trials with 2 threads MobileNet became 4 % faster, ResNet-50 1 %, open_nsfw
# and GoogLeNet stayed, SqueezeNet at batch 8 lost 2 %. Releases that do not know the entry pass over it.
POINTWISE_CHANNELS = "64"


def create_session(segment: Segment, values: list[FloatArray], device: str = "cpu", threads: int | None = None) -> Any:
    """An onnxruntime session for a segment.

    Args:
        segment: the model.
        values: of its parameters; the session may use this memory for as long as it lives.
        device: "cpu" or "cuda:N".
        threads: inside one run; None lets onnxruntime take one for each core.

    Raises:
        DeviceError: this build of onnxruntime has no kernels for the device.
    """
    if not runs_on(device):
        raise DeviceError(
            f"This onnxruntime cannot run on {device!r}: it has no CUDAExecutionProvider. Install onnxruntime-gpu "
            'in its place, or take engine="torch".'
        )
    load_onnxruntime()
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    arrays = dict(zip((name for name, _, _ in segment.parameters), values))
    made = fold_batch_norms(segment.model, arrays)
    split_concatenations(segment.model)
    if device == "cpu":
        move_strides_up(segment.model)
        use_channel_taps(segment.model)
        use_winograd(segment.model, made)
    in_place = _used_in_place(segment.model, arrays)
    if in_place:
        try:
            return _session(segment, made, in_place, device, threads)
        except Fail:  # an optimiser asked for the values
            pass
    return _session(segment, made, set(), device, threads)


def _used_in_place(model: Any, arrays: dict[str, FloatArray]) -> set[str]:
    """The large matrices that nothing but one Gemm reads, as its second operand."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append(f"{node.op_type}/{position}")
    return {name for name, array in arrays.items() if array.size >= MIN_IN_PLACE and readers.get(name) == ["Gemm/1"]}


def _session(segment: Segment, values: Values, in_place: set[str], device: str, threads: int | None) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors arrive as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The plan is one block for all activations beside those that the first run took: 12 MB of GoogLeNet's 27, no time.
    options.enable_mem_pattern = False
    options.add_session_config_entry("mlas.nchwc_pointwise_conv_max_input_channel_batch", POINTWISE_CHANNELS)
    if segment.batch == 1:
        options.add_session_config_entry("session.disable_prepacking", "1")
    with contextlib.ExitStack() as files:
        try:
            folder = files.enter_context(_values_in_file(segment.model, values, in_place))
        except OSError:  # the disk is full, or there is no folder for temporary files: then in memory, all of them
            tensors = _values_in_memory(segment.model, values)
            options.add_external_initializers(list(tensors), list(tensors.values()))
        else:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
            tensors = {name: onnxruntime.OrtValue.ortvalue_from_numpy(values[name]()) for name in in_place}
            for name, tensor in tensors.items():
                options.add_initializer(name, tensor)
        model = segment.model.SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=_providers(device))
    _give_back_freed_memory()
    return session


@contextlib.contextmanager
def _values_in_file(model: Any, values: Values, in_place: set[str]) -> Iterator[str]:
    """Writes the values to a file in a folder of its own, points the initializers there and yields the folder.

    A matrix that is used in place points to an empty file: an optimiser that wants its values gets an error.
    """
    with tempfile.TemporaryDirectory(prefix="pycaffe-", ignore_cleanup_errors=True) as folder:
        open(os.path.join(folder, EMPTY), "wb").close()
        with open(os.path.join(folder, WEIGHTS), "wb") as file:
            for tensor in model.graph.initializer:
                if tensor.name not in values:
                    continue
                del tensor.external_data[:]
                if tensor.name in in_place:
                    tensor.external_data.add(key="location", value=EMPTY)
                    continue
                array = np.ascontiguousarray(values[tensor.name]())
                file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
                entries = {"location": WEIGHTS, "offset": file.tell(), "length": array.nbytes}
                for key, value in entries.items():
                    tensor.external_data.add(key=key, value=str(value))
                file.write(array.data)
        yield folder


def _values_in_memory(model: Any, values: Values) -> dict[str, Any]:
    """Points the initializers to memory; returns the values that they get there."""
    onnxruntime = load_onnxruntime()
    for tensor in model.graph.initializer:
        if tensor.name in values:
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value="memory")
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(make()) for name, make in values.items()}


def _give_back_freed_memory() -> None:
    """Returns to the system what the optimiser's copies of the weights took, where the C library can (glibc).

    ResNet-50 keeps 0.56 instead of 1.36 of its weights and activations (benchmarks/bench_load.py).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}), "CPUExecutionProvider"]
