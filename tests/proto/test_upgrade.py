"""Upgrades of older formats, against the original's own output."""

from __future__ import annotations

import logging
import pathlib

import pytest

from pycaffe.errors import ProtoError
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import load_net, parse_net, parse_text
from pycaffe.proto.schema import NetParameter, SolverParameter, V1LayerParameter
from pycaffe.proto.upgrade import V1_TYPES, upgrade_net_as_needed, upgrade_snapshot_prefix, upgrade_solver_as_needed

PAIRS = pathlib.Path(__file__).resolve().parents[1] / "golden" / "upgrade"


@pytest.mark.parametrize("name", ["v0", "v0_data", "v1", "v2_bn_input"])
def test_agrees_with_the_original(name):
    expected = parse_text(NetParameter(), (PAIRS / f"{name}.upgraded.prototxt").read_text())
    source = load_net(PAIRS / f"{name}.prototxt")
    assert source.param == expected
    text = (PAIRS / f"{name}.prototxt").read_text().splitlines()
    for layer, line in zip(source.param.layer, source.layer_lines):
        assert layer.type == "Input" or f'"{layer.name}"' in text[line - 1]


def test_an_upgraded_net_stays_as_it_is():
    for path in PAIRS.glob("*.upgraded.prototxt"):
        net = parse_text(NetParameter(), path.read_text())
        again = NetParameter()
        again.CopyFrom(net)
        upgrade_net_as_needed(again)
        assert again == net


def test_every_v1_type_has_a_name():
    assert set(V1_TYPES) == set(V1LayerParameter.LayerType.keys())


def test_padding_layer_of_a_pooling_layer():
    net = parse_net(
        'input: "x" input_dim: [1, 2, 3, 4]\n'
        'layers { layer { name: "pad" type: "padding" pad: 3 } bottom: "x" top: "y" }\n'
        'layers { layer { name: "p" type: "pool" kernelsize: 2 } bottom: "y" top: "z" }',
        "f",
    )
    assert [layer.name for layer in net.param.layer] == ["input", "p"]
    assert net.param.layer[1].pooling_param.pad == 3
    assert list(net.param.layer[1].bottom) == ["x"]
    assert net.layer_lines == [1, 3]


def test_input_shapes():
    net = parse_net(
        'input: "a" input: "b" input_shape { dim: 5 } input_shape { dim: [2, 3] } layer { name: "l" }'
    ).param
    assert [list(shape.dim) for shape in net.layer[0].input_param.shape] == [[5], [2, 3]]
    assert list(net.layer[0].top) == ["a", "b"]
    assert not net.input and not net.input_shape
    bare = parse_net('input: "a" layer { name: "l" }').param
    assert [layer.name for layer in bare.layer] == ["l"] and not bare.input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layers { type: RELU } layer { name: "x" }', "Refusing to upgrade inconsistent NetParameter input"),
        (
            'layers { layer { name: "a" type: "konv" } }',
            r"Unknown layer name: konv .*f:1, layer 'a'\. Did you mean 'conv'",
        ),
        ('layers { layer { name: "a" type: "relu" } bottom: "x" }', r"Unknown blob input x to layer 0\. In f:1"),
        (
            'input: "x" layers { layer { type: "padding" } bottom: "x" top: "y" }\n'
            'layers { layer { name: "r" type: "relu" } bottom: "y" }',
            r"Padding layer input to non-convolutional / non-pooling layer type relu\. In f:2, layer 'r'",
        ),
        (
            'input: "x" layers { layer { type: "padding" } bottom: "x" top: "y" }\n'
            'layers { layer { name: "c" type: "conv" } bottom: "y" bottom: "y" }',
            r"Conv Layer takes a single blob as input\. In f:2, layer 'c': 2 bottoms",
        ),
        (
            'input: "x" layers { layer { type: "padding" } bottom: "x" top: "y" top: "z" }\n'
            'layers { layer { name: "c" type: "conv" } bottom: "y" }',
            r"Padding Layer takes .*1 bottoms and 2 tops",
        ),
        ('\ninput: "x" input_dim: 1 input_dim: 2', r"In f:2\. 1 inputs need 4 input_dim fields, got 2"),
        ('input: "x" input: "y" input_shape { dim: 1 }', r"2 inputs need 2 input_shape fields, got 1"),
    ],
)
def test_nets_that_cannot_be_upgraded(text, message):
    with pytest.raises(ProtoError, match=message):
        parse_net(text, "f")


def test_a_field_without_a_place_is_logged(caplog):
    with caplog.at_level(logging.ERROR, "pycaffe"):
        parse_net('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    assert "Unknown parameter num_output for layer type relu" in caplog.text


def test_batch_norm_with_two_specs_is_left_alone():
    net = parse_net('layer { type: "BatchNorm" param { lr_mult: 1 } param { lr_mult: 2 } }').param
    assert [spec.lr_mult for spec in net.layer[0].param] == [1, 2]


def test_share_modes_of_v1():
    net = parse_net('layers { type: RELU param: "w" blob_share_mode: [STRICT, PERMISSIVE] blobs_lr: 3 }').param
    specs = net.layer[0].param
    assert [(spec.name, spec.share_mode) for spec in specs] == [("w", 0), ("", 1)]
    assert specs[0].lr_mult == 3 and not specs[1].HasField("lr_mult")


def test_works_on_a_bare_message_and_on_a_source():
    net = NetParameter(input=["x"], input_dim=[1, 2, 3, 4])
    source = NetSource(net, "f", [], 9)
    upgrade_net_as_needed(source)
    assert source.layer_lines == [9] and net.layer[0].type == "Input"


@pytest.mark.parametrize(
    ("old", "new"),
    [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("ADAGRAD", "AdaGrad"), ("RMSPROP", "RMSProp"), ("ADAM", "Adam")],
)
def test_solver_types(old, new):
    param = SolverParameter(solver_type=SolverParameter.SolverType.Value(old))
    upgrade_solver_as_needed(param)
    assert param == SolverParameter(type=new)


def test_solver_with_both_types():
    with pytest.raises(ProtoError, match=r"cannot be both specified in solver proto text\. In s\.prototxt"):
        upgrade_solver_as_needed(SolverParameter(type="SGD", solver_type=0), "s.prototxt")


def test_snapshot_prefix(tmp_path):
    for given, expected in [(None, "a/b.c"), ("x/y", "x/y"), (str(tmp_path), str(tmp_path / "b.c"))]:
        param = SolverParameter(snapshot_prefix=given) if given else SolverParameter()
        upgrade_snapshot_prefix(param, "a/b.c.prototxt")
        assert param.snapshot_prefix == expected
