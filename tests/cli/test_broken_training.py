"""`caffe train` on what is broken: the error says where, the exit status whether it ever ran, and nothing is lost."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from pycaffe.data import write_database
from pycaffe.proto import schema
from tests.cli.case import write_png
from tests.cli.test_train import train
from tests.net.nets import ip, layer
from tests.solvers.runs import full_disk

COUNT, BATCH, CLASSES = 24, 4, 3
BAD = 14  # in the fourth batch
LABELS = np.arange(COUNT) % CLASSES
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 6 snapshot: 2 snapshot_prefix: "run"
random_seed: 1
"""


def write_net(data: str, param: str, transform: str = "") -> None:
    """net.prototxt, which classifies, and solver.prototxt, which trains it for one epoch."""
    rest = f"transform_param {{ scale: 0.01 {transform} }} {param}"
    net = layer("data", data, "", "data label", rest) + ip("fc", "data", CLASSES)
    pathlib.Path("net.prototxt").write_text(net + layer("loss", "SoftmaxWithLoss", "fc label"))
    pathlib.Path("solver.prototxt").write_text(SOLVER)


def write_lmdb(labels: np.ndarray = LABELS, transform: str = "") -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (COUNT, 3, 6, 5), np.uint8)
    write_database("db", pixels, labels)
    write_net("Data", f'data_param {{ source: "db" backend: LMDB batch_size: {BATCH} }}', transform)


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshots() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in pathlib.Path().glob("run_iter_*")}


def files(*iterations: int) -> set[str]:
    endings = ("caffemodel", "solverstate", "solverstate.resume.json")
    return {f"run_iter_{iteration}.{ending}" for iteration in iterations for ending in endings}


def test_a_mean_file_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb(transform='mean_file: "none.binaryproto"')
    printed = train(capsys, "--solver", "solver.prototxt", status=2)
    assert "Error: File not found: none.binaryproto. No such file" in printed
    assert "In net.prototxt:1, layer 'data'." in printed
    assert snapshots() == {}


def test_a_mean_file_of_another_shape(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean = schema.BlobProto(num=1, channels=3, height=7, width=7, data=[1.0] * 147)
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    write_lmdb(transform='mean_file: "mean.binaryproto"')
    printed = train(capsys, "--solver", "solver.prototxt", status=1)
    assert (
        "Error: Check failed: datum shape == data_mean_ shape. Each image of 'db' has the shape (3, 6, 5), the mean "
        "'mean.binaryproto' has (3, 7, 7). In net.prototxt:1, layer 'data'.\n"
    ) in printed


def test_a_database_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb()
    os.unlink("db/data.mdb")
    os.mkdir("db/data.mdb")
    printed = train(capsys, "--solver", "solver.prototxt", status=2)
    assert "Error: Could not open the LMDB 'db'" in printed
    assert "Is a directory. In net.prototxt:1, layer 'data'." in printed


def test_a_database_that_may_not_be_read(folder: pathlib.Path) -> None:
    """Root may read everything, so it becomes nobody in a process of its own."""
    write_lmdb()
    os.chmod("db/data.mdb", 0)
    script = """
import os, sys
import lmdb, torch
import pycaffe.cli, pycaffe.cli._training_run, pycaffe.solvers
if os.geteuid() == 0:
    os.seteuid(65534)
pycaffe.cli.main(["train", "--solver", "solver.prototxt"])
"""
    for parent in (folder, *folder.parents):
        if parent == pathlib.Path(tempfile.gettempdir()):
            break
        os.chmod(parent, 0o755)
    pathlib.Path("solver.prototxt").write_text(SOLVER.replace("snapshot: 2", "snapshot: 0"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "Error: Could not open the LMDB 'db'" in done.stderr
    assert "Permission denied" in done.stderr
    assert "In net.prototxt:1, layer 'data'." in done.stderr


def test_a_label_out_of_range_costs_its_batch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    labels = LABELS.copy()
    labels[BAD] = 7
    write_lmdb(labels)
    printed = train(capsys, "--solver", "solver.prototxt", status=1)
    assert "Error: Check failed: label_value < num_labels (7 vs. 3). Label 7 is out of range" in printed
    assert printed.endswith(
        "In net.prototxt:7, layer 'loss'. What was learned in 3 iterations is saved: go on with --snapshot "
        "run_iter_3.solverstate\n"
    )
    assert set(snapshots()) == files(2, 3)
    printed = train(capsys, "--solver", "solver.prototxt", "--snapshot", "run_iter_3.solverstate")
    assert set(snapshots()) == files(2, 3, 4, 6)


def test_a_listed_image_that_is_missing_costs_its_batch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{write_png(pathlib.Path(f'{i}.png'), (9 * i, 200, 7))} {label}" for i, label in enumerate(LABELS)]
    pathlib.Path("list.txt").write_text("\n".join(lines) + "\n")
    os.unlink(f"{BAD}.png")
    write_net("ImageData", f'image_data_param {{ source: "list.txt" batch_size: {BATCH} }}')
    printed = train(capsys, "--solver", "solver.prototxt", status=1)
    assert "Error: Could not load 14.png. It is listed in 'list.txt'." in printed
    assert "No such file or directory. In net.prototxt:1, layer 'data'. What was learned in 3 iterations" in printed
    train(capsys, "--solver", "solver.prototxt", "--snapshot", "run_iter_3.solverstate")
    assert set(snapshots()) == files(2, 3, 4, 6)


def test_where_the_last_snapshot_is_of_that_iteration_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    labels = LABELS.copy()
    labels[4 * BATCH] = 7  # the first of the fifth batch
    write_lmdb(labels)
    printed = train(capsys, "--solver", "solver.prototxt", status=1)
    assert "learned in 4 iterations is saved: go on with --snapshot run_iter_4.solverstate\n" in printed
    assert printed.count("Snapshotting solver state") == 2
    pathlib.Path("solver.prototxt").write_text(SOLVER.replace("snapshot: 2", "snapshot_after_train: false"))
    printed = train(capsys, "--solver", "solver.prototxt", status=1)
    assert "saved" not in printed
    assert "Snapshotting" not in printed


@pytest.mark.parametrize("prototxt_format", ["BINARYPROTO", "HDF5"])
def test_a_full_disk_leaves_the_last_snapshot(prototxt_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb()
    pathlib.Path("solver.prototxt").write_text(f"{SOLVER} snapshot_format: {prototxt_format}")
    train(capsys, "--solver", "solver.prototxt")
    want, suffix = snapshots(), ".h5" if prototxt_format == "HDF5" else ""
    for path in want:
        if "iter_2" not in path:
            os.unlink(path)
    state = f"run_iter_2.solverstate{suffix}"
    before = snapshots()
    with full_disk(300):
        printed = train(capsys, "--solver", "solver.prototxt", "--snapshot", state, status=1)
    assert "Error: Couldn't write the snapshot of iteration 4: " in printed
    assert "File too large" in printed
    assert "Earlier snapshots are as they were" in printed
    assert snapshots() == before
    assert list(pathlib.Path().glob(".run*")) == []
    train(capsys, "--solver", "solver.prototxt", "--snapshot", state)
    assert snapshots() == want  # the same bytes as those of the undisturbed run


def test_snapshots_that_can_be_written_nowhere_are_found_out_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    write_lmdb()
    for text in (SOLVER, SOLVER.replace("snapshot: 2", "")):
        pathlib.Path("solver.prototxt").write_text(text.replace('"run"', '"none/run"'))
        assert "Cannot write to snapshot prefix 'none/run'" in train(capsys, "--solver", "solver.prototxt", status=2)


def test_an_error_of_a_users_layer_saves_too(
    capsys: pytest.CaptureFixture[str], folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lmdb()
    (folder / "third_time.py").write_text(
        "import caffe\nclass Fails(caffe.Layer):\n    times = 0\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(1)\n"
        "    def forward(self, bottom, top):\n"
        "        Fails.times += 1\n"
        "        if Fails.times == 4: raise ZeroDivisionError('the fourth')\n"
    )
    monkeypatch.syspath_prepend(folder)
    net = pathlib.Path("net.prototxt")
    param = 'python_param { module: "third_time" layer: "Fails" }'
    net.write_text(net.read_text() + layer("user", "Python", "label", rest=param))
    with pytest.raises(ZeroDivisionError):
        train(capsys, "--solver", "solver.prototxt")
    assert "go on with --snapshot run_iter_3.solverstate" in capsys.readouterr().err
    assert set(snapshots()) == files(2, 3)
