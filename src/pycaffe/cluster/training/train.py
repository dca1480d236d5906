"""`pycaffe.cluster.train`: a solver prototxt, trained by workers and parameter servers on Ray.

this process ──── Driver: Coordinator, checkpoints, snapshots, log
    │                │ starts, watches, replaces
    │         ┌──────┴───────┐
    │      W workers ⇄ S servers       a worker: net, data, forward, backward    a server: its part of the
    │                                  parameters and their histories, Caffe's own solver
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from pycaffe.cluster.connection import check_nodes, connect
from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.compression import parse_compression
from pycaffe.cluster.protocol.coordinator import Coordinator, RunConfig
from pycaffe.cluster.protocol.messages import Checkpoint, parse_mode
from pycaffe.cluster.protocol.shard_server import ServerConfig
from pycaffe.cluster.protocol.shards import cut_into_pieces
from pycaffe.cluster.training.checkpoints import RunSolver
from pycaffe.cluster.training.control import RunControl
from pycaffe.cluster.training.data_paths import data_paths
from pycaffe.cluster.training.driver import Driver
from pycaffe.cluster.training.exchange import Plan, describe_parameters
from pycaffe.cluster.training.recorder import Recorder
from pycaffe.cluster.training.resources import Resources, resources_of_worker
from pycaffe.cluster.training.run import Run
from pycaffe.cluster.training.worker_actor import WorkerSettings
from pycaffe.errors import SolverError
from pycaffe.solvers.solver import read_solver_param

__all__ = ["checkpoint_interval", "train"]

WANTED_INTERVAL = 100  # iterations between checkpoints, unless snapshots ask for another number near it
Path = str | os.PathLike[str]


def train(
    solver: Path | Any,
    *,
    workers: int,
    servers: int = 1,
    mode: str = "sync",
    staleness: int | None = None,
    compression: str | None = None,
    devices: str | None = None,
    weights: Path | None = None,
    snapshot: Path | None = None,
    address: str | None = None,
    on_progress: Callable[[int, float], Any] | None = None,
    min_workers: int | None = None,
    max_workers: int | None = None,
    checkpoint_every: int | None = None,
    control: RunControl | None = None,
) -> Run:
    """Trains a net on many machines, or with several processes on this one.

    Each worker has the prototxt's batch size; the gradients of W workers are averaged, as the original averages those
    of its GPUs. Tests, displays and snapshots are those of one process; tests run on worker 0.

    Args:
        solver: the path of a solver prototxt, or a SolverParameter.
        workers: how many.
        servers: how many hold the parameters.
        mode: "sync": every step waits for all, and equals one process on the joined batch; "async": nobody waits;
            "ssp": a worker waits for those that are more than `staleness` steps behind; "allreduce": no servers.
        staleness: of "ssp".
        compression: None; "fp16"; or "topk:F": that part of a gradient's elements, the largest, are pushed.
        devices: "cpu", or "gpu": one for each worker; None for what solver_mode says, where the cluster has GPUs.
        weights: begin with these, `.caffemodel` files separated by commas.
        snapshot: go on from this solver state, of one process, a cluster of any size, or the original.
        address: of the Ray cluster, "host:port" or "auto"; None for RAY_ADDRESS, else a Ray of this process's own.
        on_progress: called with each iteration that is done and its loss.
        min_workers: the run goes on as long as there are so many; None for `workers`.
        max_workers: it never has more; None for `workers`.
        checkpoint_every: iterations that the loss of a server costs at most; None for about 100.
        control: takes what is asked while the run goes on.

    Returns:
        What was learned, lost, sent and written.

    Raises:
        SolverError, ProtoError, NetError, DataError: as in one process; or an option is wrong.
        ClusterError: the cluster cannot be joined, lacks a file, or its processes die again and again.
        MissingExtra: Ray is not installed.
    """
    if mode == "allreduce":
        return _train_allreduce(
            solver, workers, (servers, staleness, compression), devices, weights, snapshot, address, on_progress,
            min_workers, max_workers, checkpoint_every, control,
        )  # fmt: skip
    modes, compressed = parse_mode(mode, staleness), parse_compression(compression)
    if workers < 1:
        raise SolverError(f"A cluster needs at least one worker; got workers={workers!r}.")
    if snapshot is not None and weights is not None:
        raise SolverError("Give a snapshot to resume training or weights to finetune but not both.")
    own = RunSolver(_param(solver, weights, snapshot))
    if snapshot is not None:
        own.restore(snapshot)
    place = own.begin()
    parameters, layers = describe_parameters(own.net._graph)
    pieces = cut_into_pieces([parameter.size for parameter in parameters], servers)
    param = own.param
    interval = checkpoint_interval(checkpoint_every, param.snapshot)
    plan = Plan(
        tuple(parameters), tuple(layers), tuple(pieces), modes, compressed, param.clip_gradients >= 0, param.max_iter
    )
    run = Run(iter=own.iter)
    recorder = Recorder(run, place, on_progress, by_arrival=mode == "async")
    recorder.keep_state(own.iter, own.run_state)
    initial = Checkpoint(
        0, own.iter, own.iter, (0,) * workers, Assignment(workers, param.iter_size),
        own.parts(pieces, workers),
    )  # fmt: skip
    coordinator = Coordinator(
        RunConfig(
            workers, servers, modes, param.max_iter, interval, min_workers=min_workers, max_workers=max_workers
        ),
        initial,
    )  # fmt: skip
    with connect(address, cpus=workers + servers) as connection:
        if not connection.started:
            check_nodes(connection, data_paths(param))
        worker = resources_of_worker(connection.ray, devices, param, max(workers, max_workers or 0))
        settings = WorkerSettings(
            _on_device(param, worker).SerializeToString(),
            plan,
            os.getcwd(),
            worker.threads,
            (interval, param.snapshot, param.max_iter),
        )
        config = ServerConfig(
            0, servers, tuple(pieces), tuple(parameters), param, modes, compressed, interval, param.max_iter
        )
        driver = Driver(
            connection.ray, own, coordinator, recorder, settings, config, worker, control or RunControl()
        )  # fmt: skip
        last = driver.run()
    recorder.finish(last.iteration)
    run.counted = last.counted
    run.restarts = coordinator.restarts
    run.params = own.arrays_by_layer()
    return run


def _param(solver: Path | Any, weights: Path | None, snapshot: Path | None) -> Any:
    """The SolverParameter of the run, with a seed that all processes have."""
    param = read_solver_param(solver)
    if weights is not None or snapshot is not None:
        param.ClearField("weights")
    if weights is not None:
        param.weights.append(os.fspath(weights))
    if param.random_seed < 0:
        param.random_seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    return param


def checkpoint_interval(wanted: int | None, snapshot: int) -> int:
    """Iterations between checkpoints: what is wanted, or about 100; a divisor of the snapshots' interval.

    Raises:
        SolverError: what is wanted is not positive, or no divisor.
    """
    if wanted is not None:
        if wanted < 1 or (snapshot and snapshot % wanted):
            raise SolverError(
                f"checkpoint_every must be a divisor of the solver's snapshot, {snapshot!r}; got {wanted!r}."
            )
        return wanted
    if snapshot <= 0:
        return WANTED_INTERVAL
    near = [count for count in range(WANTED_INTERVAL // 4, WANTED_INTERVAL + 1) if snapshot % count == 0]
    return near[-1] if near else snapshot


def _on_device(param: Any, worker: Resources) -> Any:
    """The parameter for a worker: Ray shows each process its own GPU as the first. Values come from servers."""
    own = type(param)()
    own.CopyFrom(param)
    own.ClearField("weights")
    own.solver_mode, own.device_id = (param.GPU, 0) if worker.gpus else (param.CPU, 0)
    return own


def _train_allreduce(
    solver: Path | Any,
    workers: int,
    of_servers: tuple[int, int | None, str | None],
    devices: str | None,
    weights: Path | None,
    snapshot: Path | None,
    address: str | None,
    on_progress: Callable[[int, float], Any] | None,
    min_workers: int | None,
    max_workers: int | None,
    checkpoint_every: int | None,
    control: RunControl | None,
) -> Run:
    from pycaffe.cluster.training.allreduce import train_allreduce

    if of_servers != (1, None, None):
        raise SolverError("servers, staleness and compression are of parameter servers; mode 'allreduce' has none.")
    if checkpoint_every is not None:
        raise SolverError("checkpoint_every is of parameter servers; mode 'allreduce' goes on from snapshots.")
    return train_allreduce(
        solver,
        workers=(min_workers or workers, max_workers or workers) if min_workers or max_workers else workers,
        devices=devices,
        weights=None if weights is None else os.fspath(weights),
        snapshot=None if snapshot is None else os.fspath(snapshot),
        address=address,
        on_progress=on_progress,
        control=control,
    )
