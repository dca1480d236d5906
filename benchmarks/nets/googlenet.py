"""BVLC GoogLeNet: nine inception modules, two LRN layers, 7 M parameters, and 6 M more in training."""

from __future__ import annotations

from typing import Any

from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from nets.training import images_and_labels

MSRA = {"type": "msra"}
MODULES = {  # 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
SIDE_LOSSES = {"4a": "loss1", "4d": "loss2"}


def googlenet(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 224, 224), deploy form."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [batch, 3, 224, 224]})
    n.prob = L.Softmax(scores(n))
    return n.to_proto()


def googlenet_train(batch: int) -> Any:
    """The NetParameter for training on (batch, 3, 224, 224): with two losses more, on modules in the middle."""
    n = NetSpec()
    images_and_labels(n, (batch, 3, 224, 224))
    top = scores(n, side_losses=True)
    n["loss3/loss3"] = L.SoftmaxWithLoss(top, n.label)
    return n.to_proto()


def scores(n: Any, side_losses: bool = False) -> Any:
    """The layers from the images to the scores."""
    top = conv(n, "conv1/7x7_s2", "conv1/relu_7x7", n.data, 64, kernel_size=7, stride=2, pad=3)
    n["pool1/3x3_s2"] = pool(top, stride=2)
    n["pool1/norm1"] = L.LRN(n["pool1/3x3_s2"], local_size=5, alpha=1e-4, beta=0.75)
    top = conv(n, "conv2/3x3_reduce", "conv2/relu_3x3_reduce", n["pool1/norm1"], 64, kernel_size=1)
    top = conv(n, "conv2/3x3", "conv2/relu_3x3", top, 192, kernel_size=3, pad=1)
    n["conv2/norm2"] = L.LRN(top, local_size=5, alpha=1e-4, beta=0.75)
    top = n["pool2/3x3_s2"] = pool(n["conv2/norm2"], stride=2)
    for name, widths in MODULES.items():
        top = inception(n, f"inception_{name}", top, widths)
        if side_losses and name in SIDE_LOSSES:
            side_loss(n, SIDE_LOSSES[name], top)
        if name in ("3b", "4e"):
            stage = int(name[0])
            top = n[f"pool{stage}/3x3_s2"] = pool(top, stride=2)
    n["pool5/7x7_s1"] = L.Pooling(top, pool=P.Pooling.AVE, kernel_size=7, stride=1)
    n["pool5/drop_7x7_s1"] = L.Dropout(n["pool5/7x7_s1"], dropout_ratio=0.4, in_place=True)
    n["loss3/classifier"] = L.InnerProduct(n["pool5/drop_7x7_s1"], num_output=1000, weight_filler={"type": "xavier"})
    return n["loss3/classifier"]


def side_loss(n: Any, name: str, bottom: Any) -> None:
    """A small classifier on an inner module, whose loss counts less."""
    n[f"{name}/ave_pool"] = L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=5, stride=3)
    top = conv(n, f"{name}/conv", f"{name}/relu_conv", n[f"{name}/ave_pool"], 128, kernel_size=1)
    n[f"{name}/fc"] = L.InnerProduct(top, num_output=1024, weight_filler={"type": "xavier"})
    n[f"{name}/relu_fc"] = L.ReLU(n[f"{name}/fc"], in_place=True)
    n[f"{name}/drop_fc"] = L.Dropout(n[f"{name}/relu_fc"], dropout_ratio=0.7, in_place=True)
    n[f"{name}/classifier"] = L.InnerProduct(n[f"{name}/drop_fc"], num_output=1000, weight_filler={"type": "xavier"})
    n[f"{name}/{name}"] = L.SoftmaxWithLoss(n[f"{name}/classifier"], n.label, loss_weight=0.3)


def inception(n: Any, name: str, bottom: Any, widths: tuple[int, int, int, int, int, int]) -> Any:
    """The four branches of a module, joined."""
    one, three_reduce, three, five_reduce, five, projection = widths
    left = conv(n, f"{name}/1x1", f"{name}/relu_1x1", bottom, one, kernel_size=1)
    top = conv(n, f"{name}/3x3_reduce", f"{name}/relu_3x3_reduce", bottom, three_reduce, kernel_size=1)
    middle = conv(n, f"{name}/3x3", f"{name}/relu_3x3", top, three, kernel_size=3, pad=1)
    top = conv(n, f"{name}/5x5_reduce", f"{name}/relu_5x5_reduce", bottom, five_reduce, kernel_size=1)
    right = conv(n, f"{name}/5x5", f"{name}/relu_5x5", top, five, kernel_size=5, pad=2)
    n[f"{name}/pool"] = pool(bottom, stride=1, pad=1)
    last = conv(n, f"{name}/pool_proj", f"{name}/relu_pool_proj", n[f"{name}/pool"], projection, kernel_size=1)
    n[f"{name}/output"] = L.Concat(left, middle, right, last)
    return n[f"{name}/output"]


def conv(n: Any, name: str, relu: str, bottom: Any, num_output: int, **convolution: Any) -> Any:
    """A convolution and its ReLU."""
    n[name] = L.Convolution(bottom, num_output=num_output, weight_filler=MSRA, **convolution)
    n[relu] = L.ReLU(n[name], in_place=True)
    return n[relu]


def pool(bottom: Any, **pooling: Any) -> Any:
    """3 x 3 max pooling."""
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=3, **pooling)
