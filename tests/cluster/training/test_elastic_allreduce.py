"""All-reduce between two bounds: a node goes, and the run goes on with fewer workers from the last snapshot."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.cluster.training.small_net import write_solver

STEPS = 400
SCRIPT = """
import json, logging, sys, threading
import numpy as np
from ray.cluster_utils import Cluster
from pycaffe.cluster import train

told = []
logging.getLogger("pycaffe.cluster").addHandler(type("Told", (logging.Handler,), {
    "emit": lambda self, record: told.append(record.getMessage())})(logging.WARNING))
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
seen = []

def progress(iteration, loss):
    seen.append(iteration)
    if iteration >= 120 and not removing.is_alive() and removing.ident is None:
        removing.start()

removing = threading.Thread(target=cluster.remove_node, args=(other, False))
run = train(sys.argv[1], workers=2, min_workers=1, max_workers=2, mode="allreduce", on_progress=progress,
            address=cluster.address)
print(json.dumps({
    "iter": run.iter, "restarts": run.restarts, "losses": len(run.losses), "snapshots": len(run.snapshots),
    "repeated": len(seen) - len(set(seen)), "told": told,
    "first": float(np.mean(run.losses[:20])), "last": float(np.mean(run.losses[-20:])),
}))
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_workers(tmp_path: pathlib.Path) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9 stepsize: 1000 snapshot: 50", steps=STEPS)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, solver],
        # Ray Train tries as many as before first, for as long as it is told here.
        env={
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert (told["iter"], told["losses"]) == (STEPS, STEPS)
    assert told["restarts"] >= 1  # more where the machine is so busy that starting takes longer than it may
    assert told["repeated"] <= 50  # what was done since the last snapshot
    assert [line for line in told["told"] if "1 were started anew" in line and "_iter_" in line]
    assert told["last"] < told["first"]
