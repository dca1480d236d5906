"""LeNet from the weights that a run of reference Caffe began with, on databases of our own writer."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import caffe

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mnist"


@pytest.fixture
def lenet(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> caffe.SGDSolver:
    """The solver; its prototxts look for the databases in the working directory."""
    made = subprocess.run([sys.executable, str(ROOT / "scripts" / "make_mnist")], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    for database in pathlib.Path(made.stdout.strip()).iterdir():
        (tmp_path / database.name).symlink_to(database, target_is_directory=True)
    for prototxt in GOLDEN.glob("*.prototxt"):
        shutil.copy(prototxt, tmp_path)
    monkeypatch.chdir(tmp_path)
    solver = caffe.SGDSolver("lenet_solver.prototxt")
    solver.net.copy_from(str(GOLDEN / "lenet_start.caffemodel"))
    return solver


def test_losses_are_those_of_the_original(lenet: caffe.SGDSolver) -> None:
    losses = []
    for _ in range(20):
        lenet.step(1)
        losses.append(float(lenet.net.blobs["loss"].data))
    with np.load(GOLDEN / "lenet_mnist_run.npz") as answers:
        np.testing.assert_allclose(losses, answers["loss"][:20], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_accuracy_after_1000_iterations(lenet: caffe.SGDSolver) -> None:
    lenet.step(1000)
    (test_net,) = lenet.test_nets
    test_net.share_with(lenet.net)
    accuracies = [float(test_net.forward()["accuracy"]) for _ in range(100)]
    assert len(set(accuracies)) > 5  # other digits each time
    assert 0.98 <= np.mean(accuracies) < 0.99
