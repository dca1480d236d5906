"""What each worker takes of a cluster."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pycaffe.cluster.training.resources import Resources, _share, resources_of_worker
from pycaffe.errors import ClusterError, SolverError
from pycaffe.proto.schema import SolverParameter
from pycaffe.threads import available_cores

GPU, CPU, UNSTATED = SolverParameter(solver_mode="GPU"), SolverParameter(solver_mode="CPU"), SolverParameter()


@pytest.mark.parametrize(
    ("nodes", "workers", "share"),
    [([8.0], 4, 1.0), ([2.0], 3, 0.66), ([1.0, 1.0], 3, 0.5), ([1.0, 1.0, 1.0], 4, 0.5), ([3.0, 1.0, 0.0], 4, 1.0)],
)
def test_each_worker_takes_what_the_nodes_have_room_for(nodes: list[float], workers: int, share: float) -> None:
    assert _share(nodes, workers) == share


def test_a_cluster_without_cpus() -> None:
    with pytest.raises(ClusterError, match="has a CPU for a worker"):
        _share([0.0, 0.0], 2)


class ClusterOf:
    """A `ray` that is in a cluster of one node."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return self._resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self._resources}]


@pytest.mark.parametrize(
    ("devices", "param", "gpus"),
    [(None, GPU, 1.0), ("gpu", CPU, 1.0), ("cpu", GPU, 0.0), (None, CPU, 0.0), (None, UNSTATED, 0.0)],
)
def test_a_gpu_for_each_worker_where_one_is_asked_for(devices: str | None, param: Any, gpus: float) -> None:
    """A solver that states no mode runs on the CPU, as in one process."""
    threads = max(1, available_cores() // 2)
    assert resources_of_worker(ClusterOf(CPU=4.0, GPU=2.0), devices, param, 2) == Resources(1.0, gpus, threads)


def test_gpus_that_the_cluster_has_not(caplog: pytest.LogCaptureFixture) -> None:
    cluster = ClusterOf(CPU=4.0, GPU=1.0)
    with caplog.at_level(logging.WARNING, "pycaffe.cluster"):
        assert resources_of_worker(cluster, None, GPU, 2).gpus == 0
    assert "2 workers need as many GPUs; Ray knows of 1 in this cluster. They run on CPUs." in caplog.text
    with pytest.raises(ClusterError, match="2 workers need as many GPUs; Ray knows of 1 in this cluster"):
        resources_of_worker(cluster, "gpu", GPU, 2)
    with pytest.raises(SolverError, match="devices is None, 'cpu' or 'gpu'; got 'tpu'"):
        resources_of_worker(cluster, "tpu", GPU, 2)
