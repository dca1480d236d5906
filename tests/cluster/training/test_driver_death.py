"""`caffe train --workers` whose process is killed: nothing of it is left, and the run goes on from its snapshot."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from pycaffe.cluster import train
from pycaffe.cluster.connection import Connection
from pycaffe.solvers import get_solver
from tests.cluster.training.run_processes import processes_in
from tests.cluster.training.small_net import alone, assert_same, write_solver
from tests.cluster.training.test_train import wait_for_end

WAIT = 90.0


def killed(process: subprocess.Popen[str], at: str) -> None:
    """Kills a run once it has said so much, and waits until none of its workers and servers is left."""
    assert process.stderr is not None
    told, pids = [], []
    for line in process.stderr:
        told.append(line)
        if ready := re.search(r"is ready: pid (\d+)", line):
            pids.append(int(ready[1]))
        if at in line:
            break
    process.send_signal(signal.SIGKILL)
    assert len(pids) == 4, "".join(told)
    for pid in pids:
        wait_for_end(pid, 60)


def newest_snapshot(folder: pathlib.Path) -> str:
    return str(max(folder.glob("*.solverstate"), key=lambda path: int(re.findall(r"\d+", path.name)[-1])))


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_and_goes_on(tmp_path: pathlib.Path) -> None:
    more = "momentum: 0.9 snapshot: 20 snapshot_after_train: true display: 10"
    solver = write_solver(tmp_path, 4, more, steps=200)
    command = [sys.executable, "-m", "pycaffe", "train", "--solver", solver, "--servers", "2"]
    with subprocess.Popen(
        [*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    ) as first:
        killed(first, at="run_iter_40.solverstate")
    for pid in processes_in(first.pid):  # the node's agents; they would try for a minute to tell the rest of Ray
        wait_for_end(pid, 10)
    assert processes_in(first.pid) == []
    resuming = [*command, "--workers", "2", "--snapshot", newest_snapshot(tmp_path)]
    again = subprocess.run(resuming, cwd=tmp_path, timeout=WAIT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    resumed = get_solver(solver)
    resumed.restore(tmp_path / "run_iter_200.solverstate")
    want = alone(write_solver(tmp_path, 8, more, steps=200, prefix="one"))
    assert_same({name: [blob.data for blob in blobs] for name, blobs in resumed.net.params.items()}, want)


@pytest.mark.slow
def test_in_a_cluster_that_lives_on_nothing_of_a_killed_run_is_left(
    tmp_path: pathlib.Path, local_ray: Connection
) -> None:
    more = "momentum: 0.9 snapshot: 20"
    endless = write_solver(tmp_path, 4, more, steps=1_000_000)
    options = ["--solver", endless, "--workers", "2", "--servers", "2", "--address", local_ray.address]
    with subprocess.Popen(
        [sys.executable, "-m", "pycaffe", "train", *options],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as run:
        killed(run, at="run_iter_40.solverstate")
    state = newest_snapshot(tmp_path)
    begun = int(re.findall(r"\d+", state)[-1])
    solver = write_solver(tmp_path, 4, "momentum: 0.9", steps=begun + 20)
    resumed = train(solver, workers=2, servers=2, snapshot=state)
    assert (resumed.iter, len(resumed.losses)) == (begun + 20, 20)
    want = alone(write_solver(tmp_path, 8, "momentum: 0.9", steps=begun + 20, prefix="one"))
    assert_same(resumed.params, want)
