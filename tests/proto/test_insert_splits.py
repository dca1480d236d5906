"""Where Split layers go, and their names."""

from __future__ import annotations

import pytest

from pycaffe.errors import UnknownBottom
from pycaffe.proto.insert_splits import insert_splits
from pycaffe.proto.prototxt import parse_net


def wiring(text: str) -> list[tuple[str, list[str], list[str], list[float]]]:
    net = insert_splits(parse_net(text)).param
    return [(layer.name, list(layer.bottom), list(layer.top), list(layer.loss_weight)) for layer in net.layer]


def test_a_blob_read_once_needs_none():
    text = 'layer { name: "d" top: "x" } layer { name: "a" bottom: "x" top: "y" }'
    assert wiring(text) == [("d", [], ["x"], []), ("a", ["x"], ["y"], [])]


def test_a_blob_read_twice():
    text = """
    layer { name: "d" top: "label" top: "x" }
    layer { name: "a" bottom: "x" top: "y" }
    layer { name: "b" bottom: "y" bottom: "x" top: "z" }
    """
    assert wiring(text) == [
        ("d", [], ["label", "x"], []),
        ("x_d_1_split", ["x"], ["x_d_1_split_0", "x_d_1_split_1"], []),
        ("a", ["x_d_1_split_0"], ["y"], []),
        ("b", ["y", "x_d_1_split_1"], ["z"], []),
    ]


def test_one_layer_that_reads_a_blob_twice():
    text = 'layer { name: "d" top: "x" } layer { name: "a" bottom: "x" bottom: "x" top: "y" }'
    assert wiring(text)[2][1] == ["x_d_0_split_0", "x_d_0_split_1"]


def test_in_place_layers_split_by_their_last_maker():
    text = """
    layer { name: "d" top: "x" }
    layer { name: "relu" bottom: "x" top: "x" }
    layer { name: "a" bottom: "x" top: "y" }
    layer { name: "b" bottom: "x" top: "z" }
    """
    assert wiring(text) == [
        ("d", [], ["x"], []),
        ("relu", ["x"], ["x"], []),
        ("x_relu_0_split", ["x"], ["x_relu_0_split_0", "x_relu_0_split_1"], []),
        ("a", ["x_relu_0_split_0"], ["y"], []),
        ("b", ["x_relu_0_split_1"], ["z"], []),
    ]


def test_in_place_after_a_reader():
    text = """
    layer { name: "d" top: "x" }
    layer { name: "a" bottom: "x" top: "y" }
    layer { name: "relu" bottom: "x" top: "x" }
    layer { name: "b" bottom: "x" top: "z" }
    """
    assert wiring(text) == [
        ("d", [], ["x"], []),
        ("x_d_0_split", ["x"], ["x_d_0_split_0", "x_d_0_split_1"], []),
        ("a", ["x_d_0_split_0"], ["y"], []),
        ("relu", ["x_d_0_split_1"], ["x"], []),
        ("b", ["x"], ["z"], []),
    ]


def test_the_loss_is_a_reader_and_its_weight_moves():
    text = """
    layer { name: "d" top: "x" }
    layer { name: "a" bottom: "x" top: "y" loss_weight: 2.5 }
    layer { name: "b" bottom: "y" top: "z" }
    """
    assert wiring(text) == [
        ("d", [], ["x"], []),
        ("a", ["x"], ["y"], []),
        ("y_a_0_split", ["y"], ["y_a_0_split_0", "y_a_0_split_1"], [2.5, 0]),
        ("b", ["y_a_0_split_1"], ["z"], []),
    ]


def test_a_loss_that_nothing_reads_keeps_its_weight():
    text = 'layer { name: "d" top: "x" } layer { name: "a" bottom: "x" top: "y" loss_weight: 2.5 }'
    assert wiring(text)[1] == ("a", ["x"], ["y"], [2.5])


def test_a_zero_weight_is_no_reader():
    text = 'layer { name: "d" top: "x" loss_weight: 0 } layer { name: "a" bottom: "x" top: "y" }'
    assert wiring(text) == [("d", [], ["x"], [0]), ("a", ["x"], ["y"], [])]


def test_lines_stay_in_step():
    source = parse_net(
        'layer { name: "d" top: "x" }\nlayer { name: "a" bottom: "x" top: "y" }\n'
        'layer { name: "b" bottom: "x" top: "z" }',
        "f",
    )
    split = insert_splits(source)
    assert split.layer_lines == [1, 1, 2, 3]
    assert split.where(1) == "f:1, layer 'x_d_0_split'"
    assert len(insert_splits(source.param).layer) == 4 and len(source.param.layer) == 3


def test_unknown_bottom():
    source = parse_net('layer { name: "d" top: "conv1" }\nlayer { name: "a" bottom: "conv1" bottom: "conv_1" }', "f")
    expected = (
        r"^Unknown bottom blob 'conv_1' \(layer 'a', bottom index 1\)\. In f:2, layer 'a'\. Did you mean 'conv1'\?$"
    )
    with pytest.raises(UnknownBottom, match=expected):
        insert_splits(source)
