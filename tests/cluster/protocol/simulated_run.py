"""A whole run of coordinator, servers and workers in one thread, over a network that loses, repeats and delays.

Processes die, some are taken for dead and go on speaking; workers join and leave. One seed is one order of events.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pycaffe.cluster.protocol import commands
from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.checkpoint_parts import split_into_parts
from pycaffe.cluster.protocol.coordinator import Coordinator, RunConfig
from pycaffe.cluster.protocol.messages import Checkpoint, Counted, Mode, Pull, Push, Restore, Sender, Stale, Values
from pycaffe.cluster.protocol.shard_server import Reply, SendPart, SendSquares, ServerConfig, ShardServer
from pycaffe.cluster.protocol.shards import ParameterInfo, Piece, cut_into_pieces
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers.learning_rate import LearningRate
from pycaffe.solvers.update_rules import UpdateStep, clip_scale, sum_of_squares, update, update_rule_class
from tests.cluster.protocol.marked_pieces import MarkedGradient, MarkedPiece

Array = np.ndarray
SIZES = (3, 2, 2)
LOST, REPEATED, NUDGED, FAULTY, BURIED = 0.06, 0.06, 0.01, 0.03, 0.01
MAX_EVENTS = 20_000


@dataclass(frozen=True)
class Plan:
    """What a run is like, apart from its seed."""

    mode: Mode
    workers: int = 2
    servers: int = 2
    max_iter: int = 2
    interval: int = 1
    clip: float = -1.0
    faults: tuple[str, ...] = ("worker", "server")
    most_faults: int = 2
    min_workers: int | None = None
    max_workers: int | None = None

    def solver(self) -> Any:
        return SolverParameter(
            type="SGD", base_lr=0.1, lr_policy="inv", gamma=0.1, power=0.75, momentum=0.9, weight_decay=0.01,
            clip_gradients=self.clip, max_iter=self.max_iter,
        )  # fmt: skip


@lru_cache(maxsize=4096)
def noise(piece: int, batch: int) -> Array:
    """The part of a gradient that depends on the batch."""
    return np.random.default_rng([piece, batch]).standard_normal(SIZES[piece]).astype(np.float32)


def gradient_of(piece: int, value: Array, batch: int) -> Array:
    return value * np.float32(0.5) + noise(piece, batch)


@lru_cache(maxsize=64)
def pieces_of(servers: int) -> tuple[Piece, ...]:
    return tuple(cut_into_pieces(SIZES, servers))


def first_values() -> list[Array]:
    return [np.full(size, 1 + index, np.float32) for index, size in enumerate(SIZES)]


@lru_cache(maxsize=64)
def undisturbed(plan: Plan) -> list[list[Array]]:
    """In sync: the values of each version by piece, by the plain arithmetic of one process."""
    param = plan.solver()
    rule, rates = update_rule_class("SGD")(param), LearningRate(param)
    values = first_values()
    history = [np.zeros_like(value) for value in values]
    versions = [[value.copy() for value in values]]
    for clock in range(plan.max_iter):
        means = []
        for piece, value in enumerate(values):
            total = gradient_of(piece, value, clock * plan.workers)
            for rank in range(1, plan.workers):
                total += gradient_of(piece, value, clock * plan.workers + rank)
            means.append(total * np.float32(1 / plan.workers) if plan.workers > 1 else total)
        scale = 1.0
        if plan.clip >= 0:
            of_server = [
                sum(sum_of_squares(means[piece.index]) for piece in pieces_of(plan.servers) if piece.server == server)
                for server in range(plan.servers)
            ]
            scale = clip_scale(sum(of_server), plan.clip)
        step = UpdateStep(rates.at(clock, 0.0), clock, decay=param.weight_decay, clip_scale=scale)
        for value, mean, kept in zip(values, means, history):
            update(rule, value, mean, [kept], step)
        versions.append([value.copy() for value in values])
    return versions


class SimulatedServer:
    """A server's process."""

    def __init__(self, run: SimulatedRun, index: int, incarnation: int) -> None:
        plan = run.plan
        self.run, self.index, self.incarnation, self.alive = run, index, incarnation, True
        infos = tuple(ParameterInfo(f"p{place}", size) for place, size in enumerate(SIZES))
        self.shard = ShardServer(
            ServerConfig(
                index, plan.servers, pieces_of(plan.servers), infos, run.solver, plan.mode,
                checkpoint_interval=plan.interval, max_iter=plan.max_iter,
            )
        )  # fmt: skip
        self.next_tickets: dict[int, SimulatedWorker] = {}

    def obey(self, commanded: Sequence[Any]) -> None:
        run = self.run
        for command in commanded:
            if isinstance(command, Reply):
                worker, request = command.ticket
                run.send(worker, worker.answered, request, command.answer)
            elif isinstance(command, SendSquares):
                for other in run.servers:
                    if other is not self and other is not None:
                        run.send(other, other.add_squares, command.squares)
            else:
                assert isinstance(command, SendPart)
                part = command.part
                run.tell(run.coordinator.part_copied, self.index, part.generation, part.cut, part.clocks, part)

    def pull(self, worker: SimulatedWorker, request: int, message: Pull) -> None:
        self.shard.pull(message, (worker, request))
        self.obey(self.shard.take())

    def push(self, worker: SimulatedWorker, request: int, message: Push) -> None:
        before = self.ledger()
        answer = self.shard.push(message)
        if isinstance(answer, Stale):
            assert self.ledger() == before, "what is stale changes nothing"
        self.obey(self.shard.take())
        self.run.send(worker, worker.answered, request, answer)

    def ledger(self) -> list[int]:
        return [len(piece.batches) for piece in self.shard._pieces.values() if isinstance(piece, MarkedPiece)]

    def add_squares(self, squares: Any) -> None:
        self.shard.add_squares(squares)
        self.obey(self.shard.take())

    def commanded(self, command: Any) -> None:
        shard, run = self.shard, self.run
        generation = command.generation
        if isinstance(command, commands.RestoreServer):
            shard.restore(Restore(generation, command.incarnations, command.base, command.clocks, command.part))
            run.tell(run.coordinator.restored, self.index, shard.generation)
        elif isinstance(command, commands.Fence):
            clock = shard.fence(generation, command.rank, command.incarnation)
            run.tell(run.coordinator.fenced, self.index, generation, command.rank, command.incarnation, clock)
        elif isinstance(command, commands.Freeze):
            run.tell(run.coordinator.frozen, self.index, generation, command.cut, shard.freeze(generation, command.cut))
        elif isinstance(command, commands.CopyAt):
            shard.cut(generation, command.cut, command.clocks)
        else:
            assert isinstance(command, commands.Acknowledge)
            shard.release(generation, command.cut)
        self.obey(shard.take())


class SimulatedWorker:
    """A worker's process: pulls, computes, pushes; asks for the next step's values as soon as a push is answered."""

    def __init__(self, run: SimulatedRun, incarnation: int) -> None:
        self.run, self.incarnation, self.alive = run, incarnation, True
        self.order: commands.RunWorker | None = None
        self.heard = self.clock = 0
        self.servers: list[SimulatedServer] = []
        self.outstanding: dict[int, tuple[str, SimulatedServer, Any]] = {}
        self.pulled: dict[int, dict[int, Values]] = {}
        self.unpushed = 0

    def begin(self, order: commands.RunWorker) -> None:
        if order.generation < self.heard:
            return
        if order.generation > self.heard:
            self.heard, self.order, self.clock = order.generation, order, order.clock
            self.servers = [server for server in self.run.servers if server is not None]
            self.outstanding, self.pulled, self.unpushed = {}, {}, 0
            self.pull_all()
        self.report()

    def report(self) -> None:
        self.run.tell(self.run.coordinator.progress, self.incarnation, self.heard, self.clock)

    def sender(self) -> Sender:
        assert self.order is not None
        return Sender(self.order.generation, self.order.rank, self.incarnation)

    def ended(self, clock: int) -> bool:
        assert self.order is not None
        return self.order.end is not None and clock >= self.order.end

    def pull_all(self) -> None:
        if not self.ended(self.clock):
            for server in self.servers:
                self.pull(server, self.clock)

    def pull(self, server: SimulatedServer, clock: int) -> None:
        indices = tuple(piece.index for piece in pieces_of(self.run.plan.servers) if piece.server == server.index)
        self.request("pull", server, Pull(self.sender(), clock, indices))

    def request(self, kind: str, server: SimulatedServer, message: Any) -> None:
        self.run.requests += 1
        self.outstanding[self.run.requests] = (kind, server, message)
        self.run.send(server, getattr(server, kind), self, self.run.requests, message)

    def resend(self) -> None:
        for request, (kind, server, message) in self.outstanding.items():
            self.run.send(server, getattr(server, kind), self, request, message)
        if self.order is not None:
            self.report()

    def answered(self, request: int, answer: Any) -> None:
        if self.outstanding.pop(request, None) is None or self.order is None:
            return
        if isinstance(answer, Stale):
            self.order, self.outstanding = None, {}
        elif isinstance(answer, Values):
            assert answer.generation == self.order.generation
            server = pieces_of(self.run.plan.servers)[answer.pieces[0]].server
            self.pulled.setdefault(answer.clock, {})[server] = answer
            self.compute()
        else:
            assert isinstance(answer, Counted)
            self.unpushed -= 1
            if not self.unpushed:
                self.clock += 1
                self.report()
                self.compute()

    def compute(self) -> None:
        answers = self.pulled.get(self.clock, {})
        if self.unpushed or len(answers) < len(self.servers) or self.order is None:
            return
        answered = [pair for answer in answers.values() for pair in zip(answer.pieces, answer.values)]
        values = {index: dense.values for index, dense in answered}
        self.run.check_step(self, values)
        (batch,) = self.order.assignment.batches(self.order.rank, self.clock)
        del self.pulled[self.clock]
        self.unpushed = len(self.servers)
        clock = self.clock
        for server in self.servers:
            indices = tuple(index for index in values if pieces_of(self.run.plan.servers)[index].server == server.index)
            gradients = tuple(MarkedGradient(gradient_of(index, values[index], batch), batch) for index in indices)
            self.request("push", server, Push(self.sender(), clock, indices, gradients, loss=1.0))
            if not self.ended(clock + 1):
                self.pull(server, clock + 1)


class SimulatedRun:
    """One run, from its start to Finish.

    Attributes:
        taken: all checkpoints.
        result: the last.
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.random = plan, random.Random(seed)
        self.solver = plan.solver()
        self.flying: list[tuple[Any, bool, Callable[..., None], tuple[Any, ...]]] = []
        self.requests = self.faults = 0
        self.servers: list[SimulatedServer | None] = [None] * plan.servers
        self.workers: dict[int, SimulatedWorker] = {}
        self.zombies: list[Any] = []
        self.taken: list[Checkpoint] = []
        self.result: Checkpoint | None = None
        self.versions = undisturbed(plan) if plan.mode.name == "sync" else []
        self.fixed = plan.mode.name == "sync" and not {"join", "leave", "no room"} & set(plan.faults)
        values = first_values()
        histories = [[np.zeros_like(value) for value in values]]
        parts = split_into_parts(values, histories, pieces_of(plan.servers), workers=plan.workers)
        initial = Checkpoint(0, 0, 0, (0,) * plan.workers, Assignment(plan.workers), tuple(parts))
        config = RunConfig(
            plan.workers, plan.servers, plan.mode, plan.max_iter, plan.interval, plan.min_workers, plan.max_workers
        )
        self.coordinator = Coordinator(config, initial)

    # -- the network

    def send(self, process: Any, method: Callable[..., None], *args: Any) -> None:
        self.flying.append((process, True, method, args))

    def tell(self, method: Callable[..., None], *args: Any) -> None:
        """To the coordinator."""
        self.flying.append((None, True, method, args))

    def surely(self, method: Callable[..., None], *args: Any) -> None:
        """Late perhaps, but not lost: what the shell sees of its own processes."""
        self.flying.append((None, False, method, args))

    def deliver(self) -> None:
        flying = self.flying
        place = int(self.random.random() * len(flying))
        flying[place], flying[-1] = flying[-1], flying[place]
        process, unsure, method, args = message = flying.pop()
        if unsure:
            luck = self.random.random()
            if luck < LOST:
                return
            if luck < LOST + REPEATED:
                flying.append(message)
        if process is None:
            method(*args)
            self.obey()
        elif process.alive:
            method(*args)

    def nudge(self) -> None:
        """Time has passed: everybody repeats what was not answered."""
        self.coordinator.tick()
        self.obey()
        for server in self.servers:
            if server is not None and server.alive:
                server.obey(server.shard.repeat())
        for worker in self.workers.values():
            if worker.alive:
                worker.resend()

    # -- the shell

    def obey(self) -> None:
        for command in self.coordinator.take():
            if isinstance(command, commands.StartServer):
                self.servers[command.server] = SimulatedServer(self, command.server, command.incarnation)
                self.surely(self.coordinator.server_ready, command.server, command.incarnation)
            elif isinstance(command, commands.StartWorker):
                self.workers[command.incarnation] = SimulatedWorker(self, command.incarnation)
                self.surely(self.coordinator.worker_ready, command.incarnation)
            elif isinstance(command, commands.StopWorker):
                if command.incarnation in self.workers:
                    self.bury(self.workers.pop(command.incarnation))
            elif isinstance(command, commands.RunWorker):
                worker = self.workers.get(command.incarnation)
                if worker is not None:  # else it is dead, and the coordinator will hear of it
                    self.send(worker, worker.begin, command)
            elif isinstance(command, (commands.Taken, commands.Finish)):
                self.check_checkpoint(command.checkpoint)
                self.taken.append(command.checkpoint)
                if isinstance(command, commands.Finish):
                    self.result = command.checkpoint
            elif isinstance(command, commands.Fail):
                raise command.error
            else:
                server = self.servers[command.server]
                assert server is not None
                self.send(server, server.commanded, command)

    def bury(self, process: Any) -> None:
        """Ends a process, or only believes so: it goes on for a while."""
        process.alive = self.random.random() < 0.5
        if process.alive:
            self.zombies.append(process)

    def fault(self) -> None:
        self.faults += 1
        kind = self.random.choice(self.plan.faults)
        present = [worker for worker in self.workers.values() if worker.incarnation in self.coordinator.incarnations]
        if kind in ("worker", "no room") and present:
            worker = self.random.choice(present)
            del self.workers[worker.incarnation]
            self.bury(worker)
            self.surely(self.coordinator.worker_died, worker.incarnation)
            if kind == "no room":
                self.surely(self.lacks_room)
        elif kind == "server":
            server = self.random.choice(self.servers)
            assert server is not None
            self.bury(server)
            self.surely(self.coordinator.server_died, server.index, server.incarnation)
        elif kind == "checkpoint":
            self.coordinator.checkpoint_now()
        elif kind in ("join", "leave"):
            getattr(self.coordinator, kind)()
        self.obey()

    def lacks_room(self) -> None:
        """Nobody can start the last worker that was asked for, if it has not begun."""
        incarnation = max(self.workers, default=0)
        if incarnation and not self.workers[incarnation].heard:
            del self.workers[incarnation]
            self.coordinator.worker_cannot_start(incarnation)

    def run(self) -> Checkpoint:
        self.coordinator.start()
        self.obey()
        for _ in range(MAX_EVENTS):
            if self.result is not None:
                return self.result
            chance = self.random.random()
            if not self.flying or chance < NUDGED:
                self.nudge()
            elif chance < NUDGED + FAULTY and self.faults < self.plan.most_faults:
                self.fault()
            elif chance < NUDGED + FAULTY + BURIED and self.zombies:
                self.zombies.pop().alive = False
            else:
                self.deliver()
        raise AssertionError("the run does not finish")

    # -- what always holds

    def check_step(self, worker: SimulatedWorker, values: dict[int, Array]) -> None:
        """When a worker begins to compute a step."""
        order = worker.order
        assert order is not None
        if self.fixed:
            versions = self.versions[worker.clock]
            for index, value in values.items():
                assert np.array_equal(value, versions[index]), "a mixture of versions"
        staleness = self.plan.mode.staleness
        if staleness is not None and worker.incarnation in self.workers:
            for other in self.workers.values():
                if other.order is not None and other.order.generation == order.generation:
                    assert other.clock + bool(other.unpushed) >= worker.clock - staleness, "too far ahead"

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """All pieces hold the same gradients, each once, and those are what the clocks say."""
        ledgers = [state.batches for part in checkpoint.parts for state in part.pieces.values()]
        counted = set(ledgers[0])
        for ledger in ledgers:
            assert len(ledger) == len(set(ledger)), "a gradient was counted twice"
            assert set(ledger) == counted, "a mixture of ages"
        recorded = sorted(batch for steps in checkpoint.counted for batch in steps.batches())
        assert recorded == sorted(counted), "the record is not what was counted"
        after = checkpoint.assignment.after(checkpoint.clocks, 1)
        assert counted == {*range(after.first), *after.done}, "a batch was left out"
        if self.plan.mode.staleness is not None:
            assert max(checkpoint.clocks) - min(checkpoint.clocks) <= self.plan.mode.staleness + 1
