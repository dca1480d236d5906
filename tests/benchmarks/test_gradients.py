"""Gradients of whole nets, in training, against float64 code of plain torch that knows nothing of our layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets.caffenet import caffenet_train
from nets.googlenet import googlenet_train
from nets.resnet50 import resnet50

import caffe

WORST = 1e-4  # relative error of a parameter's gradient, in the 2-norm
ROUNDING = 1e-4  # of a blob's largest value: float32 and float64 are no further apart
BATCH = 2


def resnet50_train(batch: int) -> Any:
    """The deploy net with a loss in place of its `prob`; BatchNorm takes the batch's statistics."""
    param = resnet50(batch)
    for layer in param.layer:
        if layer.type == "BatchNorm":
            layer.batch_norm_param.use_global_stats = False
    param.layer[1].convolution_param.bias_term = False  # before a BatchNorm its gradient is rounding alone
    prob = param.layer[-1]
    prob.name, prob.type, prob.top[:] = "loss", "SoftmaxWithLoss", ["loss"]
    prob.bottom.append("label")
    param.layer[0].top.append("label")
    param.layer[0].input_param.shape.add().dim.append(batch)
    return param


class PlainNet:
    """Walks a prototxt with torch.nn.functional in float64.

    At a kink of ReLU or MAX pooling, rounding decides to which side a gradient goes. So float64 follows the sides that
    the net took, once it is sure that nothing but rounding is between them.

    Args:
        param: the NetParameter.
        net: the net after a forward; gives the parameters, the inputs and which neurons Dropout kept.
    """

    def __init__(self, param: Any, net: caffe.Net) -> None:
        self.net = net
        self.params = {
            f"{name}[{i}]": torch.tensor(blob.data, dtype=torch.float64, requires_grad=True)
            for name, blobs in net.params.items()
            for i, blob in enumerate(blobs)
        }
        self.dropped = {layer.top[0] for layer in param.layer if layer.type == "Dropout"}
        self.loss = torch.zeros((), dtype=torch.float64)
        blobs: dict[str, torch.Tensor] = {}
        for layer in param.layer:
            if layer.type in ("Input", "DummyData"):
                for top in layer.top:
                    blobs[top] = torch.tensor(net.blobs[top].data, dtype=torch.float64)
            else:
                (top,) = layer.top
                blobs[top] = getattr(self, layer.type)(layer, *(blobs[name] for name in layer.bottom))

    def weights(self, layer: Any) -> list[torch.Tensor]:
        return [self.params[f"{layer.name}[{i}]"] for i in range(len(self.net.params[layer.name]))]

    def Convolution(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.convolution_param
        first = {name: (list(getattr(p, name)) or [default])[0] for name, default in (("stride", 1), ("pad", 0))}
        return F.conv2d(x, *self.weights(layer), stride=first["stride"], padding=first["pad"], groups=p.group)

    def InnerProduct(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.flatten(1), *self.weights(layer))

    def Pooling(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.pooling_param
        if p.pool == p.AVE:
            assert p.pad == 0
            return F.avg_pool2d(x, p.kernel_size, p.stride, ceil_mode=True)
        window: Any = (p.kernel_size, p.stride, p.pad, 1, True)
        ours, where = F.max_pool2d(torch.tensor(self.net.blobs[layer.bottom[0]].data), *window, return_indices=True)
        top = x.flatten(2).gather(2, where.flatten(2)).view(where.shape)
        torch.testing.assert_close(top, F.max_pool2d(x, *window), rtol=0, atol=ROUNDING * float(ours.max()))
        return top

    def LRN(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        p = layer.lrn_param
        return F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)

    def BatchNorm(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, training=True, eps=layer.batch_norm_param.eps)

    def Scale(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        gamma, beta = self.weights(layer)
        return x * gamma[:, None, None] + beta[:, None, None]

    def ReLU(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        if layer.top[0] in self.dropped:  # the blob does not tell any more what was positive
            return F.relu(x)
        ours = torch.tensor(self.net.blobs[layer.top[0]].data, dtype=torch.float64)
        torch.testing.assert_close(ours, F.relu(x.detach()), rtol=0, atol=ROUNDING * float(ours.max()))
        return x * (ours > 0)

    def Dropout(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        # x comes of a ReLU: where the kept and scaled value is zero no gradient passes, whatever the reason.
        kept = torch.tensor(self.net.blobs[layer.top[0]].data != 0)
        return torch.where(kept, x / (1 - layer.dropout_param.dropout_ratio), 0.0)

    def Concat(self, layer: Any, *bottom: torch.Tensor) -> torch.Tensor:
        return torch.cat(bottom, 1)

    def Eltwise(self, layer: Any, *bottom: torch.Tensor) -> torch.Tensor:
        return torch.stack(bottom).sum(0)

    def SoftmaxWithLoss(self, layer: Any, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        weight = layer.loss_weight[0] if layer.loss_weight else 1.0
        self.loss = self.loss + weight * F.cross_entropy(x, label.long())
        return self.loss


@pytest.mark.slow
@pytest.mark.parametrize(("model", "learned"), [(caffenet_train, 16), (googlenet_train, 128), (resnet50_train, 161)])
def test_against_float64(model: Callable[[int], Any], learned: int) -> None:
    param = model(BATCH)
    caffe.set_random_seed(6)
    net = caffe.Net(param, caffe.TRAIN)
    rng = np.random.default_rng(7)
    net.blobs["data"].data[...] = rng.standard_normal(net.blobs["data"].shape)
    net.blobs["label"].data[...] = rng.integers(0, 1000, BATCH)
    net.forward()
    net.backward()

    plain = PlainNet(param, net)
    loss = sum(net.blob_loss_weights[name] * float(net.blobs[name].data) for name in net.outputs)
    assert loss == pytest.approx(plain.loss.item(), rel=1e-5)
    plain.loss.backward()
    errors = {}
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            want = plain.params[f"{name}[{i}]"].grad
            if want is not None:  # BatchNorm's statistics are not learned
                assert float(want.norm()) > 0, name
                errors[f"{name}[{i}]"] = float((torch.tensor(blob.diff) - want).norm() / want.norm())
    assert len(errors) == learned
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < WORST, worst
