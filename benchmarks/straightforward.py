"""The straightforward ONNX graph of a Caffe net: one operator for each thing that a layer says, weights inside.

The peers onnxruntime and OpenVINO run it. It shares nothing with pycaffe's own lowering, on purpose: what makes
pycaffe faster must not help its peers. BatchNorm is BatchNormalization, Scale is Mul and Add, LRN is LRN, InnerProduct
is Flatten and Gemm; nothing is folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
BATCH = "batch"  # the symbolic extent of the first axis


def straightforward_model(param: Any, net: Any) -> Any:
    """The ONNX model of a deploy net.

    Args:
        param: the NetParameter as its file has it.
        net: the same net, loaded; gives the parameters and the shapes of blobs.

    Raises:
        NotImplementedError: a layer is not among those of the benchmarks' nets.
    """
    return _Converter(net).model(param)


class _Converter:
    def __init__(self, net: Any) -> None:
        self.net = net
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.value: dict[str, str] = {}  # blob -> the name of its present value; in-place layers move it on

    def model(self, param: Any) -> Any:
        inputs, blobs = [], []
        for layer in param.layer:
            if layer.type == "Input":
                (blob,) = layer.top
                self.value[blob] = blob
                shape = [BATCH, *self.net.blobs[blob].shape[1:]]
                inputs.append(helper.make_tensor_value_info(blob, TensorProto.FLOAT, shape))
            elif layer.type == "Dropout":  # the identity in a deploy net
                self.value[layer.top[0]] = self.value[layer.bottom[0]]
            else:
                self.convert(layer)
        for blob in self.net.outputs:
            blobs.append(helper.make_tensor_value_info(self.value[blob], TensorProto.FLOAT, None))
        graph = helper.make_graph(self.nodes, param.name or "net", inputs, blobs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def convert(self, layer: Any) -> None:
        method = getattr(self, "convert_" + layer.type.lower(), None)
        if method is None:
            raise NotImplementedError(f"Layer {layer.name!r} ({layer.type}) has no straightforward form here.")
        self.value[layer.top[0]] = method(layer, [self.value[bottom] for bottom in layer.bottom])

    def op(self, kind: str, layer: Any, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds an operator; the name of its result."""
        name = f"{layer.name}:{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, layer: Any, name: str, array: Any) -> str:
        """Adds an initializer; its name."""
        name = f"{layer.name}:{name}"
        self.initializers.append(numpy_helper.from_array(np.array(array, dtype=np.float32), name))
        return name

    def parameter(self, layer: Any, index: int) -> Any:
        return self.net.params[layer.name][index].data

    # -- layers

    def convert_convolution(self, layer: Any, bottom: list[str]) -> str:
        p = layer.convolution_param
        kernel, stride = _pair(p, "kernel", p.kernel_size, 1), _pair(p, "stride", p.stride, 1)
        pad = _pair(p, "pad", p.pad, 0)
        arguments = [self.constant(layer, "weights", self.parameter(layer, 0))]
        if p.bias_term:
            arguments.append(self.constant(layer, "bias", self.parameter(layer, 1)))
        return self.op(
            "Conv", layer, [*bottom, *arguments], kernel_shape=kernel, strides=stride, pads=pad * 2, group=p.group
        )

    def convert_innerproduct(self, layer: Any, bottom: list[str]) -> str:
        flat = self.op("Flatten", layer, bottom, axis=1)
        arguments = [self.constant(layer, "weights", self.parameter(layer, 0))]
        if layer.inner_product_param.bias_term:
            arguments.append(self.constant(layer, "bias", self.parameter(layer, 1)))
        return self.op("Gemm", layer, [flat, *arguments], transB=1)

    def convert_pooling(self, layer: Any, bottom: list[str]) -> str:
        p = layer.pooling_param
        average = p.pool == p.AVE
        if p.global_pooling:
            return self.op("GlobalAveragePool" if average else "GlobalMaxPool", layer, bottom)
        kernel = [p.kernel_h or p.kernel_size, p.kernel_w or p.kernel_size]
        stride, pad = [p.stride_h or p.stride, p.stride_w or p.stride], [p.pad_h or p.pad, p.pad_w or p.pad]
        extent = self.net.blobs[layer.bottom[0]].shape[2:]
        out = self.net.blobs[layer.top[0]].shape[2:]
        # Caffe rounds the extent up: the last window may hang over the end.
        end = [max(0, (o - 1) * s + k - e - b) for o, s, k, e, b in zip(out, stride, kernel, extent, pad)]
        if average and (end != pad or any(pad)):
            raise NotImplementedError(f"Layer {layer.name!r}: AVE with padding counts the padded image.")
        kind = "AveragePool" if average else "MaxPool"
        return self.op(kind, layer, bottom, kernel_shape=kernel, strides=stride, pads=[*pad, *end])

    def convert_relu(self, layer: Any, bottom: list[str]) -> str:
        return self.op("Relu", layer, bottom)

    def convert_lrn(self, layer: Any, bottom: list[str]) -> str:
        p = layer.lrn_param
        return self.op("LRN", layer, bottom, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)

    def convert_batchnorm(self, layer: Any, bottom: list[str]) -> str:
        factor = float(self.parameter(layer, 2)[0])
        mean, variance = (self.parameter(layer, i) / factor for i in (0, 1))
        one, zero = np.ones_like(mean), np.zeros_like(mean)
        names = ("scale", "shift", "mean", "variance")
        arguments = [self.constant(layer, name, a) for name, a in zip(names, (one, zero, mean, variance))]
        return self.op("BatchNormalization", layer, [*bottom, *arguments], epsilon=layer.batch_norm_param.eps)

    def convert_scale(self, layer: Any, bottom: list[str]) -> str:
        gamma = self.constant(layer, "gamma", self.parameter(layer, 0).reshape(-1, 1, 1))
        top = self.op("Mul", layer, [*bottom, gamma])
        if not layer.scale_param.bias_term:
            return top
        return self.op("Add", layer, [top, self.constant(layer, "beta", self.parameter(layer, 1).reshape(-1, 1, 1))])

    def convert_eltwise(self, layer: Any, bottom: list[str]) -> str:
        p = layer.eltwise_param
        if p.operation != p.SUM or any(c != 1 for c in p.coeff):
            raise NotImplementedError(f"Layer {layer.name!r}: only sums.")
        return self.op("Add" if len(bottom) == 2 else "Sum", layer, bottom)

    def convert_concat(self, layer: Any, bottom: list[str]) -> str:
        return self.op("Concat", layer, bottom, axis=layer.concat_param.axis)

    def convert_softmax(self, layer: Any, bottom: list[str]) -> str:
        return self.op("Softmax", layer, bottom, axis=layer.softmax_param.axis)


def _pair(p: Any, name: str, repeated: Sequence[int], default: int) -> list[int]:
    """Height and width of a kernel, stride or pad, in any of the ways that Caffe takes."""
    if p.HasField(f"{name}_h") or p.HasField(f"{name}_w"):
        return [getattr(p, f"{name}_h"), getattr(p, f"{name}_w")]
    values = list(repeated) or [default]
    return values * 2 if len(values) == 1 else values
