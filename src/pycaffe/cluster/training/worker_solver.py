"""The solver in a worker: Caffe's own, whose gradients go to the servers and whose values come from them.

    iteration:  tests, where it is time (rank 0) → forward → backward of a bucket of layers → its gradients set out
                → … → display (rank 0) → all counted, the next values are here → report

What a report holds, and nothing else, is what the coordinator knows of a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycaffe import parallel
from pycaffe.cluster.protocol.commands import RunWorker
from pycaffe.cluster.protocol.messages import Sender
from pycaffe.cluster.training.data_position import DataPosition, Place
from pycaffe.cluster.training.exchange import Exchange, Link, Plan, Traffic
from pycaffe.solvers import Action, Solver
from pycaffe.solvers.nets import make_test_nets
from pycaffe.solvers.run_state import restore_layers

__all__ = ["StepReport", "WorkerSolver"]

FOR_EVER = 1 << 60  # iterations


@dataclass(frozen=True)
class StepReport:
    """What a worker tells after each step.

    Attributes:
        generation, rank, clock: which step.
        iteration: of the solver.
        loss: of this worker's batches.
        pulled_at, pushed_at: when the step's values were there, and when its first gradient set out.
        batches: what was read.
        place: where the readers are afterwards.
        traffic: payload, with the pull for the next step.
        run_state: from rank 0, where the iteration is one at which somebody may ask: what a snapshot saves beside
            parameters and histories.
    """

    generation: int
    rank: int
    clock: int
    iteration: int
    loss: float
    pulled_at: float
    pushed_at: float
    batches: tuple[int, ...]
    place: Place
    traffic: Traffic
    run_state: dict[str, Any] | None = None


class WorkerSolver(Solver):
    """A solver of which several, in processes of their own, train one net through parameter servers.

    Args:
        param: the SolverParameter, with a random_seed that all workers have.
        plan: of the run.
        report: takes what was done, after each step.
        saves: whether the state after an iteration may be asked for.
        superseded: whether the present order is to end.
    """

    def __init__(
        self,
        param: Any,
        plan: Plan,
        report: Callable[[StepReport], Any],
        *,
        saves: Callable[[int], bool],
        superseded: Callable[[], bool],
    ) -> None:
        self._whole_param = param
        own = type(param)()
        own.CopyFrom(param)
        # Only rank 0 tests, and which worker that is may change; whoever began the run writes snapshots.
        for field in ("test_net", "test_net_param", "test_state", "test_iter", "test_interval", "snapshot"):
            own.ClearField(field)
        super().__init__(own)
        self._plan, self._report, self._saves = plan, report, saves
        self._data = DataPosition(self.net)
        self._exchange = Exchange(self.net._graph, plan)
        self.set_action_function(lambda: Action.STOP if superseded() else Action.NONE)

    def make_tests(self) -> None:
        """Makes the test nets; before `run` as rank 0, who alone tests. Repeatable."""
        if not self.test_nets and self._whole_param.test_iter:
            for field in ("test_net", "test_net_param", "test_state", "test_iter"):
                getattr(self.param, field).MergeFrom(getattr(self._whole_param, field))
            self.param.test_interval = self._whole_param.test_interval
            self.test_nets = make_test_nets(self.param)

    def run(self, order: RunWorker, link: Link, place: Place, run_state: dict[str, Any] | None) -> None:
        """Does the steps of an order.

        Args:
            order: which steps, as whom.
            link: to the servers.
            place: one in the data that is not behind the first batch of the order.
            run_state: for rank 0, as of a StepReport at the order's beginning; None for none.

        Raises:
            Interrupted: another order is due.
            CaffeError: as `Solver.step`.
        """
        parallel.set_solver_rank(order.rank)
        if order.rank > 0:
            self._draw_as(order)
        self._data.go(order.assignment, order.rank, order.clock, place)
        if run_state is not None:
            self._restore_beside_data(run_state)
        self._order, self._clock, self._stopped = order, order.clock, False
        self.iter = order.base + order.clock
        self._update.own_values()
        sender = Sender(order.generation, order.rank, order.incarnation)
        self._begun = self._exchange.begin(link, sender, order.clock)
        self._pulled_at = time.time()
        self.step(FOR_EVER if order.end is None else order.end - order.clock)

    def conclude(self, iteration: int, values: list[Any]) -> None:
        """The last display and test, as `solve` has them, with the run's last parameters."""
        self.iter, self._stopped = iteration, False
        for parameter, array in zip(self._update._parameters, values):
            parameter.blob.data_storage.changing()[: parameter.blob.count] = array
        self._conclude()

    def close(self) -> None:
        """Ends the threads."""
        self._exchange.close()

    # -- an iteration

    def _begin_losses(self) -> None:
        super()._begin_losses()
        self._batches: list[int] = []

    def _forward_batch(self) -> float:
        self._batches.append(self._data.next())
        return super()._forward_batch()

    def _backward_batch(self, loss: float, index: int) -> None:
        if index < self.param.iter_size - 1:
            super()._backward_batch(loss, index)
            return
        self._loss = loss / self.param.iter_size
        self._pushed_at = time.time()
        start = len(self.net.layers) - 1
        for bucket, end in enumerate(self._exchange.buckets):
            self.net._backward(start, end)
            self._exchange.send(bucket, self._clock, self._loss)
            start = end - 1

    def _due(self, interval: int) -> bool:
        # In async a quick worker has steps behind the last iteration, where policies such as poly have no rate.
        return self.iter <= self.param.max_iter and super()._due(interval)

    def apply_update(self) -> None:
        """Waits until the servers have made the update, where the mode says so, and takes the values from them."""
        if self._due(self.param.display):
            self._rate_of_update()
        traffic = self._exchange.finish(self._clock, self._loss)
        self.iter += 1
        self._tell(traffic)
        self._clock += 1
        self._pulled_at, self._batches = time.time(), []

    def _tell(self, traffic: Traffic) -> None:
        saves = self._order.rank == 0 and self._saves(self.iter)
        begun, self._begun = self._begun, Traffic()
        self._report(
            StepReport(
                generation=self._order.generation,
                rank=self._order.rank,
                clock=self._clock,
                iteration=self.iter,
                loss=self._loss,
                pulled_at=self._pulled_at,
                pushed_at=self._pushed_at,
                batches=tuple(self._batches),
                place=self._data.place(),
                traffic=Traffic(traffic.pushed, traffic.pulled + begun.pulled, traffic.refused),
                run_state=self._run_state() if saves else None,
            )
        )

    # -- what is beside the parameters

    def snapshot(self) -> None:
        """Nothing: the process that began the run writes snapshots."""

    def _restore_beside_data(self, state: dict[str, Any]) -> None:
        """Goes on from what a snapshot holds, but for the readers, which have been put to their place."""
        readers = self._data.readers
        restore_layers(self.net, {name: s for name, s in state.get("train", {}).items() if name not in readers})
        for net, layers in zip(self.test_nets, state.get("test", [])):
            restore_layers(net, layers)
        self._restored_losses = state.get("losses")

    def _draw_as(self, order: RunWorker) -> None:
        """Other masks of Dropout than the other ranks': layers beside the readers take generators of the rank."""
        for index, node in enumerate(self.net._graph.nodes):
            if node.name not in self._data.readers and set(node.layer.state()) == {"generator"}:
                seed = np.random.SeedSequence([self.param.random_seed, order.rank, order.generation, index])
                node.layer.restore({"generator": np.random.PCG64(seed).state})
