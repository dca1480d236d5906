"""Asks a net every question that OpenCV's and ours answer. `scripts/opencv_answers` records what OpenCV 4.14 says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

TOY_PROTOTXT = """
name: "every type of layer that OpenCV counts operations of, names that occur twice, work in place, two outputs"
input: "data"
input_shape { dim: 2 dim: 3 dim: 13 dim: 11 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1"
        pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 8 kernel_h: 1 kernel_w: 3 pad_w: 1 pad_h: 0 group: 2 bias_term: false } }
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "conv2" }
layer { name: "scale2" type: "Scale" bottom: "conv2" top: "conv2" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "up" type: "Deconvolution" bottom: "conv2" top: "up"
        convolution_param { num_output: 8 kernel_size: 4 stride: 2 pad: 1 } }
layer { name: "prelu" type: "PReLU" bottom: "up" top: "up" }
layer { name: "parts" type: "Slice" bottom: "up" top: "a" top: "b" slice_param { axis: 1 slice_point: 3 } }
layer { name: "sigmoid" type: "Sigmoid" bottom: "a" top: "sigmoid" }
layer { name: "tanh" type: "TanH" bottom: "b" top: "tanh" }
layer { name: "power" type: "Power" bottom: "tanh" top: "power" power_param { power: 2 scale: 0.5 shift: 1 } }
layer { name: "join" type: "Concat" bottom: "sigmoid" bottom: "power" top: "join" }
layer { name: "sum" type: "Eltwise" bottom: "join" bottom: "up" top: "sum" eltwise_param { coeff: 1 coeff: -0.5 } }
layer { name: "average" type: "Pooling" bottom: "sum" top: "average"
        pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "average" top: "average" }
layer { name: "fc" type: "InnerProduct" bottom: "average" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
layer { name: "elu" type: "ELU" bottom: "sum" top: "elu" }
layer { name: "global" type: "Pooling" bottom: "elu" top: "global" pooling_param { pool: AVE global_pooling: true } }
"""


@dataclass(frozen=True)
class Case:
    """A net to ask: its input's shape, the layers that are asked for by name, another shape that it takes."""

    shape: tuple[int, ...]
    layers: tuple[str, ...]
    other_shape: tuple[int, ...]


CASES = {
    "toy": Case((2, 3, 13, 11), ("conv2", "conv1", "relu", "relu_1", "global"), (4, 3, 13, 11)),
    "open_nsfw": Case((1, 3, 224, 224), ("conv_1", "conv_stage0_block0_branch2a"), (3, 3, 224, 224)),
    "refinenet": Case((1, 3, 48, 120), ("conv6-3", "conv1", "prelu1"), (2, 3, 48, 120)),
    "finemapping_fp16": Case((1, 3, 16, 66), ("relu1", "conv2"), (2, 3, 16, 66)),
    "plate_recognition": Case((1, 3, 160, 40), ("conv0", "pool0", "concatenate_1"), (1, 3, 200, 40)),
    "plate_ssd": Case((1, 3, 300, 400), ("softmax0", "ssd0_transpose6"), (2, 3, 257, 321)),
}


def toy_weights() -> dict[str, list[npt.NDArray[np.float32]]]:
    """Parameters of the toy net by layer."""
    random = np.random.default_rng(7)
    shapes = {
        "conv1": [(6, 3, 3, 3), (6,)],
        "conv2": [(8, 3, 1, 3)],
        "bn2": [(8,), (8,), (1,)],
        "scale2": [(8,), (8,)],
        "up": [(8, 8, 4, 4), (8,)],
        "prelu": [(8,)],
        "fc": [(5, 72), (5,)],
    }
    weights = {name: [random.normal(0, 0.5, s).astype(np.float32) for s in blobs] for name, blobs in shapes.items()}
    weights["bn2"] = [weights["bn2"][0], abs(weights["bn2"][1]) + 1, np.ones(1, np.float32)]
    return weights


def input_of(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def describe(net: Any, case: Case) -> dict[str, Any]:
    """Everything that is no array of values, as JSON can hold it."""
    ids, bottoms, tops = net.getLayersShapes(case.shape)
    names = net.getLayerNames()
    layers = [net.getLayer(i) for i in range(len(names) + 1)]
    return {
        "empty": net.empty(),
        "layer_names": list(names),
        "layer_ids": [net.getLayerId(name) for name in (*names, "_input", "nobody")],
        "unconnected": net.getUnconnectedOutLayers().tolist(),
        "unconnected_names": list(net.getUnconnectedOutLayersNames()),
        "types": list(net.getLayerTypes()),
        "counts": [net.getLayersCount(kind) for kind in ("Convolution", "ReLU", "__NetInputLayer__", "Nothing")],
        "layers": [[layer.name, layer.type, layer.preferableTarget] for layer in layers],
        "blobs": [[list(blob.shape) for blob in layer.blobs] for layer in layers],
        "index_of_output": [layers[i].outputNameToIndex("data") for i in (0, 1)],
        "flops": net.getFLOPS(case.shape),
        "flops_of_layers": [net.getFLOPS(i, case.shape) for i in range(len(names) + 1)],
        "memory": list(net.getMemoryConsumption(case.shape)),
        "memory_of_layers": [list(net.getMemoryConsumption(i, case.shape)) for i in range(len(names) + 1)],
        "ids": ids.tolist(),
        "bottom_shapes": [[shape.tolist() for shape in layer] for layer in bottoms],
        "top_shapes": [[shape.tolist() for shape in layer] for layer in tops],
        "types_of_answers": [type(x).__name__ for x in (names, ids, bottoms, bottoms[0], bottoms[0][0], tops)],
    }


def describe_after_forward(net: Any, case: Case) -> dict[str, Any]:
    """The same of a net that ran."""
    net.setInput(input_of(case.shape))
    net.forward()
    ticks, timings = net.getPerfProfile()
    return {
        "forward_types": [type(x).__name__ for x in (net.forward(), net.forward(case.layers), net.forward(["prob"]))]
        if "prob" in net.getLayerNames()
        else [],
        "ticks": [type(ticks).__name__, str(timings.dtype), list(timings.shape), bool(ticks == int(timings.sum()))],
        "registered": [
            net.registerOutput("second", 2, 0),
            net.registerOutput(net.getLayerNames()[3], 4, 0),
            list(net.getUnconnectedOutLayersNames()),
            net.getLayer("second").type,
            net.getLayerNames()[-1],
        ],
    }


def run(read: Callable[[], Any], case: Case) -> Arrays:
    """Every answer that is an array of values, of nets that `read` reads.

    OpenCV 4.14 merges a BatchNorm into the convolution before it for good: a layer within a net is right only if asked
    for first, and one between the two never. And of an SSD that has run, it gives wrong boxes for another image size.
    So a net is read for each question.
    """
    net, data = read(), input_of(case.shape)
    net.setInput(data)
    arrays: Arrays = {"last": net.forward()}
    for name in case.layers:
        net = read()
        net.setInput(data)
        arrays[f"layer/{name}"] = net.forward(name)
    for i, output in enumerate(net.forward(net.getUnconnectedOutLayersNames())):
        arrays[f"unconnected/{i}"] = output
    net = read()
    net.setInput(data)
    for i, outputs in enumerate(net.forwardAndRetrieve(list(case.layers[1:]))):
        arrays.update({f"retrieved/{i}/{j}": output for j, output in enumerate(outputs)})
    net = read()
    net.setInput(input_of(case.other_shape, 1))
    arrays["other_shape"] = net.forward()
    return arrays


def run_inputs(net: Any, case: Case, blob: npt.NDArray[Any], **options: Any) -> npt.NDArray[np.float32]:
    """The last layer's output on a fresh net, of an input in some form."""
    net.setInput(blob, **options)
    output: npt.NDArray[np.float32] = net.forward()
    return output


def input_forms(case: Case) -> Mapping[str, tuple[npt.NDArray[Any], dict[str, Any]]]:
    """Blobs and options of `setInput`."""
    pixels = np.clip(input_of(case.shape, 2) * 40 + 120, 0, 255).astype(np.uint8)
    return {
        "double": (pixels / 255.0 - 0.5, {}),
        "bytes_scaled": (pixels, {"scalefactor": 1 / 127.5}),
        "mean": (pixels, {"name": "data", "scalefactor": 0.01, "mean": (104, 117, 123)}),
        "one_mean": (pixels.astype(np.float32), {"scalefactor": 0.01, "mean": 50}),
        "strided": (input_of(case.shape, 3)[:, :, ::-1], {}),
    }
