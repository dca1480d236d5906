"""VGG-16, deploy form: thirteen 3 x 3 convolutions, 138 M parameters, 553 MB of weights."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P

MSRA = {"type": "msra"}
STAGES = {1: (64, 2), 2: (128, 2), 3: (256, 3), 4: (512, 3), 5: (512, 3)}  # channels, convolutions


def vgg16(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 224, 224)."""
    n = NetSpec()
    top = n.data = L.Input(shape={"dim": [batch, 3, 224, 224]})
    for stage, (width, convolutions) in STAGES.items():
        for number in range(1, convolutions + 1):
            name = f"{stage}_{number}"
            n[f"conv{name}"] = L.Convolution(top, num_output=width, kernel_size=3, pad=1, weight_filler=MSRA)
            top = n[f"relu{name}"] = L.ReLU(n[f"conv{name}"], in_place=True)
        top = n[f"pool{stage}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    for number in (6, 7):
        n[f"fc{number}"] = L.InnerProduct(top, num_output=4096, weight_filler=MSRA)
        n[f"relu{number}"] = L.ReLU(n[f"fc{number}"], in_place=True)
        top = n[f"drop{number}"] = L.Dropout(n[f"relu{number}"], dropout_ratio=0.5, in_place=True)
    n.fc8 = L.InnerProduct(top, num_output=1000, weight_filler={"type": "gaussian", "std": 0.01})
    n.prob = L.Softmax(n.fc8)
    return n.to_proto()
