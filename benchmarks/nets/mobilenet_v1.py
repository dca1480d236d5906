"""MobileNet v1, deploy form: depthwise convolutions (a group a channel) with BatchNorm and Scale, 4.2 M parameters."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P

MSRA = {"type": "msra"}
GAMMA = {"type": "uniform", "min": 0.8, "max": 1.2}
BETA = {"type": "gaussian", "std": 0.1}
BLOCKS = {  # output channels, stride of the depthwise convolution
    "conv2_1": (64, 1),
    "conv2_2": (128, 2),
    "conv3_1": (128, 1),
    "conv3_2": (256, 2),
    "conv4_1": (256, 1),
    "conv4_2": (512, 2),
    "conv5_1": (512, 1),
    "conv5_2": (512, 1),
    "conv5_3": (512, 1),
    "conv5_4": (512, 1),
    "conv5_5": (512, 1),
    "conv5_6": (1024, 2),
    "conv6": (1024, 1),
}


def mobilenet_v1(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 224, 224)."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 224, 224]})
    top = conv(n, "conv1", n.data, num_output=32, kernel_size=3, stride=2, pad=1)
    channels = 32
    for name, (width, stride) in BLOCKS.items():
        depthwise = {"num_output": channels, "group": channels, "kernel_size": 3, "stride": stride, "pad": 1}
        top = conv(n, f"{name}/dw", top, **depthwise)
        top = conv(n, f"{name}/sep", top, num_output=width, kernel_size=1)
        channels = width
    n.pool6 = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    n.fc7 = L.Convolution(n.pool6, num_output=1000, kernel_size=1, weight_filler=MSRA)
    n.prob = L.Softmax(n.fc7)
    return n.to_proto()


def conv(n: Any, name: str, bottom: Any, **convolution: Any) -> Any:
    """A convolution without bias, then BatchNorm, Scale and ReLU in place."""
    relu = name.replace("conv", "relu")
    n[name] = L.Convolution(bottom, bias_term=False, weight_filler=MSRA, **convolution)
    n[f"{name}/bn"] = L.BatchNorm(n[name], use_global_stats=True, eps=1e-5, in_place=True)
    n[f"{name}/scale"] = L.Scale(n[f"{name}/bn"], bias_term=True, filler=GAMMA, bias_filler=BETA, in_place=True)
    n[relu] = L.ReLU(n[f"{name}/scale"], in_place=True)
    return n[relu]
