"""CIFAR-10 quick, training form: three 5 x 5 convolutions, maximum and average pooling, 146 k parameters."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from nets.training import images_and_labels


def cifar10_quick_train(batch: int) -> Any:
    """The NetParameter for training on (batch, 3, 32, 32)."""
    n = NetSpec()
    images_and_labels(n, (batch, 3, 32, 32))
    n.conv1 = conv(n.data, 32, 0.0001)
    n.pool1 = pool(n.conv1, P.Pooling.MAX)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.conv2 = conv(n.relu1, 32, 0.01)
    n.relu2 = L.ReLU(n.conv2, in_place=True)
    n.pool2 = pool(n.relu2, P.Pooling.AVE)
    n.conv3 = conv(n.pool2, 64, 0.01)
    n.relu3 = L.ReLU(n.conv3, in_place=True)
    n.pool3 = pool(n.relu3, P.Pooling.AVE)
    n.ip1 = L.InnerProduct(n.pool3, num_output=64, weight_filler={"type": "gaussian", "std": 0.1})
    n.ip2 = L.InnerProduct(n.ip1, num_output=10, weight_filler={"type": "gaussian", "std": 0.1})
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()


def conv(bottom: Any, num_output: int, std: float) -> Any:
    """A 5 x 5 convolution that keeps the size."""
    return L.Convolution(
        bottom, num_output=num_output, kernel_size=5, pad=2, weight_filler={"type": "gaussian", "std": std}
    )


def pool(bottom: Any, method: int) -> Any:
    """Overlapping 3 x 3 pooling."""
    return L.Pooling(bottom, pool=method, kernel_size=3, stride=2)
