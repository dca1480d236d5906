"""Reading prototxt: what Caffe's parser accepts, where layers are, what errors say."""

from __future__ import annotations

import pathlib
import pickle

import pytest

from pycaffe.errors import ProtoError
from pycaffe.proto.prototxt import load_net, parse_net, parse_text, read_net, read_solver
from pycaffe.proto.schema import LayerParameter, NetParameter, PoolingParameter, SolverParameter

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def layer(body: str) -> object:
    return parse_net(f'layer {{ name: "l" {body} }}').param.layer[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("convolution_param { num_output: 5 }", 5),
        ("convolution_param: { num_output: 5 }", 5),
        ("convolution_param < num_output: 5 >", 5),
        ("convolution_param { num_output: 0x10; }", 16),
        ("convolution_param { num_output: 010, }", 8),
        ("convolution_param { num_output: 3kernel_size: 2 }", 3),
        ("convolution_param { num_output: # a comment: }\n 5 }", 5),
        ("convolution_param { axis: - 1 num_output: 7 }", 7),
        ("convolution_param { axis: -\n 1 num_output: 7 }", 7),
    ],
)
def test_spellings_that_caffe_accepts(body, expected):
    assert layer(body).convolution_param.num_output == expected


def test_negative_with_a_gap_keeps_its_sign():
    assert layer("convolution_param { axis: - 2 }").convolution_param.axis == -2
    assert layer("power_param { shift: - .5 scale: -1e-2f }").power_param.shift == -0.5


@pytest.mark.parametrize(
    ("text", "value"), [("1.5f", 1.5), ("2F", 2), ("1e2", 100), (".25", 0.25), ("7", 7), ("3.", 3)]
)
def test_floats(text, value):
    assert layer(f"power_param {{ power: {text} }}").power_param.power == value


def test_infinite_floats():
    assert layer("power_param { power: inf shift: -inf }").power_param.shift == float("-inf")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("t", True), ("1", True), ("f", False)])
def test_booleans(text, value):
    assert layer(f"convolution_param {{ bias_term: {text} }}").convolution_param.bias_term is value


def test_enums_by_name_and_number():
    assert layer("pooling_param { pool: AVE }").pooling_param.pool == PoolingParameter.AVE
    assert layer("pooling_param { pool: 1 }").pooling_param.pool == PoolingParameter.AVE


def test_strings_join_and_span_lines():
    assert layer("python_param { param_str: 'a' \"b\" }").python_param.param_str == "ab"
    assert layer('python_param { param_str: "a\nb\\n" }').python_param.param_str == "a\nb\n"
    assert layer("type: 'it\\'s \"x\"'").type == 'it\'s "x"'


def test_lists():
    assert list(layer("convolution_param { kernel_size: [3, 5] pad: [] }").convolution_param.kernel_size) == [3, 5]


def test_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbf# \xbe\xed\xbb\xfd\r\nlayer { name: "\xc3\xa9" type: "x" }\r\n')
    assert read_net(path).layer[0].name == "é"


def test_lines_of_layers(tmp_path):
    path = tmp_path / "deploy.prototxt"
    path.write_text(
        'name: "n"  # layer { not one }\ninput: "x"\ninput_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4\n'
        'layer {\n  name: "a" type: "ReLU" bottom: "x" top: "layer {"\n}\n\nlayer { name: "b" type: "ReLU" } layer: {\n'
        'name: "c" include { phase: TEST } }\n'
    )
    source = load_net(path)
    assert [item.name for item in source.param.layer] == ["input", "a", "b", "c"]
    assert source.layer_lines == [2, 4, 8, 8]
    assert source.where(1) == f"{path}:4, layer 'a'"


def test_lines_unknown_for_layers_in_a_list():
    source = parse_net('layer: [{ name: "a" }, { name: "b" }]', "x.prototxt")
    assert source.layer_lines == [0, 0]
    assert source.where(1) == "x.prototxt, layer 'b'"
    assert parse_net('layer { name: "a" }').where(0) == "layer 'a'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layer {\n  name: "pool1"\n  pooling_parm { pool: MAX }\n}',
            r"d\.prototxt:3:3, layer 'pool1': .*no field named \"pooling_parm\"\. Did you mean 'pooling_param'\?$",
        ),
        (
            'layer { pooling_param {\n pool: MAXX } name: "p" }',
            r":2:8, layer 'p': .*named MAXX\. Did you mean 'MAX'\?$",
        ),
        ('layers { name: "v1" type: CONVOLUTON }', r":1:27, layer 'v1': .*Did you mean 'CONVOLUTION'\?$"),
        (
            'layers { layer { name: "v0" kernel: 3 } }',
            r":1:29, layer 'v0': .*\"kernel\"\. Did you mean 'kernelsize'\?$",
        ),
        ('layer { name: "a" }\nlayer { name: "b" type "x" }', r":2:24, layer 'b': Expected \":\"\.$"),
        ('nam: "x"', r"d\.prototxt:1:1: .*Did you mean 'name'\?$"),
        ('net: "train.prototxt"', r"This is a solver; its field 'net' names the net\.$"),
        ('layer { name: "a"', r":1:\d+, layer 'a': "),
        ('layer { name: "a" name: "b" }', r"layer 'a': .*multiple \"name\""),
        ("layer { name: - 5 zzz: - 3 }", r":1:15, in a layer without a name: Expected string"),
        ('layer { name: "c" clip_param { min: 1 } }', r"missing required fields: layer\[0\]\.clip_param\.max\.$"),
        ("layer { convolution_param { num_output: -1 } }", r"out of range"),
        ("layer { convolution_param { num_output: 99999999999 } }", r"out of range"),
        ("]", r":1:1: "),
        ('layer { name: "a\n type: "x" }\nlayer { name: "b" }', r":1:15, layer 'a': .*String missing ending quote"),
    ],
)
def test_errors_say_where(text, message):
    with pytest.raises(ProtoError, match=message) as caught:
        parse_net(text, "d.prototxt")
    assert str(caught.value).startswith("Failed to parse NetParameter file: d.prototxt")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_second_error_wins_over_a_spelling_that_is_fine():
    text = 'layer { name: "a" convolution_param { axis: - 1 } }\nlayer { name: "b" tpe: "x" }'
    with pytest.raises(ProtoError, match=r"d:2:19, layer 'b': .*Did you mean 'type'"):
        parse_net(text, "d")


def test_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProtoError, match=r"Could not open file no/net\.prototxt .*working directory, '.*'\.$"):
        load_net("no/net.prototxt")
    with pytest.raises(ProtoError, match=r"Could not open file /no/net\.prototxt \(File not found\)\.$"):
        read_solver("/no/net.prototxt")


def test_folder_empty_and_binary_files(tmp_path):
    with pytest.raises(ProtoError, match=r"is a folder\.$"):
        read_net(tmp_path)
    empty = tmp_path / "empty.prototxt"
    empty.write_text(" # nothing\n")
    with pytest.raises(ProtoError, match=r"empty\.prototxt is empty\.$"):
        read_net(empty)
    weights = tmp_path / "net.caffemodel"
    weights.write_bytes(NetParameter(layer=[LayerParameter(name="x\0y", type="t")]).SerializeToString())
    with pytest.raises(ProtoError, match="is binary, not a prototxt"):
        read_net(weights)
    with pytest.raises(ProtoError, match=r"Could not open file a.b"):
        read_net("a\0b")


def test_deep_nesting_is_a_proto_error():
    with pytest.raises(ProtoError):
        parse_net("layer { name: " + "{" * 100000)
    with pytest.raises(ProtoError):
        parse_net("layer { convolution_param { num_output: " + "9" * 10000 + "} }")


def test_net_given_as_solver():
    with pytest.raises(ProtoError, match=r"This is a net, not a solver\.$"):
        parse_text(SolverParameter(), 'layer { name: "a" }', "net.prototxt")


def test_read_solver_upgrades(tmp_path):
    path = tmp_path / "my.solver.prototxt"
    path.write_text('net: "net.prototxt" base_lr: 0.5 solver_type: NESTEROV')
    param = read_solver(path)
    assert param.type == "Nesterov" and not param.HasField("solver_type")
    assert param.snapshot_prefix == str(tmp_path / "my.solver")


def test_every_golden_prototxt_reads():
    others = {"solvers", "snapshots", "mnist"}  # hold solvers, too
    paths = [path for path in GOLDEN.rglob("*.prototxt") if not others.intersection(path.parts)]
    assert len(paths) >= 8
    for path in paths:
        source = load_net(path)
        assert len(source.layer_lines) == len(source.param.layer)
