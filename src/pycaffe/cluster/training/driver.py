"""Carries out what the coordinator commands, on Ray, and tells it what happens.

    Coordinator.take() ─→ command ─→ a call of an actor ─→ its answer, a death or silence ─→ Coordinator

All actors belong to this process: they end with it, whatever way it ends. It asks every worker and server for news
without a break; the error that such a question ends with is how it hears of a death.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pycaffe.cluster.connection import full_store, full_store_errors
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
from pycaffe.cluster.protocol.coordinator import Coordinator
from pycaffe.cluster.protocol.messages import Checkpoint, Part, Restore
from pycaffe.cluster.protocol.shard_server import ServerConfig
from pycaffe.cluster.training.checkpoints import RunSolver
from pycaffe.cluster.training.control import RunControl
from pycaffe.cluster.training.recorder import Recorder, first_batch
from pycaffe.cluster.training.resources import Resources
from pycaffe.cluster.training.worker_actor import Concluded, Failed, News, Order, Ready, WorkerSettings
from pycaffe.cluster.training.worker_solver import StepReport
from pycaffe.errors import ClusterError
from pycaffe.solvers.progress import log_progress

__all__ = ["Driver"]

logger = logging.getLogger("pycaffe.cluster")

WAIT_SECONDS = 0.2  # for news; then it is looked what somebody asks
TICK_SECONDS = 1.0
LEAVE_SECONDS = 2.0
REPORT_SECONDS = 10.0  # for the last reports, once the servers have the run's result
START_SECONDS = 60.0  # a process that says nothing within it has no room in the cluster


class Driver:
    """One run.

    Args:
        ray: the module.
        solver: what the run begins with; gets its checkpoints.
        coordinator: of the run.
        recorder: likewise.
        settings: of all workers.
        server_config: of server 0; those of the others differ in their number.
        worker: what each worker takes.
        control: what is asked while it runs.
    """

    def __init__(
        self,
        ray: Any,
        solver: RunSolver,
        coordinator: Coordinator,
        recorder: Recorder,
        settings: WorkerSettings,
        server_config: ServerConfig,
        worker: Resources,
        control: RunControl,
    ) -> None:
        self._ray = ray
        self._solver = solver
        self._coordinator = coordinator
        self._recorder = recorder
        self._settings, self._server_config, self._worker = settings, server_config, worker
        self._control = control
        self._workers: dict[int, Any] = {}  # by incarnation
        self._leaving: dict[int, tuple[float, Any]] = {}  # likewise: until when their last reports are waited for
        self._servers: dict[int, tuple[int, Any]] = {}  # by number: incarnation, actor
        self._asked: dict[Any, Callable[[Any], None]] = {}  # what to do with the answer to a call
        self._lost: dict[Any, tuple[Callable[[], None], Callable[[], Any]]] = {}  # what to do where it has none
        self._unheard: dict[int, float] = {}  # by incarnation: until when a new worker should speak
        self._without_room = 0  # workers that the run has to do without
        self._ranks: dict[int, int] = {}  # by rank, the incarnation
        self._silent: set[int] = set()  # workers that do nothing any more
        # What is commanded again until it is answered was told all the same, if the process lives.
        self._orders: dict[int, RunWorker] = {}  # by incarnation of a worker
        self._restored: dict[int, int] = {}  # by incarnation of a server, the generation
        self._wants_snapshot = False
        self._snapshot_of = solver.iter  # the iteration of the last one
        self._result: Checkpoint | None = None

    def run(self) -> Checkpoint:
        """Runs to the end; what is learned then is in the solver. No actor is left, whatever happens.

        Raises:
            CaffeError: a worker failed, or processes died more often than they may.
        """
        param = self._solver.param
        log_progress("solver.cpp:289", "Solving %s", self._solver.net._graph.name)
        log_progress("solver.cpp:290", "Learning Rate Policy: %s", param.lr_policy)
        try:
            self._coordinator.start()
            self._obey()
            self._loop()
            assert self._result is not None
            return self._result
        except full_store_errors(self._ray) as error:
            raise full_store("the parameters", error) from error
        finally:
            pairs = [*self._leaving.values(), *self._servers.values()]
            for actor in [*self._workers.values(), *(actor for _, actor in pairs)]:
                self._ray.kill(actor)

    def _loop(self) -> None:
        ticked = time.monotonic()
        while self._result is None:
            self._hear()
            self._wants_snapshot = self._control.pass_on(self._coordinator) or self._wants_snapshot
            if time.monotonic() - ticked > TICK_SECONDS:
                ticked = time.monotonic()
                self._coordinator.tick()
                self._see_off()
                self._look_for_room()
            self._obey()

    # -- calls and their answers

    def _ask(
        self,
        ref: Any,
        answered: Callable[[Any], None],
        lost: Callable[[], None] = lambda: None,
        cut_off: Callable[[], Any] = lambda: None,
    ) -> None:
        """Notes what to do with an answer, without one because the process is dead, or because it is out of reach."""
        self._asked[ref] = answered
        self._lost[ref] = (lost, cut_off)

    def _hear(self) -> None:
        """Deals with the answers that have come; waits a little where there are none."""
        if not self._asked:
            return
        ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=WAIT_SECONDS)
        if ready:
            ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for ref in ready:
            answered, (lost, cut_off) = self._asked.pop(ref), self._lost.pop(ref)
            try:
                answer = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:
                self._coordinator.fail(error.cause if isinstance(error.cause, BaseException) else error)
            except full_store_errors(self._ray) as error:
                self._coordinator.fail(full_store("the parameters", error))
            except self._ray.exceptions.ActorUnavailableError:
                cut_off()  # the network may come back, or Ray finds that the node is gone
            except self._ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    self._coordinator.fail(ClusterError(f"A process of the run cannot be set up: {error}"))
                lost()
            else:
                answered(answer)

    # -- workers

    def _start_worker(self, command: StartWorker) -> None:
        from pycaffe.cluster.training.worker_actor import WorkerActor

        options = {"num_cpus": self._worker.cpus, "num_gpus": self._worker.gpus, "max_concurrency": 4}
        actor = self._ray.remote(**options, max_restarts=0, scheduling_strategy="SPREAD")(WorkerActor)
        self._workers[command.incarnation] = actor.remote(self._settings)
        self._unheard[command.incarnation] = time.monotonic() + START_SECONDS
        self._ask_worker(command.incarnation)

    def _ask_worker(self, incarnation: int) -> None:
        actor = self._workers[incarnation]
        heard = 0

        def answered(news: list[News]) -> None:
            nonlocal heard
            heard += len(news)
            self._unheard.pop(incarnation, None)
            for each in news:
                self._hear_worker(incarnation, each)
            ask()

        def lost() -> None:
            self._leaving.pop(incarnation, None)
            self._unheard.pop(incarnation, None)
            if self._workers.pop(incarnation, None) is not None:
                logger.warning("Worker process %d died.", incarnation)
                self._coordinator.worker_died(incarnation)

        def ask() -> None:
            if incarnation in self._workers or incarnation in self._leaving:
                self._ask(actor.news.remote(heard), answered, lost, ask)

        ask()

    def _hear_worker(self, incarnation: int, news: News) -> None:
        if isinstance(news, logging.LogRecord):
            target = logging.getLogger(news.name)
            if target.isEnabledFor(news.levelno):
                target.handle(news)
        elif isinstance(news, StepReport):
            self._recorder.add(news)
            self._coordinator.progress(incarnation, news.generation, news.clock + 1)
        elif isinstance(news, Ready):
            logger.info("Worker process %d is ready: pid %d on %s.", incarnation, news.pid, news.node)
            self._coordinator.worker_ready(incarnation)
        elif isinstance(news, Failed):
            self._silent.add(incarnation)
            self._coordinator.fail(news.error)
        elif isinstance(news, Concluded):
            self._silent.add(incarnation)

    def _run_worker(self, command: RunWorker) -> None:
        actor = self._workers.get(command.incarnation)
        if actor is None or self._orders.get(command.incarnation) == command:
            return
        self._orders[command.incarnation] = command
        self._ranks[command.rank] = command.incarnation
        iteration = command.base + command.clock
        self._recorder.begin(command.generation, command.assignment.workers, iteration)
        first = command.assignment.batches(command.rank, command.clock)[0]
        state = self._recorder.run_state_at(iteration) if command.rank == 0 else None
        servers = tuple(self._servers[index][1] for index in sorted(self._servers))
        order = Order(command, servers, self._recorder.place_before(first), state)
        cut_off = functools.partial(self._orders.pop, command.incarnation, None)
        self._ask(actor.order.remote(order), lambda _: None, cut_off=cut_off)

    def _stop_worker(self, command: StopWorker) -> None:
        actor = self._workers.pop(command.incarnation, None)
        if actor is not None:
            self._leaving[command.incarnation] = (time.monotonic() + LEAVE_SECONDS, actor)

    def _look_for_room(self) -> None:
        """Goes on without workers that the cluster has no room for; with them again once it has."""
        now = time.monotonic()
        for incarnation in [incarnation for incarnation, until in self._unheard.items() if now > until]:
            del self._unheard[incarnation]
            actor = self._workers.pop(incarnation, None)
            if actor is not None:
                logger.warning("The cluster has no room for worker process %d.", incarnation)
                self._ray.kill(actor)
                self._without_room += 1
                self._coordinator.worker_cannot_start(incarnation)
        if self._without_room and self._ray.available_resources().get("CPU", 0) >= self._worker.cpus:
            self._without_room -= 1
            self._coordinator.join()

    def _see_off(self) -> None:
        """Ends the workers that had time to report what they did last."""
        for incarnation, (until, actor) in list(self._leaving.items()):
            if time.monotonic() > until:
                del self._leaving[incarnation]
                self._ray.kill(actor)

    # -- servers

    def _start_server(self, command: StartServer) -> None:
        from pycaffe.cluster.training.server_actor import ServerActor

        number, incarnation = command.server, command.incarnation
        config = replace(self._server_config, server=number, solver=None)
        solver = self._server_config.solver.SerializeToString()
        actor = self._ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy="SPREAD")(ServerActor).remote(
            config, solver, 1
        )
        self._servers[number] = (incarnation, actor)

        def ready(where: tuple[str, int]) -> None:
            logger.info("Server %d is ready: pid %d on %s.", number, where[1], where[0])
            self._coordinator.server_ready(number, incarnation)

        self._ask(actor.ready.remote(), ready)
        self._ask_server(number, incarnation, actor)

    def _ask_server(self, number: int, incarnation: int, actor: Any) -> None:
        def answered(parts: list[Part]) -> None:
            for part in parts:
                self._coordinator.part_copied(number, part.generation, part.cut, part.clocks, part.copied())
            ask()

        def lost() -> None:
            if self._servers.get(number, (None,))[0] == incarnation:
                logger.warning("Server %d died. All go back to the checkpoint of iteration %d.", number, self._last())
                self._coordinator.server_died(number, incarnation)

        def ask() -> None:
            if self._servers.get(number, (None,))[0] == incarnation:
                self._ask(actor.news.remote(), answered, lost, ask)

        ask()

    def _last(self) -> int:
        return self._coordinator.checkpoint.iteration

    def _server(self, number: int, incarnation: int) -> Any:
        """The actor, or None where another has taken its place."""
        present, actor = self._servers[number]
        return actor if present == incarnation else None

    def _restore_server(self, command: RestoreServer) -> None:
        actor = self._server(command.server, command.incarnation)
        if actor is None or self._restored.get(command.incarnation) == command.generation:
            return
        self._restored[command.incarnation] = command.generation
        message = Restore(command.generation, command.incarnations, command.base, command.clocks, command.part)
        peers = tuple(self._servers[index][1] for index in sorted(self._servers))
        answered = functools.partial(self._coordinator.restored, command.server)
        cut_off = functools.partial(self._restored.pop, command.incarnation, None)
        self._ask(actor.restore.remote(message, peers), answered, cut_off=cut_off)

    def _fence(self, command: Fence) -> None:
        actor = self._server(command.server, command.server_incarnation)
        if actor is not None:
            self._ask(
                actor.fence.remote(command.generation, command.rank, command.incarnation),
                lambda clock: self._coordinator.fenced(
                    command.server, command.generation, command.rank, command.incarnation, clock
                ),
            )

    def _freeze(self, command: Freeze) -> None:
        actor = self._server(command.server, command.server_incarnation)
        if actor is not None:
            self._ask(
                actor.freeze.remote(command.generation, command.cut),
                lambda clocks: self._coordinator.frozen(command.server, command.generation, command.cut, clocks),
            )

    def _copy_at(self, command: CopyAt) -> None:
        actor = self._server(command.server, command.server_incarnation)
        if actor is not None:
            self._ask(actor.cut.remote(command.generation, command.cut, command.clocks), lambda _: None)

    def _acknowledge(self, command: Acknowledge) -> None:
        actor = self._server(command.server, command.server_incarnation)
        if actor is not None:
            self._ask(actor.release.remote(command.generation, command.cut), lambda _: None)

    # -- checkpoints

    def _taken(self, command: Taken) -> None:
        checkpoint = command.checkpoint
        param = self._solver.param
        due = param.snapshot > 0 and checkpoint.iteration // param.snapshot > self._snapshot_of // param.snapshot
        if due or self._wants_snapshot:
            self._wants_snapshot = False
            self._hold(checkpoint)
            self._snapshot()
        self._recorder.forget_before(checkpoint)

    def _hold(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint what the solver holds."""
        batch = first_batch(checkpoint)
        self._solver.take(checkpoint.parts, self._server_config.pieces, checkpoint.iteration)
        self._solver.place = self._solver.data.place_of(batch, self._recorder.place_before(batch))
        self._solver.run_state = self._recorder.run_state_at(checkpoint.iteration)

    def _snapshot(self) -> None:
        self._solver.snapshot()
        self._snapshot_of = self._solver.iter
        if self._solver.newest_snapshot is not None:
            self._recorder.run.snapshots.append(os.fspath(self._solver.newest_snapshot))

    def _finish(self, command: Finish) -> None:
        until = time.monotonic() + REPORT_SECONDS
        while self._lacks_reports(command.checkpoint) and time.monotonic() < until:
            self._hear()
        self._hold(command.checkpoint)
        if self._solver.param.snapshot_after_train and self._snapshot_of != self._solver.iter:
            self._snapshot()
        self._conclude(command.checkpoint)
        self._result = command.checkpoint

    def _lacks_reports(self, checkpoint: Checkpoint) -> bool:
        """Whether a worker that lives has yet to tell of steps that are in the checkpoint."""
        for rank, clock in enumerate(checkpoint.clocks):
            incarnation = self._ranks.get(rank, -1)
            order = self._orders.get(incarnation)
            lives = incarnation in self._workers and incarnation not in self._silent
            if lives and order is not None and max(order.clock, self._recorder.reported(rank)) < clock:
                return True
        return False

    def _conclude(self, checkpoint: Checkpoint) -> None:
        """Lets rank 0 display and test once more, where the run has come to its end and rank 0 still lives."""
        if checkpoint.iteration < self._solver.param.max_iter:
            log_progress("solver.cpp:311", "Optimization stopped early.")
            return
        actor = self._workers.get(self._ranks.get(0, -1))
        if actor is None:
            return
        incarnation = self._ranks[0]
        self._ask(actor.conclude.remote(checkpoint.iteration, self._solver.values()), lambda _: None)
        while incarnation in self._workers and incarnation not in self._silent:
            self._hear()

    # -- all

    def _obey(self) -> None:
        deeds: dict[type[Command], Callable[[Any], None]] = {
            StartServer: self._start_server,
            StartWorker: self._start_worker,
            StopWorker: self._stop_worker,
            RestoreServer: self._restore_server,
            RunWorker: self._run_worker,
            Fence: self._fence,
            Freeze: self._freeze,
            CopyAt: self._copy_at,
            Acknowledge: self._acknowledge,
            Taken: self._taken,
            Finish: self._finish,
            Fail: self._fail,
        }
        for command in self._coordinator.take():
            deeds[type(command)](command)

    def _fail(self, command: Fail) -> None:
        """Raises the error, after what was learned is saved."""
        checkpoint, param = self._coordinator.checkpoint, self._solver.param
        if checkpoint.iteration > self._snapshot_of and (param.snapshot or param.snapshot_after_train):
            self._hold(checkpoint)
            self._snapshot()
            logger.error("What was learned in %d iterations is saved.", checkpoint.iteration)
        raise command.error
