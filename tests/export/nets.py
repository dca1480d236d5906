"""Small nets for the tests of export."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from pycaffe.net import TEST, Net
from tests.net.nets import data, ip, layer, net_of

XAVIER = 'weight_filler { type: "xavier" }'


def conv(name: str, bottom: str, num_output: int, rest: str, type: str = "Convolution") -> str:
    return layer(name, type, bottom, rest=f"convolution_param {{ num_output: {num_output} {rest} {XAVIER} }}")


def pool(name: str, bottom: str, method: str = "MAX") -> str:
    return layer(name, "Pooling", bottom, rest=f"pooling_param {{ pool: {method} kernel_size: 3 stride: 2 }}")


LRN = "lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }"
CAFFENET = (
    'name: "small CaffeNet" '
    + data(2, 3, 35, 43)
    + conv("conv1", "data", 8, "kernel_size: 5 stride: 2")
    + layer("relu1", "ReLU", "conv1", "conv1")
    + pool("pool1", "conv1")
    + layer("norm1", "LRN", "pool1", rest=LRN)
    + conv("conv2", "norm1", 12, "kernel_size: 3 pad: 1 group: 2")
    + layer("relu2", "ReLU", "conv2", "conv2")
    + pool("pool2", "conv2")
    + ip("fc6", "pool2", 10)
    + layer("relu6", "ReLU", "fc6", "fc6")
    + layer("drop6", "Dropout", "fc6", "fc6")
    + ip("fc7", "fc6", 7)
    + layer("prob", "Softmax", "fc7")
)
# BatchNorm, Scale, Eltwise, LRN within channels, Deconvolution, Crop, pooling whose last window is cut, two outputs.
MIXED = (
    data(2, 3, 12, 15)
    + conv("conv", "data", 6, "kernel_size: 3 pad: 1")
    + layer("bn", "BatchNorm", "conv", "conv")
    + layer("scale", "Scale", "conv", "conv", "scale_param { bias_term: true }")
    + layer("relu", "ReLU", "conv", "conv")
    + conv("branch", "conv", 6, "kernel_size: 1")
    + layer("sum", "Eltwise", "conv branch", rest="eltwise_param { coeff: 1 coeff: -0.5 }")
    + layer("within", "LRN", "sum", rest="lrn_param { local_size: 3 alpha: 0.3 norm_region: WITHIN_CHANNEL }")
    + pool("ave", "within", "AVE")
    + pool("max", "within")
    + layer("both", "Concat", "ave max")
    + conv("up", "both", 4, "kernel_size: 4 stride: 2 group: 4", "Deconvolution")
    + layer("crop", "Crop", "up data", rest="crop_param { axis: 2 offset: 1 }")
    + layer("prelu", "PReLU", "crop", rest="prelu_param { filler { value: 0.3 } }")
    + layer("global", "Pooling", "prelu", rest="pooling_param { pool: AVE global_pooling: true }")
    + layer("flat", "Flatten", "global")
    + layer("elu", "ELU", "prelu")
)


def filled(text: str, phase: int = TEST, seed: int = 3, **kwargs: Any) -> Net:
    """A net with seeded parameters; variances and slopes are positive."""
    net = net_of(text, phase, **kwargs)
    generator = np.random.default_rng(seed)
    for layer_name, blobs in net.params.items():
        kind = net.layer_dict[layer_name].type
        for index, blob in enumerate(blobs):
            if kind in ("Scale", "PReLU") or (kind == "BatchNorm" and index > 0):
                blob.data[...] = generator.uniform(0.5, 1.5, blob.shape)
            else:
                blob.data[...] = 0.2 * generator.standard_normal(blob.shape)
        if kind == "BatchNorm":
            blobs[2].data[...] = 1.7
    return net


def noise(net: Net, batch: int | None = None, seed: int = 5) -> dict[str, np.ndarray]:
    """Values for the net's inputs; at another batch where one is given."""
    generator = np.random.default_rng(seed)
    shapes = {name: net.blobs[name].shape for name in net.inputs}
    return {
        name: generator.standard_normal((batch or shape[0], *shape[1:]), dtype=np.float32)
        for name, shape in shapes.items()
    }


def answer(net: Net, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The net's outputs by torch; its inputs take these shapes."""
    for name, values in inputs.items():
        net.blobs[name].reshape(*values.shape)
    net.reshape()
    net._engine = "torch"
    return {name: values.copy() for name, values in net.forward(**inputs).items()}


def run_file(path: pathlib.Path | str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def assert_same(want: dict[str, np.ndarray], got: dict[str, np.ndarray], rtol: float = 1e-5) -> None:
    assert list(got) == list(want)
    for name in want:
        assert got[name].shape == want[name].shape, name
        error = np.abs(got[name].astype(np.float64) - want[name]).max()
        assert error <= rtol * np.abs(want[name]).max(), f"{name}: {error}"


def left_behind(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
