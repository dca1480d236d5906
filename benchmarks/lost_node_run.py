"""A run of 4 workers and 2 servers on two nodes, one of which is taken away; of bench_cluster.py's section `nodes`.

    lost_node_run.py SOLVER

Prints in JSON when the node went, which batches count, and how often something was started anew.
"""

from __future__ import annotations

import json
import sys
import threading

from ray.cluster_utils import Cluster

import pycaffe.cluster.training.driver
from pycaffe.cluster import train
from pycaffe.solvers.solver import read_solver_param

NODE = {"num_cpus": 2, "object_store_memory": 200 << 20}


def main() -> None:
    (solver,) = sys.argv[1:]
    moment = read_solver_param(solver).max_iter // 5
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    other = cluster.add_node(**NODE)
    gone: list[int] = []

    def progress(iteration: int, loss: float) -> None:
        if iteration >= moment and not gone:
            gone.append(iteration)
            pycaffe.cluster.training.driver.START_SECONDS = 5.0  # there will be no room for two of the four
            threading.Thread(target=cluster.remove_node, args=(other, False)).start()

    run = train(
        solver, workers=4, servers=2, min_workers=1, checkpoint_every=50, on_progress=progress, address=cluster.address
    )
    cluster.shutdown()
    print(json.dumps({"gone": gone, "batches": run.batches, "restarts": run.restarts}))


if __name__ == "__main__":
    main()
