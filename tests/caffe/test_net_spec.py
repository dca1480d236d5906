from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe.net_spec import NetSpec, UnknownParameter, assign_proto, param_name_dict, to_proto
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffe.proto import caffe_pb2


def parsed(text: str) -> Any:
    return text_format.Parse(text, caffe_pb2.NetParameter())


def test_named_layers() -> None:
    n = NetSpec()
    n.data, n.label = L.DummyData(shape=[{"dim": [2, 3, 5, 7]}, {"dim": 2}], transform_param={"scale": 0.5}, ntop=2)
    n.conv = L.Convolution(
        n.data, kernel_size=3, num_output=4, weight_filler={"type": "xavier"}, param=[{"lr_mult": 1}, {"lr_mult": 2}]
    )
    n.pool = L.Pooling(n.conv, pool=P.Pooling.AVE, kernel_size=2, stride=2)
    n["relu"] = L.ReLU(n["pool"], in_place=True)
    n.ip = L.InnerProduct(n.relu, num_output=6, name="classifier")
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=[0.5])
    assert n.to_proto() == parsed(
        """
        layer { name: "data" type: "DummyData" top: "data" top: "label" transform_param { scale: 0.5 }
          dummy_data_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } shape { dim: 2 } } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
          convolution_param { kernel_size: 3 num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
          pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
        layer { name: "relu" type: "ReLU" bottom: "pool" top: "pool" }
        layer { name: "classifier" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 6 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }
        """
    )


def test_layers_without_a_name_are_numbered_by_type() -> None:
    a, b = L.Input(shape={"dim": [1, 2]}, ntop=2)
    total = L.Eltwise(L.ReLU(a), L.ReLU(b), operation=P.Eltwise.PROD)
    names = [layer.name for layer in total.to_proto().layer]
    assert names == ["Input1", "ReLU1", "ReLU2", "Eltwise1"]
    tops = [list(layer.top) for layer in total.to_proto().layer]
    assert tops == [["Input1", "Input2"], ["ReLU1"], ["ReLU2"], ["Eltwise1"]]
    assert total.to_proto().layer[3].eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD


def test_to_proto_of_several_tops_holds_shared_layers_once() -> None:
    data = L.Input(shape={"dim": [1, 2]})
    net = to_proto(L.ReLU(data), L.TanH(data))
    assert [layer.type for layer in net.layer] == ["Input", "ReLU", "TanH"]


def test_layers_without_tops() -> None:
    n = NetSpec()
    n.data, n.more = L.DummyData(shape={"dim": 3}, ntop=2)
    n.quiet = L.Silence(n.data, ntop=0)
    n.hush = L.Silence(n.more, ntop=0)
    net = n.to_proto()
    assert [(layer.name, list(layer.top)) for layer in net.layer[1:]] == [("quiet", []), ("hush", [])]
    assert to_proto(L.Silence(n.data, ntop=0)).layer[1].name == "Silence1"


def test_parameters_of_a_layer_and_of_its_type() -> None:
    n = NetSpec()
    n.data = L.Input(input_param={"shape": {"dim": [1, 2]}})
    n.up = L.Deconvolution(n.data, convolution_param={"num_output": 2, "kernel_size": [3, 4]})
    n.py = L.Python(n.data, module="m", layer="Own", param_str="{}", include={"phase": caffe_pb2.TEST})
    _, up, py = n.to_proto().layer
    assert list(up.convolution_param.kernel_size) == [3, 4]
    assert (py.python_param.module, py.python_param.layer, py.python_param.param_str) == ("m", "Own", "{}")
    assert py.include[0].phase == caffe_pb2.TEST


def test_assign_proto() -> None:
    layer = caffe_pb2.LayerParameter()
    assign_proto(layer, "bottom", "one")
    assign_proto(layer, "bottom", ("two", "three"))
    assign_proto(layer, "top", [])
    assign_proto(layer, "blobs", [{"data": np.array([1.5, 2])}, {}])
    assign_proto(layer, "pooling_param", {})
    assert (list(layer.bottom), list(layer.top)) == (["one", "two", "three"], [])
    assert [list(blob.data) for blob in layer.blobs] == [[1.5, 2], []]
    assert layer.HasField("pooling_param")
    with pytest.raises(AttributeError, match=r"PoolingParameter has no field 'strid'\. Did you mean 'stride'\?"):
        assign_proto(layer, "pooling_param", {"strid": 2})


def test_param_name_dict() -> None:
    names = param_name_dict()
    assert names["Convolution"] == "convolution"
    assert names["InnerProduct"] == "inner_product"
    assert names["PReLU"] == "prelu"
    assert names["Transformation"] == "transform"
    assert "Deconvolution" not in names


def test_a_bottom_that_is_no_top() -> None:
    pair = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"^Silence input 0 is not a Top \(type is <class 'tuple'>\)$"):
        L.Silence(pair, ntop=0)
    L.Silence(*pair, ntop=0)


def test_a_tuple_assigned_to_one_name() -> None:
    n = NetSpec()
    n.data = L.DummyData(ntop=2)
    with pytest.raises(TypeError, match=r"data is not a Top .* assigned to as many names"):
        n.to_proto()


def test_unknown_parameters_and_tops() -> None:
    n = NetSpec()
    n.conv = L.Convolution(kernal_size=3)
    with pytest.raises(UnknownParameter, match=r"'conv' of type 'Convolution' has no parameter 'kernal_size'. Did you"):
        n.to_proto()
    with pytest.raises(AttributeError, match="NetSpec has no top 'missing'"):
        _ = n.missing
    with pytest.raises(KeyError, match="missing"):
        _ = n["missing"]


def test_specs_can_be_copied() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 2]})
    assert copy.copy(n).to_proto() == copy.deepcopy(n).to_proto() == n.to_proto()
    assert copy.copy(L).ReLU(n.data).fn.type_name == "ReLU"
    assert copy.copy(P).Pooling.MAX == 0
