"""All-reduce between two bounds: a node goes, another comes, and each time the run goes on from the last snapshot."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.cluster.training.small_net import write_solver
from tests.net.nets import layer

STEPS = 400
# A worker alone stands still after some steps, one snapshot further than it began, until there are two. Steps take long
# enough that rank 0 reports every few of them, and that two do not come to the end before one of them is gone.
COMPANY = """
import itertools, threading, time
import caffe
from pycaffe import parallel

class Company(caffe.Layer):
    def setup(self, bottom, top):
        self.steps = itertools.count()

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        time.sleep(0.02)
        if parallel.solver_count() == 1 and next(self.steps) == 80:
            threading.Event().wait()

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff
"""
SCRIPT = r"""
import json, logging, re, sys
import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from pycaffe.cluster import train
from pycaffe.cluster.connection import connect
from pycaffe.cluster.training import allreduce

allreduce.RESIZE_SECONDS = 1.0

class Coordinator(coordinator._AutoscalingCoordinatorActor):
    TICK_INTERVAL_S = 0.25  # between two looks at the nodes; 20 s as Ray Train makes it where there is none

def progress(iteration, loss):
    seen.append(iteration)
    if iteration >= 120 and not nodes:
        nodes.append(other)
        cluster.remove_node(other, False)
    alone = re.search(r" 1 were started anew.*_iter_(\d+)", told[-1]) if told else None
    if alone and iteration > int(alone[1]) + 60 and len(nodes) == 1:  # one snapshot further
        nodes.append(cluster.add_node(num_cpus=1, object_store_memory=100 << 20))

seen, told, nodes = [], [], []  # those that came or went
head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
logging.getLogger("pycaffe.cluster").addHandler(type("Told", (logging.Handler,), {
    "emit": lambda self, record: told.append(record.getMessage())})(logging.WARNING))
connection = connect(cluster.address)
name = "AutoscalingCoordinator"
here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # as Ray has it
looker = ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).options(
    name=name, namespace=name, lifetime="detached").remote()
run = train(sys.argv[1], workers=2, min_workers=1, max_workers=2, mode="allreduce", on_progress=progress,
            address=cluster.address)
print(json.dumps({
    "iter": run.iter, "restarts": run.restarts, "losses": len(run.losses), "snapshots": len(run.snapshots),
    "repeated": len(seen) - len(set(seen)), "told": told,
    "first": float(np.mean(run.losses[:20])), "last": float(np.mean(run.losses[-20:])),
}))
connection.close()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_workers_and_grows_back(tmp_path: pathlib.Path) -> None:
    (tmp_path / "company.py").write_text(COMPANY)
    body = layer("company", "Python", "conv", "middle", 'python_param { module: "company" layer: "Company" }')
    solver = write_solver(tmp_path, 4, "momentum: 0.9 stepsize: 1000 snapshot: 50", steps=STEPS, body=body)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, solver],
        env={
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_health_check_period_ms": "200",  # how soon Ray knows that a node is gone; 3 s by itself
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
            # Where Ray Train hears of its workers before that, it waits so long for the node; a minute by itself.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "2",
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less for each group of workers
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert (told["iter"], told["losses"]) == (STEPS, STEPS)
    assert told["restarts"] >= 2  # more where the machine is so busy that starting takes longer than it may
    assert told["repeated"] <= 100  # what was done since the last snapshot, twice
    resumed = [re.search(r" ([12]) were started anew.*_iter_(\d+)", line) for line in told["told"]]
    starts = [(int(found[1]), int(found[2])) for found in resumed if found]
    fewer, again = starts[0], starts[-1]
    assert (fewer[0], again[0]) == (1, 2)
    assert again[1] > fewer[1]  # on from where the one alone had come
    assert told["last"] < told["first"]
