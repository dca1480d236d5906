"""Several solvers as processes on gloo. Each run does what the original's train.py does."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pycaffe import parallel
from pycaffe.errors import InputError, SolverError
from pycaffe.solvers import Action, SGDSolver, data_parallel
from pycaffe.solvers.data_parallel import NCCL, AgreedAction
from tests.net.nets import ip, layer

# Each run is forked from one process: importing torch takes longer than all the rest.
SCRIPT = """
import os
import sys
from multiprocessing import Process
import numpy as np
import sympy  # by torch's first gradient, which would take half a second for it
import torch
import caffe
from pycaffe.solvers import Action
from pycaffe.solvers.data_parallel import AgreedAction, SavedPlaces

def solve(solver_file, uid, rank, count, out, options):
    caffe.set_device(rank)
    caffe.set_mode_gpu()
    caffe.set_solver_count(count)
    caffe.set_solver_rank(rank)
    caffe.set_multiprocess(True)
    solver = caffe.SGDSolver(solver_file)
    nccl = caffe.NCCL(solver, uid)
    if "differ" in options:
        for blobs in solver.net.params.values():
            for blob in blobs:
                blob.data[...] += rank
    nccl.bcast()
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    if "stop" in options:
        asked = lambda: Action.STOP if rank == 0 and solver.iter == 2 else Action.NONE
        agreed = AgreedAction(nccl, asked)
        solver.add_callback(agreed)
        solver.set_action_function(agreed)
    if "places" in options:
        agreed = AgreedAction(nccl, lambda: Action.NONE)
        solver.add_callback(agreed)
        solver.add_callback(SavedPlaces(nccl, solver, agreed))
    for option in options:
        if option.endswith(".solverstate"):
            solver.restore(option)
    if "die" in options and rank == 1:
        solver.add_callback(lambda: exit(7) if solver.iter == 1 else None, lambda: None)
    solver.step(solver.param.max_iter - solver.iter)
    values = {f"{name}{i}": blob.data for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}
    np.savez(f"{out}.{rank}", iter=solver.iter, **values)

def train(solver_file, count, out, *options):
    uid = caffe.NCCL.new_uid()
    processes = [Process(target=solve, args=(solver_file, uid, rank, int(count), out, options), daemon=True)
                 for rank in range(int(count))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(process.exitcode for process in processes))

if __name__ == "__main__":
    while folder := sys.stdin.readline().rstrip():
        words = sys.stdin.readline().split()
        child = os.fork()
        if child == 0:
            os.environ["TMPDIR"] = folder + "/temporary"
            os.dup2(os.open(folder + "/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            train(*words)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SOLVER = """
net: "%s" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 5 random_seed: 3
snapshot_prefix: "%s" snapshot_after_train: false %s
"""
RECORDS = 24


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    import h5py

    generator = np.random.default_rng(4)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = generator.standard_normal((RECORDS, 5)).astype(np.float32)
        file["label"] = generator.integers(0, 3, RECORDS).astype(np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    (tmp_path / "temporary").mkdir()
    return tmp_path


def write_solver(folder: pathlib.Path, batch: int, more: str = "", net: str = "") -> pathlib.Path:
    (folder / "net.prototxt").write_text(
        layer("data", "HDF5Data", "", "data label",
              f'hdf5_data_param {{ source: "{folder / "list.txt"}" batch_size: {batch} }}')
        + ip("hidden", "data", 4) + layer("tanh", "TanH", "hidden", "hidden") + ip("fc", "hidden", 3)
        + layer("loss", "SoftmaxWithLoss", "fc label") + net
    )  # fmt: skip
    path = folder / "solver.prototxt"
    path.write_text(SOLVER % (folder / "net.prototxt", folder / "run", more))
    return path


Run = Callable[..., "list[dict[str, Any]]"]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path_factory.mktemp("trainer") / "script.py"
    script.write_text(SCRIPT)
    words = [sys.executable, "-W", "ignore", str(script)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def run(trainer: subprocess.Popen[str], folder: pathlib.Path) -> Run:
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    pipes = trainer.stdin, trainer.stdout

    def run_of(solver: pathlib.Path, count: int, *options: str, status: int = 0) -> list[dict[str, Any]]:
        """The parameters of each rank after the run, and its iteration."""
        pipes[0].write(f"{folder}\n{solver} {count} {folder / 'out'} {' '.join(options)}\n")
        pipes[0].flush()
        ended = pipes[1].readline()
        printed = (folder / "stderr").read_text()
        assert ended == f"{status}\n", printed
        if status:
            return [{"stderr": printed}]
        assert list((folder / "temporary").glob("pycaffe*")) == []
        return [dict(np.load(folder / f"out.{rank}.npz")) for rank in range(count)]

    return run_of


def assert_same(found: dict[str, Any], expected: dict[str, Any], **tolerance: float) -> None:
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **tolerance)


@pytest.mark.parametrize("more", ["", "layer_wise_reduce: false", "iter_size: 2", "iter_size: 2 clip_gradients: 0.05"])
def test_two_solvers_are_one_with_the_joined_batch(run: Run, folder: pathlib.Path, more: str) -> None:
    (expected,) = run(write_solver(folder, 8, more), 1)
    first, second = run(write_solver(folder, 4, more), 2)
    assert expected["iter"] == 5
    assert_same(first, second, rtol=0, atol=0)
    assert_same(first, expected, rtol=1e-5, atol=1e-7)


def test_all_begin_with_the_parameters_of_rank_0(run: Run, folder: pathlib.Path) -> None:
    solver = write_solver(folder, 4)
    plain, _ = run(solver, 2)
    first, second = run(solver, 2, "differ")
    assert_same(first, plain, rtol=0, atol=0)
    assert_same(second, plain, rtol=0, atol=0)


def test_all_stop_after_the_same_iteration(run: Run, folder: pathlib.Path) -> None:
    first, second = run(write_solver(folder, 4), 2, "stop")
    assert (first["iter"], second["iter"]) == (3, 3)
    assert_same(first, second, rtol=0, atol=0)


def test_all_go_on_where_each_was_in_its_data(run: Run, folder: pathlib.Path) -> None:
    whole, _ = run(write_solver(folder, 4, "snapshot: 4"), 2, "places")
    snapshot = str(folder / "run_iter_4.solverstate")
    resumed, _ = run(write_solver(folder, 4), 2, snapshot)
    assert resumed["iter"] == 5
    assert_same(resumed, whole, rtol=0, atol=0)
    alone = SGDSolver(str(write_solver(folder, 8)))
    alone.restore(snapshot)
    alone.step(1)
    found = {f"{name}{i}": blob.data for name, blobs in alone.net.params.items() for i, blob in enumerate(blobs)}
    assert_same({"iter": alone.iter, **found}, whole, rtol=1e-5, atol=1e-7)


def test_a_solver_that_is_gone(run: Run, folder: pathlib.Path) -> None:
    (died,) = run(write_solver(folder, 4), 2, "die", status=7)
    assert "SolversLost: Solver 0 of 2 lost the others: one of them has probably ended." in died["stderr"]


def test_shared_parameters_travel_together_or_not_at_all(run: Run, folder: pathlib.Path) -> None:
    shared = ip("again", "hidden", 3, 'param { name: "w" } param { name: "b" }') + ip(
        "more", "hidden", 3, 'param { name: "w" } param { name: "b" }'
    )
    losses = layer("l1", "SoftmaxWithLoss", "again label") + layer("l2", "SoftmaxWithLoss", "more label")
    (failed,) = run(write_solver(folder, 4, net=shared + losses), 2, status=1)
    assert "Layer-wise reduce is not supported for nets with shared weights." in failed["stderr"]
    more = "layer_wise_reduce: false"
    (expected,) = run(write_solver(folder, 8, more, net=shared + losses), 1)
    first, _ = run(write_solver(folder, 4, more, net=shared + losses), 2)
    assert_same(first, expected, rtol=1e-5, atol=1e-7)


# -- in this process


@pytest.fixture
def alone(folder: pathlib.Path) -> Any:
    yield SGDSolver(str(write_solver(folder, 4)))
    parallel.set_solver_count(1)
    parallel.set_solver_rank(0)
    parallel.set_multiprocess(False)


def test_one_solver_has_nobody_to_ask(alone: SGDSolver, folder: pathlib.Path) -> None:
    expected = SGDSolver(str(folder / "solver.prototxt"))
    nccl = NCCL(alone, NCCL.new_uid())
    nccl.bcast()
    alone.add_callback(nccl)
    alone.net.after_backward(nccl)
    for name, blobs in alone.net.params.items():
        for blob, other in zip(blobs, expected.net.params[name]):
            blob.data[...] = other.data
    alone.step(3)
    expected.step(3)
    for name, blobs in alone.net.params.items():
        np.testing.assert_array_equal(blobs[0].data, expected.net.params[name][0].data)
    assert parallel.multiprocess()
    assert "torch.distributed.distributed_c10d" not in sys.modules or not nccl_group_exists()
    nccl.close()


def nccl_group_exists() -> bool:
    import torch

    return bool(torch.distributed.is_initialized())


def test_an_action_of_one_solver_counts_once(alone: SGDSolver) -> None:
    asked = [Action.SNAPSHOT, Action.STOP]
    agreed = AgreedAction(NCCL(alone, NCCL.new_uid()), lambda: asked.pop(0))
    heard = []
    for _ in range(2):
        agreed.on_start()
        agreed.on_gradients_ready()
        heard += [agreed(), agreed()]
    assert heard == [Action.SNAPSHOT, Action.NONE, Action.STOP, Action.NONE]


def test_uids() -> None:
    first, second = NCCL.new_uid(), NCCL.new_uid("/elsewhere")
    assert isinstance(first, bytes)
    assert re.fullmatch(rb"/elsewhere/pycaffe-nccl-[0-9a-f]{32}", second)
    assert not pathlib.Path(first.decode()).exists()


def test_what_cannot_be_joined(alone: SGDSolver) -> None:
    parallel.set_solver_count(2)
    with pytest.raises(InputError, match="'none' is no uid"):
        NCCL(alone, "none")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"solver 0 of 2, and its group of torch.distributed is None"):
        NCCL(alone, None)
    parallel.set_solver_rank(2)
    with pytest.raises(InputError, match="solver_rank 2 is not below solver_count 2"):
        NCCL(alone, NCCL.new_uid())


def test_reducing_by_layers_has_to_be_asked_for(folder: pathlib.Path, alone: SGDSolver) -> None:
    solver = SGDSolver(str(write_solver(folder, 4, "layer_wise_reduce: false")))
    with pytest.raises(SolverError, match="Check failed: layer_wise_reduce"):
        NCCL(solver, NCCL.new_uid())(0)


def test_one_process_at_a_time_lets_go_of_the_store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that did so at once left the store's file behind, about once in 150 times."""
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    stores = [object()]
    leaving = threading.Thread(target=data_parallel._leave, args=(stores, str(tmp_path)))
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        leaving.start()
        leaving.join(0.2)
        assert leaving.is_alive()
        assert len(stores) == 1
    finally:
        os.close(other)
    leaving.join(10)
    assert stores == []
