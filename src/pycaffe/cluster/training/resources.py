"""What each worker of a run takes of a cluster: its share of the CPUs, a GPU, threads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.errors import ClusterError, SolverError
from pycaffe.threads import available_cores

__all__ = ["Resources", "check_devices", "resources_of_worker"]

logger = logging.getLogger("pycaffe.cluster")


@dataclass(frozen=True)
class Resources:
    """What an actor takes: CPUs and GPUs as Ray counts them, and threads."""

    cpus: float
    gpus: float
    threads: int


def check_devices(devices: str | None) -> None:
    """Raises SolverError where `devices` is none of its values."""
    if devices not in (None, "cpu", "gpu"):
        raise SolverError(f"devices is None, 'cpu' or 'gpu'; got {devices!r}.")


def resources_of_worker(ray: Any, devices: str | None, param: Any, workers: int) -> Resources:
    """The share of each of so many workers.

    Args:
        ray: the module, in a cluster.
        devices: "cpu", or "gpu"; None for what `solver_mode` states, where the cluster has GPUs for all.
        param: the SolverParameter.
        workers: how many.

    Raises:
        SolverError: `devices` is something else.
        ClusterError: the cluster has no CPU, or fewer GPUs than are asked for outright.
    """
    check_devices(devices)
    gpus = ray.cluster_resources().get("GPU", 0)
    stated = param.HasField("solver_mode") and param.solver_mode == param.GPU
    wanted = stated if devices is None else devices == "gpu"
    too_few = f"{workers} workers need as many GPUs; Ray knows of {gpus:g} in this cluster."
    if wanted and gpus < workers:
        if devices == "gpu":
            raise ClusterError(too_few)
        logger.warning("solver_mode: GPU: %s They run on CPUs.", too_few)
    cpus = _share([node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]], workers)
    threads = max(1, _cores(ray) // workers)
    return Resources(cpus, 1.0 if wanted and gpus >= workers else 0.0, threads)


def _share(nodes: Sequence[float], workers: int) -> float:
    """CPUs of each worker: one, or the largest part of one of which the nodes have room for all."""
    shares = {min(1.0, cpus / count) for cpus in nodes if cpus for count in range(1, workers + 1)}
    if not shares:
        raise ClusterError(
            "No node of the Ray cluster has a CPU for a worker. `ray start --address=… --num-cpus=N` adds one that has."
        )
    # A worker runs on one node: what is left of each of them is no room.
    most = max(share for share in shares if sum(int(cpus / share + 1e-9) for cpus in nodes) >= workers)
    return int(most * 100) / 100


def _cores(ray: Any) -> int:
    """Of the machines in the cluster, as far as is known here: a Ray of our own says it has more than there are."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return available_cores()
    return int(sum(node["Resources"].get("CPU", 0) for node in nodes))
