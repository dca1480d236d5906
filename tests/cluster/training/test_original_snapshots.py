"""A cluster goes on from snapshots that reference Caffe wrote, as the original itself went on."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

from tests.cluster.training.in_process import train_here
from tests.solvers.test_golden import GOLDEN, SNAPSHOTS, assert_close


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_cluster_goes_on_as_the_original_did(
    name: str, workers: int, servers: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From iteration 5 to 9; the workers' batches joined are the original's 3 records."""
    shutil.copytree(GOLDEN / "data/snapshots", tmp_path / "snapshots")
    shutil.copy(GOLDEN / "data/a.h5", tmp_path)
    monkeypatch.chdir(tmp_path / "snapshots")
    net = pathlib.Path("net.prototxt")
    net.write_text(net.read_text().replace("batch_size: 3", f"batch_size: {3 // workers}"))
    solver = pathlib.Path(f"{name}.prototxt")
    solver.write_text(solver.read_text().replace("max_iter: 100", "max_iter: 9"))
    state = f"{name}_iter_5.solverstate" + (".h5" if "hdf5" in name else "")
    run = train_here(str(solver), workers, servers, snapshot=state)
    answers = np.load(f"{name}.npz")
    for step in range(6, 10):
        losses = [report.loss for report in run.reports if report.iteration == step]
        assert len(losses) == workers
        assert_close(np.mean(losses), answers[f"loss{step}"])
    for layer, arrays in run.params.items():
        for index, array in enumerate(arrays):
            assert_close(array, answers[f"step9/{layer}/{index}"])
