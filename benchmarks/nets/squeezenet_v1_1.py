"""SqueezeNet v1.1, deploy form: eight fire modules, 1.2 M parameters."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P

MSRA = {"type": "msra"}
FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}


def squeezenet_v1_1(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 227, 227)."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 227, 227]})
    n.conv1 = L.Convolution(n.data, num_output=64, kernel_size=3, stride=2, weight_filler=MSRA)
    n.relu_conv1 = L.ReLU(n.conv1, in_place=True)
    top = n.pool1 = L.Pooling(n.relu_conv1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for number, (squeeze, expand) in FIRES.items():
        top = fire(n, f"fire{number}", top, squeeze, expand)
        if number in (3, 5):
            top = n[f"pool{number}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.drop9 = L.Dropout(top, dropout_ratio=0.5, in_place=True)
    n.conv10 = L.Convolution(n.drop9, num_output=1000, kernel_size=1, weight_filler={"type": "gaussian", "std": 0.01})
    n.relu_conv10 = L.ReLU(n.conv10, in_place=True)
    n.pool10 = L.Pooling(n.relu_conv10, pool=P.Pooling.AVE, global_pooling=True)
    n.prob = L.Softmax(n.pool10)
    return n.to_proto()


def fire(n: Any, name: str, bottom: Any, squeeze: int, expand: int) -> Any:
    """1 x 1 down to `squeeze` channels, then 1 x 1 and 3 x 3 beside each other."""
    narrow = conv(n, name, "squeeze1x1", bottom, num_output=squeeze, kernel_size=1)
    one = conv(n, name, "expand1x1", narrow, num_output=expand, kernel_size=1)
    three = conv(n, name, "expand3x3", narrow, num_output=expand, kernel_size=3, pad=1)
    n[f"{name}/concat"] = L.Concat(one, three)
    return n[f"{name}/concat"]


def conv(n: Any, fire: str, name: str, bottom: Any, **convolution: Any) -> Any:
    """A convolution and its ReLU."""
    n[f"{fire}/{name}"] = L.Convolution(bottom, weight_filler=MSRA, **convolution)
    n[f"{fire}/relu_{name}"] = L.ReLU(n[f"{fire}/{name}"], in_place=True)
    return n[f"{fire}/relu_{name}"]
