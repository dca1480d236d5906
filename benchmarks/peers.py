"""The engines that benchmarks compare, each as a function from an input to the net's output.

All get the same weights, the same number of threads and float32; onnxruntime and OpenVINO get the straightforward graph
(straightforward.py) with the shape fixed, onnxruntime's other options as they come, OpenVINO set for one stream.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

import caffe

Run = Callable[[Any], Any]
Files = tuple[pathlib.Path, pathlib.Path, pathlib.Path]  # prototxt, caffemodel, straightforward ONNX


def pycaffe(files: Files, x: Any, threads: int) -> Run:
    """What a user of `import caffe` does, the whole of it."""
    net = caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1]), threads=threads)
    (source,), (output,) = net.inputs, net.outputs
    net.blobs[source].reshape(*x.shape)

    def run(x: Any) -> Any:
        net.blobs[source].data[...] = x
        return net.forward()[output]

    return run


def opencv(files: Files, x: Any, threads: int) -> Run:
    """OpenCV 4's dnn, which reads Caffe's files itself."""
    import cv2

    cv2.setNumThreads(threads)
    dnn: Any = cv2.dnn  # typed for OpenCV 5, which has no importer of Caffe's files
    net = dnn.readNetFromCaffe(str(files[0]), str(files[1]))

    def run(x: Any) -> Any:
        net.setInput(x)
        return net.forward()

    return run


def openvino(files: Files, x: Any, threads: int) -> Run:
    """OpenVINO's CPU device in float32, tuned for latency; inputs and outputs are shared, not copied."""
    from openvino import Core

    core = Core()
    model = core.read_model(str(files[2]))
    model.reshape(list(x.shape))
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


def onnxruntime(files: Files, x: Any, threads: int) -> Run:
    """The library itself, on the straightforward graph."""
    import onnxruntime as library
    from straightforward import BATCH

    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name(BATCH, x.shape[0])
    session = library.InferenceSession(str(files[2]), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


PEERS: dict[str, Callable[[Files, Any, int], Run]] = {
    "pycaffe": pycaffe,
    "opencv": opencv,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
}


def example(shape: tuple[int, ...]) -> Any:
    """A seeded input."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
