"""Makes onnxruntime sessions that use a net's weights where they lie.

Weights reach onnxruntime in two ways. Large matrices that only a Gemm reads (the fully connected layers, nine tenths of
CaffeNet) are used in place: no copy, no work, pages of the mapped file that processes share. All others are handed over
as values, since the optimiser folds and reorders them (BatchNorm into the convolution before it, blocked layouts).

Packing the large matrices pays from batch 2 on; at batch 1 a product with a vector reads each weight once, and packing
would only copy them. (benchmarks/bench_load.py: for CaffeNet's session 0.05 s instead of 0.5 s.)
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from pycaffe.blob import FloatArray
from pycaffe.engines.runtime import load_onnxruntime, runs_on
from pycaffe.engines.segment import Segment
from pycaffe.engines.split_concat import split_concatenations
from pycaffe.errors import DeviceError

__all__ = ["create_session"]

MIN_IN_PLACE = 1 << 18  # values; below 1 MB a copy costs nothing
# The model says that a matrix used in place lies in a file. It must exist, and none is read: an optimiser that wanted
# to would get an error from this empty one, and `create_session` hands everything over instead.
EMPTY_FILE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "py.typed")


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

    split_concatenations(segment.model)
    arrays = dict(zip((name for name, _, _ in segment.parameters), values))
    in_place = _used_in_place(segment.model, arrays)
    if in_place:
        try:
            return _session(segment, arrays, in_place, device, threads)
        except Fail:  # an optimiser asked for the values
            pass
    return _session(segment, arrays, set(), device, threads)


def _used_in_place(model: Any, arrays: dict[str, FloatArray]) -> set[str]:
    """The large matrices that nothing but one Gemm reads, as its second operand."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append(f"{node.op_type}/{position}")
    return {name for name, array in arrays.items() if array.size >= MIN_IN_PLACE and readers.get(name) == ["Gemm/1"]}


def _session(
    segment: Segment, arrays: dict[str, FloatArray], in_place: set[str], device: str, threads: int | None
) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors arrive as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if segment.batch == 1:
        options.add_session_config_entry("session.disable_prepacking", "1")
    tensors = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    handed_over = [name for name in tensors if name not in in_place]
    if handed_over:
        options.add_external_initializers(handed_over, [tensors[name] for name in handed_over])
    folder, file = os.path.split(EMPTY_FILE)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    for name in in_place:
        options.add_initializer(name, tensors[name])
    for initializer in segment.model.graph.initializer:
        if initializer.name in arrays:
            initializer.external_data[0].value = file if initializer.name in in_place else "memory"
    session = onnxruntime.InferenceSession(segment.model.SerializeToString(), options, providers=_providers(device))
    _give_back_freed_memory()
    return session


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
