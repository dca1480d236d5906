from __future__ import annotations

import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pycaffe.cli
from pycaffe import devices
from pycaffe.cli._training_log import read_training_log
from pycaffe.net import TEST, Net
from tests.net.nets import ip, layer
from tests.solvers.runs import full_disk

SOLVER = """
net: "%s" base_lr: 0.1 lr_policy: "step" stepsize: 4 gamma: 0.5 momentum: 0.9 max_iter: 6 random_seed: 3 display: 2
test_iter: 2 test_interval: 4 snapshot: 4 snapshot_prefix: "%s" average_loss: 2
"""


@pytest.fixture
def solver(tmp_path: pathlib.Path) -> pathlib.Path:
    import h5py

    generator = np.random.default_rng(4)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = generator.standard_normal((12, 5)).astype(np.float32)
        file["label"] = generator.integers(0, 3, 12).astype(np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    source = f'hdf5_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 4 }}'
    (tmp_path / "net.prototxt").write_text(
        'name: "little" ' + layer("data", "HDF5Data", "", "data label", source) + ip("fc", "data", 3)
        + layer("loss", "SoftmaxWithLoss", "fc label")
        + layer("accuracy", "Accuracy", "fc label", rest="include { phase: TEST }")
        + ip("wide", "data", 7, 'include { stage: "wide" min_level: 1 }')
    )  # fmt: skip
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER % (tmp_path / "net.prototxt", tmp_path / "run"))
    return path


def train(capsys: pytest.CaptureFixture[str], *words: Any, status: int = 0) -> str:
    """What `caffe train` writes to stderr."""
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["train", *map(str, words)])
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (status, ""), printed.err
    return printed.err


NUMBER = r"[-+.\de]+"
PREFIX = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ "


def test_the_originals_lines_in_their_order(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = train(capsys, "-solver", solver)
    run = solver.parent / "run"

    def testing(iteration: int) -> list[str]:
        outputs = [rf"Test net output #0: accuracy = {NUMBER}"]
        outputs += [rf"Test net output #1: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)"]
        return [
            rf"solver.cpp:347] Iteration {iteration}, Testing net \(#0\)",
            *(f"solver.cpp:414]     {o}" for o in outputs),
        ]

    def display(iteration: int, rate: float) -> list[str]:
        return [
            rf"solver.cpp:239] Iteration {iteration} \({NUMBER} iter/s, {NUMBER}s/2 iters\), loss = {NUMBER}",
            rf"solver.cpp:258]     Train net output #0: loss = {NUMBER} \(\* 1 = {NUMBER} loss\)",
            rf"sgd_solver.cpp:112] Iteration {iteration}, lr = {rate}",
        ]

    def snapshot(iteration: int) -> list[str]:
        return [
            rf"solver.cpp:464] Snapshotting to binary proto file {run}_iter_{iteration}.caffemodel",
            rf"sgd_solver.cpp:284] Snapshotting solver state to binary proto file {run}_iter_{iteration}.solverstate",
        ]

    expected = [
        "caffe.cpp:197] Use CPU.",
        "solver.cpp:45] Initializing solver from parameters: ",
        f"solver.cpp:102] Creating training net from net file: {solver.parent / 'net.prototxt'}",
        rf"solver.cpp:190] Creating test net \(#0\) specified by net file: {solver.parent / 'net.prototxt'}",
        "solver.cpp:57] Solver scaffolding done.",
        "caffe.cpp:239] Starting Optimization",
        "solver.cpp:289] Solving little",
        "solver.cpp:290] Learning Rate Policy: step",
        *testing(0), *display(0, 0.1), *display(2, 0.1), *snapshot(4), *testing(4), *display(4, 0.05), *snapshot(6),
        f"solver.cpp:327] Iteration 6, loss = {NUMBER}",
        "solver.cpp:332] Optimization Done.",
        "caffe.cpp:250] Optimization Done.",
    ]  # fmt: skip
    lines = [line for line in text.splitlines() if re.match(PREFIX, line)]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(PREFIX + pattern.replace("]", r"\]", 1), line), line


def test_what_the_originals_scripts_look_for(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The facts of parse_log.py, extract_seconds.py and parse_log.sh."""
    lines = train(capsys, "--solver", solver).splitlines()
    start = next(i for i, line in enumerate(lines) if "Solving" in line)
    timed = [line.split() for line in lines if "Iteration" in line or "Solving" in line]
    assert all(
        re.fullmatch(r"I\d{4}", words[0]) and re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6}", words[1]) for words in timed
    )
    assert not any("Iteration" in line for line in lines[:start])
    rates = [line.split() for line in lines if ", lr = " in line]
    assert [words[8] for words in rates] == ["0.1", "0.1", "0.05"]  # awk '{print $9}'
    accuracy = [line.split() for line in lines if "Test net output #0" in line]
    assert all(0 <= float(words[10]) <= 1 for words in accuracy)  # awk '{print $11}'
    outputs = [re.search(r"Train net output #(\d+): (\S+) = ([\.\deE+-]+)", line) for line in lines]
    assert sum(match is not None for match in outputs) == 3


def weights_of(path: pathlib.Path, solver: pathlib.Path) -> np.ndarray:
    return Net(str(solver.parent / "net.prototxt"), TEST, weights=str(path)).params["fc"][0].data.copy()


def test_finetuning_begins_with_the_weights(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = solver.parent
    for value, name in ((7, "a"), (9, "b")):
        net = Net(str(folder / "net.prototxt"), TEST)
        net.params["fc"][0].data[...] = value
        net.save(str(folder / f"{name}.caffemodel"))
    text = solver.read_text().replace("base_lr: 0.1", "base_lr: 0") + 'weights: "none.caffemodel"'
    solver.write_text(text)
    printed = train(capsys, "--solver", solver, "--weights", f"{folder / 'a.caffemodel'},{folder / 'b.caffemodel'}")
    assert f"Finetuning from {folder / 'a.caffemodel'}" in printed
    assert (weights_of(folder / "run_iter_6.caffemodel", solver) == 9).all()


def test_a_snapshot_goes_on_bit_for_bit(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(capsys, "--solver", solver)
    last = solver.parent / "run_iter_6.caffemodel"
    expected = weights_of(last, solver)
    last.unlink()
    printed = train(capsys, "--solver", solver, "--snapshot", solver.parent / "run_iter_4.solverstate")
    assert f"caffe.cpp:235] Resuming from {solver.parent / 'run_iter_4.solverstate'}" in printed
    assert "Iteration 4 (" in printed
    assert "Iteration 2 (" not in printed
    np.testing.assert_array_equal(weights_of(last, solver), expected)


def test_nan_is_told_once(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = solver.read_text().replace("base_lr: 0.1", "base_lr: 1e38")
    solver.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the log says it; a second time it would be a warning with a line of our source
        printed = train(capsys, "--solver", solver)
    assert len(re.findall(r"^E.* The loss is (?:nan|inf) at iteration \d\. It began", printed, re.MULTILINE)) == 1


def test_level_and_stage_are_the_training_nets(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Train net output #1: wide" not in train(capsys, "--solver", solver)
    printed = train(capsys, "--solver", solver, "--level", 1, "--stage", "wide,x")
    assert "Train net output #1: wide" in printed
    assert "Test net output #2: wide" not in printed


def test_what_cannot_be_carried_out(solver: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = train(capsys, "--solver", solver, "--weights", "w", "--snapshot", "s", status=2)
    assert "Give a snapshot to resume training or weights to finetune but not both." in printed
    assert "Missing option '--solver'" in train(capsys, status=2)
    assert "none.prototxt" in train(capsys, "--solver", "none.prototxt", status=2)
    assert "none.solverstate" in train(capsys, "--solver", solver, "--snapshot", "none.solverstate", status=2)
    assert "'halt' is not one of 'stop', 'snapshot', 'none'" in train(
        capsys, "--solver", solver, "--sigint_effect", "halt", status=2
    )
    assert "Device 'cuda:99' is not there" in train(capsys, "--solver", solver, "--gpu", "99", status=2)
    for words in (["--mode", "async"], ["--servers", "2"], ["--compression", "fp16"]):
        printed = train(capsys, "--solver", solver, *words, status=2)
        assert f"{words[0]} is for training on a cluster: give --workers, too." in printed
    assert "give --devices gpu" in train(capsys, "--solver", solver, "--workers", "2", "--gpu", "0", status=2)
    printed = train(capsys, "--solver", solver, "--workers", "2", "--mode", "ssp", status=1)
    assert "Mode 'ssp' needs staleness" in printed


def test_a_gpu_of_the_prototxt_that_is_missing_is_the_cpu(
    solver: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    monkeypatch.setattr(devices, "_warned", False)
    solver.write_text(solver.read_text() + "solver_mode: GPU device_id: 1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the log says it, as a line of its own
        printed = train(capsys, "--solver", solver)
    assert re.findall(r"^(.).* _caffe_cpp.py:\d+\] (.*GPU.*)\n.* Use CPU\.", printed, re.MULTILINE) == [
        ("W", "solver_mode: GPU: GPU 1 is not there (0 found); running on the CPU.")
    ]
    assert printed.count("is not there") == 1


def events(folder: pathlib.Path) -> Iterator[Any]:
    """The events of a folder: records of a length, its checksum, the message and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_shows_what_the_log_says(
    solver: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.log").write_text(train(capsys, "--solver", solver, "--tensorboard", tmp_path / "events"))
    found: dict[str, dict[int, float]] = {}
    for event in events(tmp_path / "events"):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    series = read_training_log(tmp_path / "run.log").series
    assert set(found) == {"loss", "lr", "iterations/s", "train/loss", "test/accuracy", "test/loss"}
    for name, points in series.items():
        assert found[name] == pytest.approx({i: point.value for i, point in points.items()})
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    assert 'pip install "pycaffe[tensorboard]"' in train(
        capsys, "--solver", solver, "--tensorboard", tmp_path / "no", status=2
    )


def test_tensorboard_hides_what_a_resumed_run_does_again(
    solver: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    words = ("--solver", solver, "--tensorboard", tmp_path / "events")
    assert train(capsys, *words) == ""
    (first,) = (tmp_path / "events").iterdir()
    os.replace(first, tmp_path / "first")  # both are named after the second
    train(capsys, *words, "--snapshot", tmp_path / "run_iter_4.solverstate")
    found = list(events(tmp_path / "events"))
    assert [event.step for event in found if event.HasField("session_log")] == [4]
    assert {event.step for event in found if event.HasField("summary")} == {4, 6}


@pytest.mark.parametrize("seconds", [0.0, 1000.0], ids=["while it trains", "at the end"])
def test_tensorboard_without_room_costs_its_files_and_not_the_training(
    solver: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    monkeypatch.setattr("pycaffe.cli._tensorboard.FLUSH_SECONDS", seconds)
    solver.write_text(solver.read_text().replace("snapshot: 4", "snapshot_after_train: false"))
    with full_disk(150):
        printed = train(capsys, "--solver", solver, "--tensorboard", tmp_path / "events")
    assert printed.count("Could not write the event files for TensorBoard") == 1
    assert "File too large. Training goes on without them." in printed
    assert "Optimization Done." in printed


@pytest.fixture
def endless(solver: pathlib.Path) -> pathlib.Path:
    text = (
        solver.read_text().replace("max_iter: 6", "max_iter: 1000000").replace("test_interval: 4", "test_interval: 999")
    )
    solver.write_text(text.replace("snapshot: 4", "snapshot: 0").replace("display: 2", "display: 100"))
    return solver


def start(solver: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    """A run that has begun to train."""
    running = subprocess.Popen(
        [sys.executable, "-m", "pycaffe", "train", "--solver", str(solver), *words],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    read_until(running, "Iteration 100 ")
    return running


def read_until(running: subprocess.Popen[str], text: str) -> None:
    assert running.stderr is not None
    for line in running.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} never came")


def test_sigint_stops_and_leaves_a_snapshot(endless: pathlib.Path) -> None:
    running = start(endless)
    running.send_signal(signal.SIGINT)
    _, printed = running.communicate(timeout=60)
    assert running.returncode == 0, printed
    assert "solver.cpp:311] Optimization stopped early." in printed
    (state,) = endless.parent.glob("run_iter_*.solverstate")
    assert f"Snapshotting solver state to binary proto file {state}" in printed


def test_sighup_takes_a_snapshot_and_training_goes_on(endless: pathlib.Path) -> None:
    running = start(endless)
    running.send_signal(signal.SIGHUP)
    read_until(running, "Snapshotting solver state to binary proto file")
    read_until(running, "Iteration ")
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 0


def test_the_effects_of_signals_can_be_chosen(endless: pathlib.Path) -> None:
    running = start(endless, "-sigint_effect=none", "--sighup_effect", "stop")
    running.send_signal(signal.SIGINT)
    read_until(running, "Iteration ")
    running.send_signal(signal.SIGHUP)
    _, printed = running.communicate(timeout=60)
    assert running.returncode == 0, printed
    assert printed.count("Optimization stopped early.") == 1
