"""CaffeNet (AlexNet's order of pooling and normalisation): 61 M parameters, 244 MB of weights."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from nets.training import images_and_labels

GAUSSIAN = {"type": "gaussian", "std": 0.01}


def caffenet(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 227, 227), deploy form."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 227, 227]})
    n.prob = L.Softmax(scores(n))
    return n.to_proto()


def caffenet_train(batch: int) -> Any:
    """The NetParameter for training on (batch, 3, 227, 227)."""
    n = NetSpec()
    images_and_labels(n, (batch, 3, 227, 227))
    n.loss = L.SoftmaxWithLoss(scores(n), n.label)
    return n.to_proto()


def scores(n: Any) -> Any:
    """The layers from the images to the scores."""
    n.conv1 = conv(n.data, 96, kernel_size=11, stride=4)
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = pool(n.relu1)
    n.norm1 = L.LRN(n.pool1, local_size=5, alpha=1e-4, beta=0.75)
    n.conv2 = conv(n.norm1, 256, kernel_size=5, pad=2, group=2)
    n.relu2 = L.ReLU(n.conv2, in_place=True)
    n.pool2 = pool(n.relu2)
    n.norm2 = L.LRN(n.pool2, local_size=5, alpha=1e-4, beta=0.75)
    n.conv3 = conv(n.norm2, 384, kernel_size=3, pad=1)
    n.relu3 = L.ReLU(n.conv3, in_place=True)
    n.conv4 = conv(n.relu3, 384, kernel_size=3, pad=1, group=2)
    n.relu4 = L.ReLU(n.conv4, in_place=True)
    n.conv5 = conv(n.relu4, 256, kernel_size=3, pad=1, group=2)
    n.relu5 = L.ReLU(n.conv5, in_place=True)
    n.pool5 = pool(n.relu5)
    n.fc6 = L.InnerProduct(n.pool5, num_output=4096, weight_filler={"type": "gaussian", "std": 0.005})
    n.relu6 = L.ReLU(n.fc6, in_place=True)
    n.drop6 = L.Dropout(n.relu6, dropout_ratio=0.5, in_place=True)
    n.fc7 = L.InnerProduct(n.drop6, num_output=4096, weight_filler={"type": "gaussian", "std": 0.005})
    n.relu7 = L.ReLU(n.fc7, in_place=True)
    n.drop7 = L.Dropout(n.relu7, dropout_ratio=0.5, in_place=True)
    n.fc8 = L.InnerProduct(n.drop7, num_output=1000, weight_filler=GAUSSIAN)
    return n.fc8


def conv(bottom: Any, num_output: int, **convolution: Any) -> Any:
    """A convolution with CaffeNet's filler."""
    return L.Convolution(bottom, num_output=num_output, weight_filler=GAUSSIAN, **convolution)


def pool(bottom: Any) -> Any:
    """Overlapping 3 x 3 max pooling."""
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, stride=2)
