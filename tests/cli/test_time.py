from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import pycaffe.cli

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param {
    shape { dim: 4 dim: 3 dim: 6 dim: 5 } shape { dim: 4 }
    data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 2 }
  } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 7 kernel_size: 3 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "a_long_layer_name" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 5 weight_filler { type: "constant" value: 0.25 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" include { phase: TRAIN } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" include { phase: TEST } }
"""
TRAIN_LAYERS = ["data", "conv", "relu", "a_long_layer_name", "loss"]
NUMBER = r"[0-9.]+(?:e[-+]\d+)?"


@pytest.fixture
def model(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "small.prototxt"
    path.write_text(NET)
    return str(path)


PREFIX = r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ (caffe\.cpp|time\.py):\d+\] "
CaffeTime = Callable[..., "list[str]"]


def in_a_process(*words: Any, **environment: str) -> str:
    """What `caffe time` writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pycaffe", "time", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


@pytest.fixture
def caffe_time(capsys: pytest.CaptureFixture[str]) -> CaffeTime:
    """The messages on stderr, without the glog prefix where a line has one."""

    def run_here(*words: Any, status: int = 0) -> list[str]:
        with pytest.raises(SystemExit) as end:
            pycaffe.cli.main(["time", *map(str, words)])
        printed = capsys.readouterr()
        assert (end.value.code, printed.out) == (status, ""), printed.err
        return [re.sub(PREFIX, "", line) for line in printed.err.splitlines()]

    return run_here


def milliseconds(lines: list[str], start: str) -> float:
    """The one figure of the line that begins with `start`."""
    (found,) = [line for line in lines if line.startswith(start)]
    return float(re.fullmatch(f"{re.escape(start)} ({NUMBER}) ms\\.", found).group(1))  # type: ignore[union-attr]


def per_layer(lines: list[str], direction: str) -> dict[str, float]:
    """The table's lines, as parsers of the original's output read them."""
    found = (re.fullmatch(rf" *(\S+)\t{direction}: ({NUMBER}) ms\.", line) for line in lines)
    return {match.group(1): float(match.group(2)) for match in found if match}


def test_the_table_has_the_originals_lines_in_their_order(caffe_time: CaffeTime, model: str) -> None:
    lines = caffe_time("-model", model, "-iterations", 3)
    begin = lines.index("*** Benchmark begins ***")
    end = lines.index("*** Benchmark ends ***")
    assert "Use CPU." in lines[:begin]
    at = lines.index("Performing Forward")
    assert lines[at:begin] == ["Performing Forward", "Initial loss: 1.60944", "Performing Backward"]
    table = [f"{name:>10}\t{way}: _ ms." for name in TRAIN_LAYERS for way in ("forward", "backward")]
    assert [re.sub(rf"{NUMBER} ms", "_ ms", line) for line in lines[begin : end + 1]] == [
        "*** Benchmark begins ***",
        "Testing for 3 iterations.",
        *(f"Iteration: {i} forward-backward time: _ ms." for i in (1, 2, 3)),
        "Average time per layer: ",
        *table,
        "Average Forward pass: _ ms.",
        "Average Backward pass: _ ms.",
        "Average Forward-Backward: _ ms.",
        "Total Time: _ ms.",
        "*** Benchmark ends ***",
    ]
    assert milliseconds(lines[end:], "Average compiled Forward pass (TEST):") > 0


def test_the_figures_add_up(caffe_time: CaffeTime, model: str) -> None:
    lines = caffe_time("--model", model, "--iterations", 4, "--engine", "torch")
    forward, backward = milliseconds(lines, "Average Forward pass:"), milliseconds(lines, "Average Backward pass:")
    both = milliseconds(lines, "Average Forward-Backward:")
    assert 0 < sum(per_layer(lines, "forward").values()) <= forward
    assert 0 < sum(per_layer(lines, "backward").values()) <= backward
    assert per_layer(lines, "backward")["conv"] > per_layer(lines, "backward")["data"]  # which has none
    assert both == pytest.approx(forward + backward, rel=1e-4)
    assert milliseconds(lines, "Total Time:") == pytest.approx(4 * both, rel=1e-4)
    iterations = [milliseconds(lines, f"Iteration: {i} forward-backward time:") for i in (1, 2, 3, 4)]
    assert sum(iterations) == pytest.approx(4 * both, rel=1e-4)
    assert not any("compiled" in line for line in lines)


def test_the_test_phase_has_the_layers_of_that_phase(caffe_time: CaffeTime, model: str) -> None:
    lines = caffe_time("--model", model, "--phase", "TEST", "--iterations", 1)
    assert list(per_layer(lines, "forward")) == [*TRAIN_LAYERS[:-1], "prob"]
    assert list(per_layer(lines, "backward")) == [*TRAIN_LAYERS[:-1], "prob"]


def test_onnxruntime_times_each_layer_and_the_whole_without_torch(model: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not installed')")
    words = ("--model", model, "--engine", "onnxruntime", "--iterations", 2)
    lines = [re.sub(PREFIX, "", line) for line in in_a_process(*words, PYTHONPATH=str(tmp_path)).splitlines()]
    assert list(per_layer(lines, "forward")) == [*TRAIN_LAYERS[:-1], "prob"]
    assert per_layer(lines, "backward") == {}
    assert milliseconds(lines, "Average compiled Forward pass (TEST):") > 0


def test_weights_are_used(caffe_time: CaffeTime, model: str, tmp_path: pathlib.Path) -> None:
    from pycaffe.net import TRAIN, Net

    net = Net(model, TRAIN)
    net.params["a_long_layer_name"][1].data[...] = [0, 0, 30, 0, 0]  # the label's class
    net.save(str(tmp_path / "w.caffemodel"))
    lines = caffe_time("--model", model, "--weights", tmp_path / "w.caffemodel", "--iterations", 1)
    (loss,) = [float(line.split()[-1]) for line in lines if line.startswith("Initial loss:")]
    assert loss < 1e-6


def test_stages_choose_layers(caffe_time: CaffeTime, model: str, tmp_path: pathlib.Path) -> None:
    staged = 'layer { name: "extra" type: "Silence" bottom: "conv" include { stage: "wide" } }'
    pathlib.Path(model).write_text(NET + staged)
    assert "extra" in per_layer(caffe_time("--model", model, "--iterations", 1, "--stage", "wide,x"), "forward")
    assert "extra" not in per_layer(caffe_time("--model", model, "--iterations", 1, "--stage", "x"), "forward")


def test_a_net_without_a_test_phase_says_so(caffe_time: CaffeTime, model: str) -> None:
    text = NET.replace('top: "data" top: "label"', 'top: "data" top: "label" include { phase: TRAIN }')
    pathlib.Path(model).write_text(text)
    lines = caffe_time("--model", model, "--iterations", 1)
    assert re.match(r"Average compiled Forward pass \(TEST\): not measured\. Unknown bottom blob 'data'", lines[-1])


def test_glog_minloglevel_silences(caffe_time: CaffeTime, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert caffe_time("--model", model, "--iterations", 1) == []


def test_what_cannot_be_carried_out(caffe_time: CaffeTime, model: str) -> None:
    assert "Could not open file nothing.prototxt" in caffe_time("--model", "nothing.prototxt", status=2)[-1]
    assert "Missing option" in caffe_time(status=2)[-1]
    assert "0 is not in the range" in caffe_time("--model", model, "--iterations", 0, status=2)[-1]
    lines = caffe_time("--model", model, "--gpu", 99, status=2)
    assert lines[-1].startswith("Error: Device 'cuda:99' is not there")


def test_lines_name_their_places_in_the_original(model: str) -> None:
    printed = in_a_process("-model", model, "-iterations", 1)
    places = dict(reversed(re.findall(r"(\S+:\d+)\] +(\S+ \S+ ?\S*)", printed, re.M)))
    assert places["caffe.cpp:343"] == "Use CPU."
    assert places["caffe.cpp:394"] == "Iteration: 1 forward-backward"
    assert places["caffe.cpp:415"] == "*** Benchmark ends"


def test_bfloat16_runs_on_openvino(caffe_time: CaffeTime, model: str) -> None:
    lines = caffe_time("--model", model, "--precision", "bfloat16", "--iterations", 1)
    assert list(per_layer(lines, "forward")) == [*TRAIN_LAYERS[:-1], "prob"]
    assert milliseconds(lines, "Average compiled Forward pass (TEST):") > 0
    refused = caffe_time("--model", model, "--precision", "bfloat16", "--engine", "torch", "--iterations", 1, status=2)
    assert "precision='bfloat16' runs on engine='openvino' alone" in refused[-1]
