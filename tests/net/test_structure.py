from __future__ import annotations

from collections import OrderedDict

import numpy as np

import caffe
from pycaffe.blob import Blob
from pycaffe.net import TRAIN
from tests.net.nets import data, ip, layer, net_of

TEXT = (
    'name: "small" '
    + data(2, 3)
    + data(2, 4, name="label")
    + ip("ip1", "data", 4)
    + layer("relu", "ReLU", "ip1", "ip1")
    + layer("loss", "EuclideanLoss", "ip1 label", rest="loss_weight: 2")
    + layer("side", "TanH", "ip1")
)


def test_names_and_their_order() -> None:
    net = net_of(TEXT, TRAIN)
    split = ["ip1_relu_0_split_0", "ip1_relu_0_split_1"]
    assert list(net.blobs) == ["data", "label", "ip1", *split, "loss", "side"]
    assert isinstance(net.blobs, OrderedDict)
    assert all(isinstance(blob, caffe.Blob) for blob in net.blobs.values())
    assert list(net.params) == ["ip1"]
    assert [blob.shape for blob in net.params["ip1"]] == [(4, 3), (4,)]
    assert net.inputs == ["data", "label"]
    assert net.outputs == ["loss", "side"]
    assert list(net.layer_dict) == ["data", "label", "ip1", "relu", "ip1_relu_0_split", "loss", "side"]
    assert net.top_names["ip1_relu_0_split"] == split
    assert net.bottom_names["loss"] == [split[0], "label"]
    assert net.bottom_names["side"] == [split[1]]
    assert net.bottom_names["data"] == []
    assert net.blob_loss_weights["loss"] == 2
    assert sum(net.blob_loss_weights.values()) == 2


def test_layers() -> None:
    net = net_of(TEXT, TRAIN)
    assert [layer.type for layer in net.layers] == "Input Input InnerProduct ReLU Split EuclideanLoss TanH".split()
    assert net.layer_dict["ip1"] is net.layers[2]
    assert len(net.layers[2].blobs) == 2
    assert net.layers[2].blobs[0].data is not None
    np.testing.assert_array_equal(net.layers[2].blobs[0].data, net.params["ip1"][0].data)


def test_the_underscored_names_that_scripts_use() -> None:
    net = net_of(TEXT, TRAIN)
    assert net._layer_names == list(net.layer_dict)
    assert net._blob_names == list(net.blobs)
    assert all(isinstance(blob, Blob) for blob in net._blobs)
    assert net._blobs[2] is net.blobs["ip1"]
    assert (net._inputs, net._outputs) == ([0, 1], [5, 6])
    assert (net._bottom_ids(5), net._top_ids(5)) == ([3, 1], [5])
    assert net._blob_loss_weights == [0, 0, 0, 0, 0, 2, 0]
    net._forward(0, 6)
    net._backward(6, 0)
    assert len(list(net._batch({"data": np.zeros((5, 3))}))) == 3
