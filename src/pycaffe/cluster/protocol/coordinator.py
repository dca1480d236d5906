"""The state of a run on a cluster: events in, commands out. No actor, no thread, no clock.

It starts servers and workers, replaces those that die, takes checkpoints, lets workers join and leave, and knows when
the run ends. It is not on the way of a step: workers and servers speak with each other alone.

    generation g: the servers hold a checkpoint's parts ──restored──→ workers run
         ▲                                                            │
         ├── a server died: generation g + 1 from the last checkpoint ┤
         └── a worker joined or left: a checkpoint, then g + 1 from it┘
    A worker that dies within a generation: all servers hear of its successor (Fence), then that begins at the first
    step that not all pieces have counted.

A worker's process is named by its incarnation, a server's likewise: numbers that are never used twice. A rank is a
worker's place within a generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycaffe.cluster.protocol.assignment import CountedSteps
from pycaffe.cluster.protocol.commands import (
    Acknowledge,
    Command,
    CopyAt,
    Fail,
    Fence,
    Finish,
    Freeze,
    RestoreServer,
    RunWorker,
    StartServer,
    StartWorker,
    StopWorker,
    Taken,
)
from pycaffe.cluster.protocol.messages import Checkpoint
from pycaffe.cluster.protocol.run_state import CutState, RunConfig, ServerState, WorkerState, begun_with
from pycaffe.errors import SolverError

__all__ = ["Coordinator", "RunConfig"]


class Coordinator:
    """The books of a run. Each event adds commands, which `take` hands over in the order to carry them out.

    Commands and answers may be lost, late, or come twice; `tick` commands again what was not answered.

    Args:
        config: of the run.
        initial: the state to begin with, its `parts` by server; W of its assignment may differ from `config.workers`.

    Attributes:
        generation: how often servers were given a state.
        checkpoint: the last complete one.
        restarts: how many processes were started in place of dead ones.
        finished: no event changes anything any more.
    """

    def __init__(self, config: RunConfig, initial: Checkpoint) -> None:
        self.config = config
        self.checkpoint = initial
        self.generation = 0
        self.restarts = 0
        self.finished = False
        self._incarnations = 0
        self._servers: list[ServerState] = []
        self._workers: list[WorkerState] = []  # by rank
        self._joining: list[WorkerState] = []
        self._first: tuple[int, ...] = ()  # the incarnations that the generation began with, by rank
        self._begun = initial  # what it began from
        self._cut: CutState | None = None
        self._cuts = 0
        self._parts: dict[int, dict[int, tuple[tuple[int, ...], Any]]] = {}  # by cut and server
        self._wanted = self._stopping = False
        self._deaths = 0
        self._furthest = initial.iteration
        self._commands: list[Command] = []

    def take(self) -> list[Command]:
        """The commands since the last call."""
        commands, self._commands = self._commands, []
        return commands

    @property
    def incarnations(self) -> tuple[int, ...]:
        """The processes of the present workers, by rank."""
        return tuple(worker.incarnation for worker in self._workers)

    # -- from the user

    def start(self) -> None:
        """Begins: starts all processes."""
        if self.checkpoint.iteration >= self.config.max_iter:
            self._finish()
            return
        for server in range(self.config.servers):
            self._servers.append(ServerState(self._new_incarnation()))
            self._commands.append(StartServer(server, self._servers[server].incarnation))
        for rank in range(self.config.workers):
            self._workers.append(self._new_worker(rank))
        self._begin_generation()

    def join(self) -> None:
        """One more worker, once it is ready; nothing where there are `max_workers`."""
        if not self.finished and self._future_workers() < self.config.bounds[1]:
            self._joining.append(self._new_worker(len(self._workers) + len(self._joining)))

    def leave(self, rank: int | None = None) -> None:
        """One worker less, by default that of the highest rank; nothing where there are `min_workers`.

        Raises:
            SolverError: there is no such rank.
        """
        if rank is not None and not 0 <= rank < len(self._workers):
            raise SolverError(f"No worker has rank {rank!r}; there are {len(self._workers)}.")
        staying = [worker for worker in self._workers if not worker.leaves]
        if self.finished or len(staying) <= self.config.bounds[0]:
            return
        leaving = staying[-1] if rank is None else self._workers[rank]
        leaving.leaves = True
        self._go_on()

    def checkpoint_now(self) -> None:
        """A checkpoint as soon as possible."""
        self._wanted = True
        self._go_on()

    def stop(self) -> None:
        """A checkpoint as soon as possible, then Finish."""
        self._stopping = True
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Something happened that would happen again, such as an error of the net: Fail follows."""
        if not self.finished:
            self.finished = True
            self._commands.append(Fail(error))

    def tick(self) -> None:
        """Some time has passed."""
        if self.finished:
            return
        for rank, worker in enumerate(self._workers):
            if worker.lacks_room:
                worker.lacks_room = False
                self._commands.append(StartWorker(worker.incarnation, rank))
        for index in range(self.config.servers):
            self._restore(index)
        if self._restored():
            for rank in range(len(self._workers)):
                self._fence(rank)
                self._run(rank)
            self._command_cut()

    # -- from servers

    def server_ready(self, server: int, incarnation: int) -> None:
        """Its process runs."""
        if not self.finished and self._servers[server].incarnation == incarnation:
            self._servers[server].ready = True
            self._restore(server)

    def server_died(self, server: int, incarnation: int) -> None:
        """Its process is gone, and what it held."""
        if self.finished or self._servers[server].incarnation != incarnation:
            return
        self._servers[server] = ServerState(self._new_incarnation())
        if self._count_death(f"server {server!r}"):
            self._commands.append(StartServer(server, self._servers[server].incarnation))
            self._begin_generation()

    def restored(self, server: int, generation: int) -> None:
        """Answers RestoreServer."""
        if self.finished or generation != self.generation or self._servers[server].restored == generation:
            return
        self._servers[server].restored = generation
        if self._restored():
            for rank in range(len(self._workers)):
                self._fence(rank)
                self._run(rank)
            self._go_on()

    def fenced(self, server: int, generation: int, rank: int, incarnation: int, clock: int | None) -> None:
        """Answers Fence."""
        if self.finished or generation != self.generation or clock is None:
            return
        worker = self._workers[rank]
        if worker.incarnation == incarnation:
            worker.fenced.setdefault(server, clock)
            self._run(rank)

    def frozen(self, server: int, generation: int, cut: int, clocks: Sequence[int] | None) -> None:
        """Answers Freeze."""
        current = self._cut
        if self.finished or generation != self.generation or clocks is None:
            return
        if current is None or current.number != cut or current.clocks is not None:
            return
        current.frozen[server] = tuple(clocks)
        if len(current.frozen) == self.config.servers:
            furthest = tuple(max(by_rank) for by_rank in zip(*current.frozen.values()))
            # In sync a version is cut, and whoever pushed the last step has seen that all pieces can come so far.
            same = (max(furthest),) * len(furthest)
            current.clocks = same if self.config.mode.name == "sync" else furthest
            self._command_cut()

    def part_copied(self, server: int, generation: int, cut: int, clocks: Sequence[int], part: Any) -> None:
        """A server's part of a checkpoint is here; `part` is kept as it is."""
        if self.finished or generation != self.generation:
            return
        self._commands.append(Acknowledge(server, self._servers[server].incarnation, generation, cut))
        if cut < 0 and self._iteration(clocks) <= self.checkpoint.iteration:
            return  # of a checkpoint that is complete, or older than one
        if cut > 0 and (self._cut is None or self._cut.number != cut):
            return
        parts = self._parts.setdefault(cut, {})
        parts.setdefault(server, (tuple(clocks), part))
        if len(parts) == self.config.servers:
            self._complete(cut)

    # -- from workers

    def worker_ready(self, incarnation: int) -> None:
        """Its process has loaded the net."""
        if self.finished:
            return
        for worker in (*self._workers, *self._joining):
            if worker.incarnation == incarnation:
                worker.ready = True
        if incarnation in self.incarnations:
            self._run(self.incarnations.index(incarnation))
        self._go_on()

    def worker_died(self, incarnation: int) -> None:
        """Its process is gone."""
        if self.finished:
            return
        for place, worker in enumerate(self._joining):
            if worker.incarnation == incarnation and self._count_death("a worker that was to join"):
                self._joining[place] = self._new_worker(len(self._workers) + place)
                return
        if incarnation in self.incarnations:
            rank = self.incarnations.index(incarnation)
            if self._count_death(f"the worker of rank {rank!r}"):
                leaves = self._workers[rank].leaves
                self._workers[rank] = self._new_worker(rank)
                self._workers[rank].needs_fence, self._workers[rank].leaves = True, leaves
                self._fence(rank)

    def worker_cannot_start(self, incarnation: int) -> None:
        """There is no room for this process. The run goes on with fewer workers where `min_workers` allows it."""
        if self.finished:
            return
        self._joining = [worker for worker in self._joining if worker.incarnation != incarnation]
        if incarnation not in self.incarnations:
            return
        rank = self.incarnations.index(incarnation)
        others = self._workers[:rank] + self._workers[rank + 1 :]
        if sum(not worker.leaves for worker in others) >= self.config.bounds[0]:
            # A cut might wait for steps that nobody of this rank does any more, so back to the last checkpoint.
            self._workers = others
            self._begin_generation()
        else:
            # Under a new name, for the process may have been about to start after all.
            leaves = self._workers[rank].leaves
            self._workers[rank] = WorkerState(self._new_incarnation(), needs_fence=True, leaves=leaves, lacks_room=True)
            self._fence(rank)

    def progress(self, incarnation: int, generation: int, clock: int) -> None:
        """A worker has done its steps below `clock`: their pushes are answered."""
        if self.finished or generation != self.generation or incarnation not in self.incarnations:
            return
        worker = self._workers[self.incarnations.index(incarnation)]
        worker.clock = max(clock, worker.clock or 0)
        iteration = self._iteration(self._clocks())
        if iteration > self._furthest:
            self._furthest, self._deaths = iteration, 0
        self._go_on()

    # -- inside: processes

    def _new_incarnation(self) -> int:
        self._incarnations += 1
        return self._incarnations

    def _new_worker(self, rank: int) -> WorkerState:
        worker = WorkerState(self._new_incarnation())
        self._commands.append(StartWorker(worker.incarnation, rank))
        return worker

    def _future_workers(self) -> int:
        """How many there will be when all have joined and left who are about to."""
        return sum(not worker.leaves for worker in self._workers) + len(self._joining)

    def _count_death(self, who: str) -> bool:
        """Whether the run goes on."""
        self._deaths += 1
        self.restarts += 1
        if self._deaths > self.config.max_deaths:
            self.fail(SolverError(f"{self._deaths} processes died with no step in between, at last {who}."))
        return not self.finished

    # -- inside: generations

    def _begin_generation(self) -> None:
        """All servers get the last checkpoint, and workers begin from it; those join and leave who are about to."""
        for worker in self._workers:
            if worker.leaves:
                self._commands.append(StopWorker(worker.incarnation))
        joined = [worker for worker in self._joining if worker.ready]
        self._joining = [worker for worker in self._joining if not worker.ready]
        self._workers = [worker for worker in self._workers if not worker.leaves] + joined
        for worker in self._workers:
            worker.needs_fence, worker.clock = False, None
            worker.fenced = {}
        self.generation += 1
        self._first = self.incarnations
        self._begun = begun_with(self.checkpoint, len(self._workers))
        self._cut, self._parts = None, {}
        for index in range(self.config.servers):
            self._restore(index)

    def _restored(self) -> bool:
        return all(server.restored == self.generation for server in self._servers)

    def _restore(self, index: int) -> None:
        server, begun = self._servers[index], self._begun
        if server.ready and server.restored != self.generation:
            self._commands.append(
                RestoreServer(
                    index,
                    server.incarnation,
                    self.generation,
                    self._first,
                    begun.base,
                    begun.clocks,
                    begun.parts[index],
                )
            )

    def _fence(self, rank: int) -> None:
        """Servers hear of a dead worker's successor."""
        worker = self._workers[rank]
        if worker.needs_fence and self._restored():
            for index, server in enumerate(self._servers):
                if index not in worker.fenced:
                    self._commands.append(Fence(index, server.incarnation, self.generation, rank, worker.incarnation))

    def _run(self, rank: int) -> None:
        worker, begun = self._workers[rank], self._begun
        heard = not worker.needs_fence or len(worker.fenced) == self.config.servers
        if worker.ready and worker.clock is None and heard and self._restored():
            clock = min(worker.fenced.values()) if worker.needs_fence else begun.clocks[rank]
            end = None if self.config.mode.name == "async" else self.config.max_iter - begun.base
            self._commands.append(
                RunWorker(worker.incarnation, self.generation, rank, begun.base, clock, end, begun.assignment)
            )

    # -- inside: checkpoints

    def _clocks(self) -> tuple[int, ...]:
        """Steps done by rank, as far as is known."""
        begun = self._begun.clocks
        return tuple(begun[rank] if worker.clock is None else worker.clock for rank, worker in enumerate(self._workers))

    def _iteration(self, clocks: Sequence[int]) -> int:
        """The solver's iteration after these steps: W pushes are one, whoever made them."""
        return min(self._begun.base + sum(clocks) // len(clocks), self.config.max_iter)

    def _is_due(self) -> bool:
        """Whether a cut should begin."""
        if self._wanted or self._stopping:
            return True
        if any(worker.leaves for worker in self._workers) or any(worker.ready for worker in self._joining):
            return True
        if self.config.mode.name == "sync":
            return False  # servers copy by themselves what is due by the interval, and the end
        iteration, interval = self._iteration(self._clocks()), self.config.checkpoint_interval
        last = self.checkpoint.iteration
        return iteration >= self.config.max_iter or bool(interval and iteration // interval > last // interval)

    def _go_on(self) -> None:
        """Begins a cut if one is due."""
        if not self.finished and self._cut is None and self._servers and self._restored() and self._is_due():
            self._cuts += 1
            self._cut = CutState(self._cuts)
            self._command_cut()

    def _command_cut(self) -> None:
        """Freeze or CopyAt, to those servers that have not answered."""
        cut = self._cut
        if cut is None:
            return
        for index, server in enumerate(self._servers):
            if cut.clocks is None and index not in cut.frozen:
                self._commands.append(Freeze(index, server.incarnation, self.generation, cut.number))
            elif cut.clocks is not None and index not in self._parts.get(cut.number, {}):
                self._commands.append(CopyAt(index, server.incarnation, self.generation, cut.number, cut.clocks))

    def _complete(self, cut: int) -> None:
        parts = self._parts.pop(cut)
        clocks = parts[0][0]
        begun = self._begun
        self.checkpoint = Checkpoint(
            number=self.checkpoint.number + 1,
            iteration=self._iteration(clocks),
            base=begun.base,
            clocks=clocks,
            assignment=begun.assignment,
            parts=tuple(parts[index][1] for index in range(self.config.servers)),
            counted=(*begun.counted, CountedSteps(self.generation, begun.assignment, begun.clocks, clocks)),
        )
        self._deaths = 0
        reached = (
            self.checkpoint.iteration - begun.base
        )  # what is due by the interval beyond may become a checkpoint yet
        self._parts = {number: found for number, found in self._parts.items() if number > 0 or -number > reached}
        self._commands.append(Taken(self.checkpoint))
        asked = self._cut is not None and self._cut.number == cut
        if asked:
            self._cut, self._wanted = None, False
        if self.checkpoint.iteration >= self.config.max_iter or (asked and self._stopping):
            self._finish()
        elif asked and (any(worker.leaves for worker in self._workers) or any(w.ready for w in self._joining)):
            self._begin_generation()
        else:
            self._go_on()

    def _finish(self) -> None:
        self.finished = True
        self._commands.append(Finish(self.checkpoint))
