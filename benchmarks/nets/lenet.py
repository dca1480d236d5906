"""LeNet: so small that what surrounds a forward is most of it."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from nets.training import images_and_labels

XAVIER = {"type": "xavier"}


def lenet(batch: int = 1) -> Any:
    """The NetParameter for (batch, 1, 28, 28), deploy form."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 1, 28, 28]})
    n.prob = L.Softmax(scores(n))
    return n.to_proto()


def lenet_train(batch: int) -> Any:
    """The NetParameter for training on (batch, 1, 28, 28)."""
    n = NetSpec()
    images_and_labels(n, (batch, 1, 28, 28))
    n.loss = L.SoftmaxWithLoss(scores(n), n.label)
    return n.to_proto()


def scores(n: Any) -> Any:
    """The layers from the images to the scores."""
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, stride=1, weight_filler=XAVIER)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=50, kernel_size=5, stride=1, weight_filler=XAVIER)
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, weight_filler=XAVIER)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, weight_filler=XAVIER)
    return n.ip2
