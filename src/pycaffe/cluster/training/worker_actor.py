"""A worker's actor: a WorkerSolver on a thread of its own, orders in, news out.

order() ─→ inbox ─→ working thread: WorkerSolver.run ─→ news ─→ news()
           the newest order counts; it interrupts what is being done, also a wait for servers
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.connection import full_store, full_store_errors
from pycaffe.cluster.protocol.commands import RunWorker
from pycaffe.cluster.protocol.messages import Pull, Push
from pycaffe.cluster.training.data_position import Place
from pycaffe.cluster.training.exchange import Answer, Interrupted, Plan
from pycaffe.cluster.training.worker_solver import StepReport, WorkerSolver
from pycaffe.errors import CaffeError, ClusterError, SolverError
from pycaffe.layers._torch import torch
from pycaffe.proto.schema import SolverParameter
from pycaffe.threads import set_num_threads

__all__ = ["Concluded", "Failed", "News", "Order", "RayLink", "Ready", "WorkerActor", "WorkerSettings"]

LOOK_SECONDS = 0.5  # between two looks whether a wait is still wanted
GATHER_SECONDS = 0.05  # of news that go together: an answer for each step would cost as much as the step's own messages
TELL_SECONDS = 10.0  # how long a question for news waits for some


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told once.

    Attributes:
        param: the SolverParameter with the random_seed of the run, serialized: protobuf's own pickles do not travel by
            value.
        plan: of the run.
        folder: the working directory, which relative paths are of.
        threads: for its arithmetic.
        saves_every: rank 0 tells its state at iterations that are multiples of one of these.
    """

    param: bytes
    plan: Plan
    folder: str
    threads: int
    saves_every: tuple[int, ...]


@dataclass(frozen=True)
class Order:
    """What to do, with what it takes.

    Attributes:
        run: which steps.
        servers: their actors, by number.
        place, run_state: as of `WorkerSolver.run`.
    """

    run: RunWorker
    servers: tuple[Any, ...]
    place: Place
    run_state: dict[str, Any] | None


@dataclass(frozen=True)
class Ready:
    """The net is loaded. Attributes: node, pid: where."""

    node: str
    pid: int


@dataclass(frozen=True)
class Failed:
    """Something that would fail elsewhere as well."""

    error: BaseException


@dataclass(frozen=True)
class Concluded:
    """The last display and test are done."""


News = Ready | Failed | Concluded | StepReport | logging.LogRecord


class WorkerActor:
    """Runs as an actor with several threads.

    Args:
        settings: of the run.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._inbox: queue.SimpleQueue[Order | _Conclusion] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._asked = threading.Lock()
        self._heard = 0  # news that the process that began the run has
        self._told: list[News] = []  # those after them that it may have
        threading.Thread(target=self._live, name="pycaffe-worker", daemon=True).start()

    # -- calls

    def order(self, order: Order) -> None:
        """Takes an order; the one before ends."""
        self._inbox.put(order)

    def conclude(self, iteration: int, values: Sequence[Any]) -> None:
        """Takes the run's last parameters for a last display and test; Concluded follows."""
        self._inbox.put(_Conclusion(iteration, values))

    def _superseded(self) -> bool:
        """Whether there is an order that is not begun."""
        return not self._inbox.empty()

    def news(self, heard: int) -> list[News]:
        """What has happened, as soon as there is something; nothing after a while.

        Args:
            heard: how many news have come through. The others are told again: an answer is lost where the link is cut.
        """
        with self._asked:  # a question whose answer is lost may still wait for news
            if heard > self._heard:
                del self._told[: heard - self._heard]
                self._heard = heard
            if not self._told:
                try:
                    self._told.append(self._news.get(timeout=TELL_SECONDS))
                except queue.Empty:
                    return []
                time.sleep(GATHER_SECONDS)
            while not self._news.empty():
                self._told.append(self._news.get())
            return list(self._told)

    # -- the working thread

    def _live(self) -> None:
        try:
            solver = self._make_solver()
            self._news.put(Ready(socket.gethostname(), os.getpid()))
            while True:
                task = self._inbox.get()
                while not self._inbox.empty():
                    task = self._inbox.get()
                self._do(solver, task)
        except BaseException as error:
            self._news.put(Failed(_portable(error)))

    def _make_solver(self) -> WorkerSolver:
        settings = self._settings
        set_num_threads(settings.threads)
        torch.set_num_threads(settings.threads)  # loads it
        try:
            os.chdir(settings.folder)
        except OSError as error:
            raise ClusterError(
                f"Node {socket.gethostname()!r} has no folder {settings.folder!r} ({error.strerror}), where the run "
                "was begun and which relative paths are of. Begin it in a folder that all nodes have."
            ) from error
        every = [interval for interval in settings.saves_every if interval > 0]
        return WorkerSolver(
            SolverParameter.FromString(settings.param),
            settings.plan,
            self._news.put,
            saves=lambda iteration: any(iteration % n == 0 for n in every),
            superseded=self._superseded,
        )

    def _do(self, solver: WorkerSolver, task: Order | _Conclusion) -> None:
        first = not isinstance(task, Order) or task.run.rank == 0
        if first:
            solver.make_tests()
        handler = _Forwarding(self._news, first)
        logger = logging.getLogger("pycaffe")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            if isinstance(task, Order):
                link = RayLink(task.servers, self._superseded)
                solver.run(task.run, link, task.place, task.run_state)
            else:
                solver.conclude(task.iteration, list(task.values))
                self._news.put(Concluded())
        except Interrupted:
            pass
        finally:
            logger.removeHandler(handler)


@dataclass(frozen=True)
class _Conclusion:
    iteration: int
    values: Sequence[Any]


class RayLink:
    """Servers that are actors.

    Args:
        servers: by number.
        given_up: whether nobody wants the answers any more.
    """

    def __init__(self, servers: Sequence[Any], given_up: Callable[[], bool]) -> None:
        self._servers = servers
        self._given_up = given_up

    def send(self, server: int, push: Push | None, pull: Pull | None) -> Any:
        """Sets a message off."""
        call = functools.partial(self._servers[server].exchange.remote, push, pull)
        return call, call()

    def wait(self, tickets: Sequence[Any]) -> list[Answer]:
        """The answers, once all are there. Raises Interrupted where a server is gone or another order is due."""
        return [self._answer(call, ref) for call, ref in tickets]

    def _answer(self, call: Callable[[], Any], ref: Any) -> Answer:
        import ray

        while True:
            try:
                answer: Answer = ray.get(ref, timeout=LOOK_SECONDS)
                return answer
            except ray.exceptions.GetTimeoutError:
                self._check_wanted()
            except ray.exceptions.ActorUnavailableError:  # the network was cut: servers count what they know once
                self._check_wanted()
                time.sleep(LOOK_SECONDS)
                ref = call()
            except (ray.exceptions.RayTaskError, *full_store_errors(ray)):
                raise
            except ray.exceptions.RayError as error:
                raise Interrupted from error

    def _check_wanted(self) -> None:
        if self._given_up():
            raise Interrupted


class _Forwarding(logging.Handler):
    """Sends log records to the process that began the run: rank 0's, and warnings of the others."""

    def __init__(self, news: queue.SimpleQueue[News], everything: bool) -> None:
        super().__init__(logging.INFO if everything else logging.WARNING)
        self._news = news

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None  # the rest may not pickle
        self._news.put(record)


def _portable(error: BaseException) -> BaseException:
    """An error that pickles: ours as it is, others by their text."""
    import ray

    if isinstance(error, CaffeError):
        return error
    if isinstance(error, full_store_errors(ray)):
        return full_store("gradients and parameters", error)
    failure = SolverError(f"A worker failed: {type(error).__name__}: {error}")
    failure.__cause__ = error if isinstance(error, (ValueError, TypeError, RuntimeError, OSError)) else None
    return failure
