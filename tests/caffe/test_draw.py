from __future__ import annotations

import builtins
import os
import pathlib
import stat
import sys
from typing import Any

import pytest
from google.protobuf import text_format

import caffe.draw
from caffe.proto import caffe_pb2
from pycaffe.errors import InputError, MissingExtra

NET = """
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { batch_size: 64 } }
layer { name: "in" type: "Input" top: "data" exclude { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 5 pad: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" param { lr_mult: 0.5 }
  inner_product_param { num_output: 10 } }
layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up" convolution_param { num_output: 7 } }
"""


@pytest.fixture
def net() -> Any:
    return text_format.Parse(NET, caffe_pb2.NetParameter())


def test_pooling_types() -> None:
    assert caffe.draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}


def test_edge_labels(net: Any) -> None:
    labels = {layer.name: caffe.draw.get_edge_label(layer) for layer in net.layer}
    assert labels == {
        "data": "Batch 64", "in": '""', "conv": "20", "relu": '""', "pool": '""', "ip": "10", "up": "7",
    }  # fmt: skip


def test_learning_rate_multipliers(net: Any) -> None:
    layers = {layer.name: layer for layer in net.layer}
    found = [caffe.draw.get_layer_lr_mult(layers[name]) for name in ("conv", "ip", "up")]
    assert found == [(1, 2), (0.5, 1), (1, 1)]
    with pytest.raises(ValueError, match="Pooling layers do not have a learning rate multiplier"):
        caffe.draw.get_layer_lr_mult(layers["pool"])
    layers["conv"].param.add()
    with pytest.raises(InputError, match="Could not parse the learning rate multiplier: layer 'conv' has 3 param"):
        caffe.draw.get_layer_lr_mult(layers["conv"])


def test_layer_labels(net: Any) -> None:
    labels = {layer.name: caffe.draw.get_layer_label(layer, "TB", display_lrm=True) for layer in net.layer}
    assert labels["conv"] == '"conv (Convolution) kernel size: 5 stride: 1 pad: 2 lr mult: 1.0, 2.0"'
    assert labels["pool"] == '"pool (Pooling AVE) kernel size: 3 stride: 2 pad: 0"'
    assert labels["up"] == '"up (Deconvolution) kernel size: 1 stride: 1 pad: 0 lr mult: 1.0, 1.0"'
    assert labels["relu"] == '"relu (ReLU)"'
    assert caffe.draw.get_layer_label(net.layer[5], "LR") == r'"ip\n(InnerProduct)"'
    for param in net.layer[2].param:
        param.lr_mult = 0
    assert "lr mult" not in caffe.draw.get_layer_label(net.layer[2], "TB", display_lrm=True)


def test_colours() -> None:
    types = ["Convolution", "Deconvolution", "Pooling", "InnerProduct", "LRN"]
    found = [caffe.draw.choose_color_by_layertype(name) for name in types]
    assert found == ["#FF5050", "#FF5050", "#FF9900", "#CC33FF", "#6495ED"]


def test_graph_has_layers_and_blobs(net: Any) -> None:
    text = caffe.draw.draw_net(net, "LR", ext="raw").decode()
    assert text.startswith("digraph tiny {\nrankdir=LR;")
    assert r'"conv\n(Convolution)\nkernel size: 5\nstride: 1\npad: 2"' in text
    assert '"#90EE90"' in text  # in place
    assert "label=20" in text
    assert '"#FF5050"' in text
    assert caffe.draw.LAYER_STYLE_DEFAULT["fillcolor"] == "#6495ED"
    plain = caffe.draw.get_pydot_graph(net, "LR", label_edges=False).to_string()
    assert "label=20" not in plain
    # 7 layers, and the blobs data, label, conv, pool, ip, up
    assert len(caffe.draw.get_pydot_graph(net, "LR").get_nodes()) == 13


def test_phase(net: Any) -> None:
    def drawn(phase: int) -> list[str]:
        text = caffe.draw.get_pydot_graph(net, "TB", phase=phase).to_string()
        return [name for name in ("data (Data)", "in (Input)", "conv (Convolution)") if name in text]

    assert drawn(caffe_pb2.TRAIN) == ["data (Data)", "conv (Convolution)"]
    assert drawn(caffe_pb2.TEST) == ["in (Input)", "conv (Convolution)"]
    net.layer[0].exclude.add()
    with pytest.raises(ValueError, match="layer data has both include and exclude specified"):
        drawn(caffe_pb2.TEST)


def test_pictures_come_from_dot(net: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dot = tmp_path / "dot"
    dot.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1], open(sys.argv[-1]).read())\n")
    dot.chmod(dot.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = str(tmp_path / "net.svg")
    caffe.draw.draw_net_to_file(net, path, rankdir="BT")
    picture = pathlib.Path(path).read_text()
    assert picture.startswith("-Tsvg digraph tiny {\nrankdir=BT;")
    assert caffe.draw.draw_net(net, "LR").startswith(b"-Tpng digraph tiny")


def test_without_dot_the_error_names_graphviz(
    net: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="Graphviz's program dot, which was not found"):
        caffe.draw.draw_net(net, "LR")


def test_without_pydot_the_extra_is_named(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pydot(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pydot"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pydot)
    with pytest.raises(MissingExtra, match=r'Drawing a net needs pydot.*pip install "pycaffe\[draw\]"'):
        caffe.draw.draw_net(net, "LR")
