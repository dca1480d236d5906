"""Workers and servers in one process: the shells without Ray. A worker is a thread, a message a call under a lock."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pycaffe import parallel
from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.commands import RunWorker
from pycaffe.cluster.protocol.compression import parse_compression
from pycaffe.cluster.protocol.messages import Part, Pull, Push, Restore, parse_mode
from pycaffe.cluster.protocol.shard_server import Reply, SendPart, ServerConfig, ShardServer
from pycaffe.cluster.protocol.shards import cut_into_pieces
from pycaffe.cluster.training.checkpoints import RunSolver
from pycaffe.cluster.training.data_position import Place
from pycaffe.cluster.training.exchange import Answer, Plan, describe_parameters
from pycaffe.cluster.training.train import _param
from pycaffe.cluster.training.worker_solver import StepReport, WorkerSolver

WAIT = 60.0  # seconds after which a test fails instead of hanging


class LocalLink:
    """Servers that are objects."""

    def __init__(self, servers: Sequence[ShardServer]) -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self.parts: list[Part] = []

    def send(self, server: int, push: Push | None, pull: Pull | None) -> Any:
        waiting: Future[Any] = Future()
        with self._lock:
            counted = self._servers[server].push(push) if push is not None else None
            if pull is None:
                waiting.set_result(None)
            else:
                self._servers[server].pull(pull, waiting)
            self._carry_out(server)
        return counted, waiting

    def _carry_out(self, server: int) -> None:
        for command in self._servers[server].take():
            if isinstance(command, Reply):
                command.ticket.set_result(command.answer)
            elif isinstance(command, SendPart):
                self.parts.append(command.part)
            else:
                for index, peer in enumerate(self._servers):
                    if index != server:
                        peer.add_squares(command.squares)
                        self._carry_out(index)

    def wait(self, tickets: Sequence[Any]) -> list[Answer]:
        return [(counted, waiting.result(WAIT)) for counted, waiting in tickets]


@dataclass
class LocalRun:
    """What came of a run."""

    params: dict[str, list[np.ndarray]]
    reports: list[StepReport]
    parameter_bytes: int


def train_here(
    solver: str,
    workers: int,
    servers: int = 2,
    mode: str = "sync",
    staleness: int | None = None,
    compression: str | None = None,
    snapshot: str | None = None,
    slow: dict[int, Any] | None = None,
    beyond: int = 0,
) -> LocalRun:
    """Trains as `pycaffe.cluster.train` does.

    `slow`: by rank, what a worker calls after each step. `beyond`: so many steps after max_iter, as in async.
    """
    own = RunSolver(_param(solver, None, snapshot))
    if snapshot is not None:
        own.restore(snapshot)
    place, param = own.begin(), own.param
    parameters, layers = describe_parameters(own.net._graph)
    pieces = tuple(cut_into_pieces([parameter.size for parameter in parameters], servers))
    modes, compressed = parse_mode(mode, staleness), parse_compression(compression)
    plan = Plan(
        tuple(parameters), tuple(layers), pieces, modes, compressed, param.clip_gradients >= 0, param.max_iter
    )  # fmt: skip
    config = ServerConfig(0, servers, pieces, tuple(parameters), param, modes, compressed, 0, param.max_iter)
    shards = [ShardServer(replace(config, server=number)) for number in range(servers)]
    parts = own.parts(pieces, workers)
    incarnations = tuple(range(1, workers + 1))
    for shard, part in zip(shards, parts):
        shard.restore(Restore(1, incarnations, own.iter, (0,) * workers, part))
    link = LocalLink(shards)
    reports: list[StepReport] = []

    def report_of(rank: int) -> Any:
        def report(step: StepReport) -> None:
            reports.append(step)
            (slow or {}).get(rank, lambda: None)()

        return report

    solvers = [
        WorkerSolver(param, plan, report_of(rank), saves=lambda _: False, superseded=lambda: False)
        for rank in range(workers)
    ]
    _run_all(solvers, incarnations, own.iter, link, place, own.run_state, beyond)
    final = [
        Part(
            1, number, 1, (0,) * workers, {i: piece.copy() for i, piece in shard._pieces.items()}, shard._rates.state()
        )
        for number, shard in enumerate(shards)
    ]
    own.take(final, pieces, param.max_iter)
    return LocalRun(own.arrays_by_layer(), reports, sum(4 * info.size for info in parameters))


def _run_all(
    solvers: Sequence[WorkerSolver],
    incarnations: Sequence[int],
    base: int,
    link: LocalLink,
    place: Place,
    state: Any,
    beyond: int,
) -> None:
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        steps = solvers[rank]._whole_param.max_iter - base + beyond
        order = RunWorker(
            incarnations[rank], 1, rank, base, 0, steps,
            Assignment(len(solvers), solvers[rank].param.iter_size),
        )  # fmt: skip
        try:
            solvers[rank].run(order, link, place, state if rank == 0 else None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(solvers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for solver in solvers:
        solver.close()
    parallel.set_solver_rank(0)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)
