from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import pycaffe.cli
from pycaffe.net import TEST, Net
from tests.net.nets import data, ip, layer

NET = (
    'name: "small" '
    + data(2, 4, 9, 7)
    + layer("conv", "Convolution", "data", rest="convolution_param { num_output: 6 kernel_size: 3 group: 2 }")
    + layer("relu", "ReLU", "conv", "conv")
    + layer("up", "Deconvolution", "conv", rest="convolution_param { num_output: 3 kernel_size: 2 stride: 2 }")
    + layer("halves", "Slice", "conv", "left right", "slice_param { slice_point: 2 }")
    + layer("a", "InnerProduct", "left", rest="inner_product_param { num_output: 5 }")
    + layer("flat", "Flatten", "a")
    + layer("drop", "Dropout", "right", "right", "include { phase: TRAIN }")
)  # fmt: skip


def summary(capsys: pytest.CaptureFixture[str], *words: Any, status: int = 0) -> str:
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["summary", *map(str, words)])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed.out if status == 0 else printed.err


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "small.prototxt"
    path.write_text(NET)
    return path


def test_json(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(summary(capsys, "--model", model, "--json"))
    assert (found["name"], found["phase"]) == ("small", "TEST")
    layers = {entry["name"]: entry for entry in found["layers"]}
    assert list(layers) == ["data", "conv", "relu", "up", "halves", "a", "flat"]
    conv = layers["conv"]
    assert conv["type"] == "Convolution"
    assert (conv["bottoms"], conv["tops"]) == ({"data": [2, 4, 9, 7]}, {"conv": [2, 6, 7, 5]})
    assert conv["parameter_shapes"] == [[6, 2, 3, 3], [6]]
    assert {name: entry["parameters"] for name, entry in layers.items() if entry["parameters"]} == {
        "conv": 6 * 2 * 3 * 3 + 6, "up": 6 * 3 * 2 * 2 + 3, "a": 5 * 70 + 5,
    }  # fmt: skip
    assert {name: entry["multiply_adds"] for name, entry in layers.items() if entry["multiply_adds"]} == {
        "conv": 2 * 6 * 7 * 5 * (2 * 3 * 3),  # each output: the channels of its group times the window
        "up": 2 * 6 * 7 * 5 * (3 * 2 * 2),  # each input goes to each output channel's window
        "a": 2 * 5 * 70,
    }  # fmt: skip
    assert {name: entry["activation_bytes"] // 4 for name, entry in layers.items() if entry["activation_bytes"]} == {
        "data": 2 * 4 * 9 * 7, "conv": 420, "up": 2 * 3 * 14 * 10, "halves": 420, "a": 10,
    }  # fmt: skip
    assert found["total"] == {
        "parameters": 114 + 75 + 355,
        "multiply_adds": 7560 + 5040 + 700,
        "activation_bytes": 4 * (504 + 420 + 840 + 420 + 10),
        "parameter_bytes": 4 * 544,
    }


def test_shared_parameters_count_once(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = 'param { name: "w" } param { name: "b" } inner_product_param { num_output: 5 }'
    model.write_text(data(2, 70, name="x") + data(2, 70, name="y") + layer("a", "InnerProduct", "x", rest=shared)
                     + layer("b", "InnerProduct", "y", rest=shared))  # fmt: skip
    found = json.loads(summary(capsys, "--model", model, "--json"))
    assert [entry["parameters"] for entry in found["layers"]] == [0, 0, 355, 0]
    assert found["total"]["multiply_adds"] == 2 * 2 * 5 * 70


def test_recurrent_layers(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.write_text(
        data(3, 2, 5, name="x") + data(3, 2, name="cont") + data(2, 4, name="static")
        + layer("l", "LSTM", "x cont static", rest="recurrent_param { num_output: 6 }")
        + layer("r", "RNN", "x cont", rest="recurrent_param { num_output: 6 }")
    )  # fmt: skip
    found = json.loads(summary(capsys, "--model", model, "--json"))
    figures = {entry["name"]: entry["multiply_adds"] for entry in found["layers"]}
    assert figures["l"] == 3 * 2 * (24 * 5 + 24 * 6) + 2 * 24 * 4
    assert figures["r"] == 3 * 2 * (6 * 5 + 6 * 6 + 6 * 6)


def test_the_table(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(capsys, "-model", model).splitlines() == [
        "small (TEST)",
        "",
        "layer   type           output           parameters  multiply-adds   memory",
        "data    Input          2 x 4 x 9 x 7             -              -  2.02 kB",
        "conv    Convolution    2 x 6 x 7 x 5           114          7,560  1.68 kB",
        "relu    ReLU           2 x 6 x 7 x 5             -              -        -",
        "up      Deconvolution  2 x 3 x 14 x 10          75          5,040  3.36 kB",
        "halves  Slice          2 x 2 x 7 x 5             -              -  1.68 kB",
        "                       2 x 4 x 7 x 5",
        "a       InnerProduct   2 x 5                   355            700     40 B",
        "flat    Flatten        2 x 5                     -              -        -",
        "",
        "parameters     544 (2.18 kB)",
        "multiply-adds  13,300",
        "memory         11 kB: 8.78 kB of blobs, the rest parameters",
        "for training   21.9 kB, and the solver's history",
    ]


def test_phase_and_weights(model: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    Net(str(model), TEST).save(str(tmp_path / "w.caffemodel"))
    model.write_text(NET + ip("new", "flat", 3))
    text = summary(capsys, "--model", model, "--weights", tmp_path / "w.caffemodel", "--phase", "TRAIN")
    assert "small (TRAIN)" in text
    assert "\ndrop " in text
    assert text.endswith("\n\nNot in the weights: new\n")
    found = json.loads(summary(capsys, "--model", model, "--weights", tmp_path / "w.caffemodel", "--json"))
    assert {e["name"]: e["in_weights"] for e in found["layers"] if "in_weights" in e} == {
        "conv": True, "up": True, "a": True, "new": False,
    }  # fmt: skip


def test_levels_and_stages(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.write_text(NET + ip("wide", "flat", 3, 'include { stage: "wide" min_level: 2 }'))
    assert "\nwide " in summary(capsys, "--model", model, "--stage", "wide,x", "--level", 2)
    assert "\nwide " not in summary(capsys, "--model", model, "--stage", "wide")


def test_the_net_may_stand_without_its_flag(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(capsys, model, "-phase", "TRAIN") == summary(capsys, "--model", model, "--phase", "TRAIN")
    assert "Give the net once: caffe summary PROTOTXT." in summary(capsys, model, "--model", model, status=2)


def test_sizes_in_words() -> None:
    from pycaffe.cli.summary import _size

    assert [_size(n) for n in (0, 999, 1000, 2_345_678, 9_876_543_210)] == ["-", "999 B", "1 kB", "2.35 MB", "9.88 GB"]


def test_a_net_that_cannot_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Could not open file nothing.prototxt" in summary(capsys, "--model", "nothing.prototxt", status=2)
    assert "Give the net once: caffe summary PROTOTXT." in summary(capsys, status=2)
