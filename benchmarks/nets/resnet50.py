"""ResNet-50, deploy form: BatchNorm, Scale and ReLU in place, sixteen sums, 25.6 M parameters."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P

MSRA = {"type": "msra"}
GAMMA = {"type": "uniform", "min": 0.8, "max": 1.2}
LAST_GAMMA = {"type": "uniform", "min": 0.2, "max": 0.4}  # of each branch: sixteen sums must not grow without end
BETA = {"type": "gaussian", "std": 0.1}
STAGES = {2: ("abc", 64), 3: ("abcd", 128), 4: ("abcdef", 256), 5: ("abc", 512)}


def resnet50(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 224, 224)."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 224, 224]})
    n.conv1 = L.Convolution(n.data, num_output=64, kernel_size=7, stride=2, pad=3, weight_filler=MSRA)
    normalise(n, n.conv1, "_conv1", GAMMA)
    n.conv1_relu = L.ReLU(n.scale_conv1, in_place=True)
    top = n.pool1 = L.Pooling(n.conv1_relu, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    for stage, (blocks, width) in STAGES.items():
        for block in blocks:
            top = bottleneck(n, f"{stage}{block}", top, width, 2 if block == "a" and stage > 2 else 1)
    n.pool5 = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=7, stride=1)
    n.fc1000 = L.InnerProduct(n.pool5, num_output=1000, weight_filler={"type": "xavier"})
    n.prob = L.Softmax(n.fc1000)
    return n.to_proto()


def bottleneck(n: Any, name: str, bottom: Any, width: int, stride: int) -> Any:
    """1 x 1, 3 x 3, 1 x 1 beside the identity (in a stage's first block, beside a projection), summed."""
    beside = bottom
    if name.endswith("a"):
        beside = conv(n, f"{name}_branch1", bottom, num_output=4 * width, kernel_size=1, stride=stride)
    top = relu(
        n, f"{name}_branch2a", conv(n, f"{name}_branch2a", bottom, num_output=width, kernel_size=1, stride=stride)
    )
    top = relu(n, f"{name}_branch2b", conv(n, f"{name}_branch2b", top, num_output=width, kernel_size=3, pad=1))
    top = conv(n, f"{name}_branch2c", top, LAST_GAMMA, num_output=4 * width, kernel_size=1)
    n[f"res{name}"] = L.Eltwise(beside, top)
    return relu(n, name, n[f"res{name}"])


def conv(n: Any, name: str, bottom: Any, gamma: Any = GAMMA, **convolution: Any) -> Any:
    """A convolution without bias, then BatchNorm and Scale in place."""
    n[f"res{name}"] = L.Convolution(bottom, bias_term=False, weight_filler=MSRA, **convolution)
    return normalise(n, n[f"res{name}"], name, gamma)


def normalise(n: Any, bottom: Any, name: str, gamma: Any) -> Any:
    """BatchNorm and Scale in place."""
    n[f"bn{name}"] = L.BatchNorm(bottom, use_global_stats=True, in_place=True)
    n[f"scale{name}"] = L.Scale(n[f"bn{name}"], bias_term=True, filler=gamma, bias_filler=BETA, in_place=True)
    return n[f"scale{name}"]


def relu(n: Any, name: str, bottom: Any) -> Any:
    """ReLU in place."""
    n[f"res{name}_relu"] = L.ReLU(bottom, in_place=True)
    return n[f"res{name}_relu"]
