"""Training by all-reduce on Ray Train, with real workers and real deaths."""

from __future__ import annotations

import logging
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest

from pycaffe.cluster.connection import Connection
from pycaffe.cluster.training.allreduce import _trainer, train_allreduce
from pycaffe.cluster.training.allreduce_worker import AllReduceJob
from pycaffe.cluster.training.control import RunControl
from pycaffe.cluster.training.resources import Resources
from pycaffe.cluster.training.run import Run
from pycaffe.errors import ClusterError, DataError, InputError
from pycaffe.solvers import get_solver
from tests.net.nets import ip, layer

RECORDS, STEPS = 24, 240
SOLVER = """
net: "%s" base_lr: 0.02 lr_policy: "step" stepsize: 50 gamma: 0.5 momentum: 0.9 weight_decay: 0.01 max_iter: %d
random_seed: 3 display: 40 snapshot: 60 snapshot_prefix: "%s" %s
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    import h5py

    generator = np.random.default_rng(4)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = generator.standard_normal((RECORDS, 5)).astype(np.float32)
        file["label"] = generator.integers(0, 3, RECORDS).astype(np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    return tmp_path


def write_solver(folder: pathlib.Path, batch: int, prefix: str, more: str = "", steps: int = STEPS) -> str:
    net = folder / f"net{batch}.prototxt"
    net.write_text(
        layer("data", "HDF5Data", "", "data label",
              f'hdf5_data_param {{ source: "{folder / "list.txt"}" batch_size: {batch} }}')
        + ip("hidden", "data", 4) + layer("tanh", "TanH", "hidden", "hidden") + ip("fc", "hidden", 3)
        + layer("loss", "SoftmaxWithLoss", "fc label")
    )  # fmt: skip
    path = folder / f"{prefix}.prototxt"
    path.write_text(SOLVER % (net, steps, folder / prefix, more))
    return str(path)


def alone(solver: str, snapshot: str | None = None) -> dict[str, Any]:
    """The parameters after one process has trained."""
    one = get_solver(solver)
    one.solve(snapshot)
    return {f"{name}{i}": blob.data.copy() for name, blobs in one.net.params.items() for i, blob in enumerate(blobs)}


def values_of(params: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}{i}": array for name, arrays in params.items() for i, array in enumerate(arrays)}


def assert_same(found: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)


def check_trace(run: Run) -> None:
    """Of 240 steps with a death on the way: those of each attempt in order, and the bytes of all that are in it."""
    attempts = [[event for event in run.trace if event.generation == generation] for generation in range(2)]
    assert sum(map(len, attempts)) == len(run.trace)
    assert {(event.kind, event.worker, event.batches) for event in run.trace} == {("reduce", 0, ())}
    for events in attempts:
        assert [event.clock for event in events] == list(range(len(events)))
    resumed = STEPS - len(attempts[1])  # at the last snapshot of the first attempt
    assert 60 <= resumed <= len(attempts[0])
    assert resumed % 60 == 0
    assert [event.time for event in run.trace] == sorted(event.time for event in run.trace)
    parameters = sum(array.nbytes for arrays in run.params.values() for array in arrays)
    assert run.bytes_pushed == run.bytes_pulled == 2 * parameters * len(run.trace)


def children_with(name: str) -> list[int]:
    """The processes of Ray Train's workers."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if name.encode() in title:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_two_workers_are_one_process_and_survive_a_death(
    local_ray: Connection, folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(write_solver(folder, 8, "one"))
    solver = write_solver(folder, 4, "two")
    killed: list[int] = []

    def kill_one(iteration: int, loss: float) -> None:
        if iteration >= 70 and not killed:
            killed.append(min(children_with("RayTrainWorker")))
            os.kill(killed[0], signal.SIGKILL)

    with caplog.at_level(logging.INFO, "pycaffe"):
        run = train_allreduce(solver, workers=2, on_progress=kill_one)
    assert killed
    assert run.iter == STEPS
    assert run.restarts == 1
    assert len(run.losses) == STEPS
    assert_same(values_of(run.params), expected)
    check_trace(run)
    assert [os.path.basename(path) for path in run.snapshots][-1] == "two_iter_240.solverstate"
    lines = [record.getMessage() for record in caplog.records if record.name == "pycaffe.solver"]
    assert any(line.startswith("Iteration 80 (") and ", loss = " in line for line in lines)
    assert lines[-1] == "Optimization Done."
    # In one process with the joined batch, on from the third snapshot.
    snapshot = str(folder / "two_iter_180.solverstate")
    assert_same(alone(write_solver(folder, 8, "resumed"), snapshot), expected)


@pytest.mark.slow
def test_what_the_training_raises_ends_it(local_ray: Connection, folder: pathlib.Path) -> None:
    solver = write_solver(folder, 4, "missing")
    (folder / "list.txt").write_text(f"{folder / 'absent.h5'}\n")
    with pytest.raises(DataError, match=r"absent\.h5"):
        train_allreduce(solver, workers=1)


@pytest.mark.slow
def test_a_run_stops_with_a_snapshot_when_asked(
    local_ray: Connection, folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = write_solver(folder, 4, "stopped", "solver_mode: GPU", steps=10**6)
    control = RunControl()
    with caplog.at_level(logging.WARNING, "pycaffe.cluster"):
        run = train_allreduce(solver, workers=1, on_progress=lambda *done: control.stop(), control=control)
    assert "1 workers need as many GPUs; Ray knows of 0 in this cluster. They run on CPUs." in caplog.text
    assert 0 < run.iter < 10**6
    assert run.snapshots[-1].endswith(f"stopped_iter_{run.iter}.solverstate")


@pytest.mark.parametrize("workers", [0, (0, 2), (3, 2)])
def test_workers_out_of_range(folder: pathlib.Path, workers: Any) -> None:
    with pytest.raises(InputError, match="workers must be at least 1"):
        train_allreduce(write_solver(folder, 4, "none"), workers=workers)


def test_gpus_that_are_asked_for_outright_and_not_there(local_ray: Connection, folder: pathlib.Path) -> None:
    with pytest.raises(ClusterError, match="2 workers need as many GPUs; Ray knows of 0"):
        train_allreduce(write_solver(folder, 4, "none"), workers=2, devices="gpu")


def test_a_worker_takes_its_share_of_the_cpus(tmp_path: pathlib.Path) -> None:
    """One CPU for each would be waited for for ever where there are fewer."""
    job = AllReduceJob(b"", "", False, None)
    scaling = _trainer(job, 3, Resources(0.66, 0.0, 1), str(tmp_path), 0).scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker) == (3, {"CPU": 0.66})


def test_snapshot_and_weights(folder: pathlib.Path) -> None:
    with pytest.raises(InputError, match="but not both"):
        train_allreduce(write_solver(folder, 4, "both"), workers=1, weights="a.caffemodel", snapshot="a.solverstate")
