"""A cluster of two nodes on this machine, one of which is taken away in the middle of a run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.cluster.training.run_processes import left_after, processes_in
from tests.cluster.training.small_net import write_solver

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = """
import json, os, sys, threading
import numpy as np
from ray.cluster_utils import Cluster
import pycaffe.cluster.training.driver
from pycaffe.cluster import train
from tests.cluster.training.run_processes import actors_among, left_after, processes_in

head = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
other = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
gone = []

def actors():
    return actors_among(processes_in(os.getpid()))

def progress(iteration, loss):
    if iteration >= 50 and not gone:
        gone.append(len(actors()))
        pycaffe.cluster.training.driver.START_SECONDS = 5.0  # there will be no room for two of the four
        threading.Thread(target=cluster.remove_node, args=(other, False)).start()

run = train(sys.argv[1], workers=4, servers=2, min_workers=1, checkpoint_every=10, on_progress=progress,
            address=cluster.address)
left = left_after(10.0, actors)
print(json.dumps({
    "actors": gone[0], "left": left, "iter": run.iter, "restarts": run.restarts, "losses": len(run.losses),
    "loss": float(np.mean(run.losses[-20:])), "first_loss": float(np.mean(run.losses[:20])),
    "whole": run.batches == list(range(len(run.batches))),
    "workers": [max(e.worker for e in run.trace if e.generation == g) + 1
                for g in sorted({event.generation for event in run.trace})],
}))
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_run_goes_on_without_a_node_that_is_gone(tmp_path: pathlib.Path) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9 stepsize: 1000", steps=300)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, solver],
        # Ray asks the nodes each 3 s by itself, and gives one up that has not answered five times.
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_health_check_period_ms": "200", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            printed, errors = run.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    assert run.returncode == 0, errors[-4000:]
    assert left_after(10.0, lambda: processes_in(run.pid)) == []
    told = json.loads(printed.strip().splitlines()[-1])
    assert told["actors"] == 6, "they are seen while they live"
    assert told["left"] == [], "of the run, before the nodes end"
    assert (told["iter"], told["losses"]) == (300, 300)
    assert told["workers"][0] == 4
    assert told["workers"][-1] == 2  # what the other node has CPUs for
    assert told["restarts"] >= 1
    assert told["whole"]
    assert told["loss"] < told["first_loss"]
