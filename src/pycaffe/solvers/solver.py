"""The solver: forward, backward, update, and between them tests, displays and snapshots (solver.cpp).

An iteration:

    clear diffs → test nets, where it is time → callbacks' on_start → iter_size × (forward, backward) → display
    → callbacks' on_gradients_ready → update (update_rules) → snapshot, where it is time
"""

from __future__ import annotations

import copy
import enum
import logging
import math
import os
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from pycaffe import devices, parallel, rng
from pycaffe.errors import SolverError
from pycaffe.net import Net
from pycaffe.net.debug_info import log_all_parameters
from pycaffe.proto.prototxt import read_solver
from pycaffe.proto.solver_state import SavedState, read_solver_state
from pycaffe.proto.upgrade import upgrade_solver_as_needed
from pycaffe.solvers.average_precision import DetectionTally, check_evaluation
from pycaffe.solvers.learning_rate import LearningRate
from pycaffe.solvers.nets import make_test_nets, make_train_net
from pycaffe.solvers.non_finite import where_it_began
from pycaffe.solvers.parameter_update import ParameterUpdate
from pycaffe.solvers.progress import OutputTally, Rate, SmoothedLoss, log_outputs, log_progress
from pycaffe.solvers.run_state import (
    read_run_state,
    restore_layers,
    restore_python_random,
    save_layers,
    save_python_random,
)
from pycaffe.solvers.snapshot import check_prefix, history_of, weights_of, write_snapshot
from pycaffe.solvers.update_rules import update_rule_class

__all__ = ["Action", "Solver", "read_solver_param"]

logger = logging.getLogger("pycaffe.solver")
Path = str | os.PathLike[str]


class Action(enum.Enum):
    """What somebody outside asks of a running solver, as by a signal."""

    NONE = 0
    STOP = 1
    SNAPSHOT = 2


class Solver:
    """Trains a net as a solver prototxt says.

    Args:
        solver: the path of a solver prototxt, or a SolverParameter.

    Attributes:
        net: the net that is trained.
        test_nets: the nets that are tested; a test makes them share the parameters of `net`.
        param: the SolverParameter; what is changed in it counts from the next iteration on.
        iter: how many updates the parameters have had.
        newest_snapshot: the solver state that this solver wrote last, or None.

    Raises:
        SolverError: type, policy or another field is wrong, or snapshots cannot be written where they should go.
        ProtoError, NetError, WeightsError, DataError: from the files and nets that the solver names.
    """

    solver_type: ClassVar[str | None] = None

    def __init__(self, solver: Path | Any) -> None:
        self.param = param = read_solver_param(solver)
        self._rule = update_rule_class(self.solver_type or param.type)(param)
        self._learning_rate = LearningRate(param)
        for name in ("average_loss", "iter_size"):
            value = getattr(param, name)
            if value < 1:
                raise SolverError(f"Check failed: {name} >= 1 ({value} vs. 1) {name} should be non-negative.")
        if parallel.root_solver() and param.snapshot:
            if not param.HasField("snapshot_prefix"):
                raise SolverError("In solver params, snapshot is specified but snapshot_prefix is not")
            check_prefix(param.snapshot_prefix)
        check_evaluation(param)
        devices.set_mode_by_solver(param)
        if param.random_seed >= 0:
            rng.seed(param.random_seed + parallel.solver_rank())
        log_progress("solver.cpp:45", "Initializing solver from parameters: \n%s", param)
        self.net: Net = make_train_net(param)
        self.test_nets: list[Net] = make_test_nets(param)
        self._update = ParameterUpdate(param, self._rule, self.net._graph.parameters)
        self.iter = 0
        self.newest_snapshot: str | None = None
        self._rate, self._smoothed = Rate(), SmoothedLoss(param.average_loss)
        self._restored_losses: dict[str, Any] | None = None
        self._places: tuple[int, list[dict[str, Any]]] = (-1, [])  # after which iteration, and of each solver
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._requested: Callable[[], Action] = lambda: Action.NONE
        self._stopped = self._met_non_finite = False
        log_progress("solver.cpp:57", "Solver scaffolding done.")

    @property
    def type(self) -> str:
        """The solver's type, such as "SGD"."""
        return self._rule.type

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return copy.copy(self._learning_rate).at(self.iter, self._smoothed.value)  # a look moves no policy on

    @property
    def loss(self) -> float:
        """The last iteration's loss, not averaged over those before it; nan before the first."""
        return self._smoothed.last

    # -- training

    def solve(self, resume_file: Path | None = None) -> None:
        """Trains to `max_iter`, with a snapshot, a display and a test at the end as the prototxt asks.

        Args:
            resume_file: a solver state to go on from.
        """
        log_progress("solver.cpp:289", "Solving %s", self.net._graph.name)
        log_progress("solver.cpp:290", "Learning Rate Policy: %s", self.param.lr_policy)
        self._stopped = False
        if self.param.snapshot_after_train and parallel.root_solver():
            check_prefix(self.param.snapshot_prefix)
        if resume_file is not None:
            log_progress("solver.cpp:296", "Restoring previous solver status from %s", os.fspath(resume_file))
            self.restore(resume_file)
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and not self._due(self.param.snapshot):
            self.snapshot()
        if self._stopped:
            log_progress("solver.cpp:311", "Optimization stopped early.")
            return
        self._conclude()

    def _conclude(self) -> None:
        """A last display and test, with what was learned."""
        if self._due(self.param.display):
            self._smoothed.add(self._forward_batch())
            log_progress("solver.cpp:327", "Iteration %d, loss = %g", self.iter, self._smoothed.value)
        if self._due(self.param.test_interval):
            self._test_all()
        log_progress("solver.cpp:332", "Optimization Done.")

    def step(self, iters: int) -> None:
        """Trains for `iters` iterations, or until somebody asks to stop."""
        stop = self.iter + iters
        self._begin_losses()
        self._rate.restart(self.iter)
        self._update.own_values()
        while self.iter < stop:
            self.net.clear_param_diffs()
            if self._due(self.param.test_interval) and (self.iter > 0 or self.param.test_initialization):
                self._test_all()
                if self._stopped:
                    break
            for on_start, _ in self._callbacks:
                on_start()
            self._compute_gradients()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            request = self._requested()
            if self._due(self.param.snapshot) or request is Action.SNAPSHOT:
                self.snapshot()
            if request is Action.STOP:
                self._stopped = True
                break

    def _due(self, interval: int) -> bool:
        """Whether this iteration is one of every `interval`; never where that is 0."""
        return interval > 0 and self.iter % interval == 0

    def _begin_losses(self) -> None:
        """Each `step` averages anew, as in the original; after a restore it goes on as if there had been no break."""
        self._smoothed = SmoothedLoss(self.param.average_loss)
        if self._restored_losses is not None:
            self._smoothed.restore(**self._restored_losses)
            self._restored_losses = None

    def _compute_gradients(self) -> None:
        display = self._due(self.param.display)
        self.net.debug_info = display and self.param.debug_info
        loss = 0.0
        for index in range(self.param.iter_size):
            loss += self._forward_batch()
            if not math.isfinite(loss) and not self._met_non_finite:
                self._warn_of_non_finite(loss)
            self._backward_batch(loss, index)
            if self.net.debug_info:
                log_all_parameters(self.net._graph)
        self._smoothed.add(loss / self.param.iter_size)
        if display:
            rate, seconds = self._rate.at(self.iter)
            log_progress(
                "solver.cpp:239",
                "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
                self.iter,
                rate,
                seconds,
                self.param.display,
                self._smoothed.value,
            )
            log_outputs(self.net, "Train", [(name, self.net.blobs[name].raw_data()) for name in self.net.outputs])

    def _forward_batch(self) -> float:
        """The loss of the next batch."""
        return self.net._forward(0, len(self.net.layers) - 1)

    def _backward_batch(self, loss: float, index: int) -> None:
        """Adds the gradients of the `index`-th of an iteration's batches, whose losses are `loss` so far."""
        self.net._backward(len(self.net.layers) - 1, 0)

    def _warn_of_non_finite(self, loss: float) -> None:
        """Once, for what follows is all the same. Training goes on, as in the original."""
        self._met_non_finite = True
        began = where_it_began(self.net._graph, self.iter)
        message = f"The loss is {loss:g} at iteration {self.iter}. It began {began}."
        logger.error(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)

    def apply_update(self) -> None:
        """Updates the parameters by their diffs, at the present iteration's rate; the iteration is counted."""
        self._update.apply(self._rate_of_update(), self.iter)
        self.iter += 1

    def _rate_of_update(self) -> float:
        rate = self._learning_rate.at(self.iter, self._smoothed.value)
        if self._due(self.param.display):
            log_progress("sgd_solver.cpp:112", "Iteration %d, lr = %g", self.iter, rate)
        return rate

    # -- tests

    def _test_all(self) -> None:
        if parallel.root_solver():
            for index in range(len(self.test_nets)):
                if not self._stopped:
                    self._test(index)

    def _test(self, index: int) -> None:
        """Logs the mean of a test net's outputs over `test_iter` batches, or of detections the average precision."""
        log_progress("solver.cpp:347", "Iteration %d, Testing net (#%d)", self.iter, index)
        net, count = self.test_nets[index], self.param.test_iter[index]
        net.share_with(self.net)
        loss = 0.0
        tally = DetectionTally(net, self.param) if self.param.eval_type == "detection" else OutputTally(net)
        for _ in range(count):
            self._obey_while_testing()
            if self._stopped:
                log_progress("solver.cpp:396", "Test interrupted.")
                return
            loss += net._forward(0, len(net.layers) - 1)
            tally.add()
        if self.param.test_compute_loss:
            log_progress("solver.cpp:401", "Test loss: %g", loss / count if count else 0.0)
        tally.log()

    def _obey_while_testing(self) -> None:
        request = self._requested()
        while request is not Action.NONE:
            if request is Action.SNAPSHOT:
                self.snapshot()
            else:
                self._stopped = True
            request = self._requested()

    # -- snapshots

    def snapshot(self) -> None:
        """Writes weights and solver state under `snapshot_prefix`; nothing on solvers other than the root.

        Raises:
            SolverError: a file cannot be written; earlier snapshots stay as they are.
        """
        if not parallel.root_solver():
            return
        plateau = self.param.lr_policy == "plateau"
        state = SavedState(
            iteration=self.iter,
            learned_net="",
            current_step=self._learning_rate.current_step,
            minimum_loss=self._learning_rate.minimum_loss if plateau else None,
            iter_last_event=self._learning_rate.iter_last_event if plateau else None,
        )
        shapes = self._update.history_shapes
        self.newest_snapshot = write_snapshot(
            self.net,
            self.param.snapshot_prefix,
            state,
            [array.reshape(shape) for array, shape in zip(self._update.history(), shapes)],
            self._run_state(),
            snapshot_format=self.param.snapshot_format,
            diffs=self.param.snapshot_diff,
        )

    def restore(self, state_file: Path) -> None:
        """Goes on from a solver state of this package or of the original, in either format.

        Where the state has a `.resume.json` of this package beside it, the run goes on as if it had never stopped;
        else the data begin anew, as in the original. Nothing is changed where anything does not fit.

        Raises:
            SolverError: the state is missing, damaged, or of another net or solver type.
            WeightsError: the weights that it names do not fit.
        """
        path = os.fspath(state_file)
        state = read_solver_state(path)
        history = history_of(state, self._update.history_shapes, path)
        weights = weights_of(state, path)
        if weights is not None:
            self.net.copy_from(weights)
        log_progress("sgd_solver.cpp:336", "%sSolver: restoring history", self.type)
        for target, values in zip(self._update.history(), history):
            target[...] = values
        self.iter = state.iteration
        self._learning_rate.restore(state.current_step, state.minimum_loss, state.iter_last_event)
        run_state = read_run_state(path)
        if run_state is not None:
            self._restore_run_state(run_state)

    def _run_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "losses": self._smoothed.state(),
            "train": save_layers(self.net),
            "test": [save_layers(net) for net in self.test_nets],
        }
        iteration, places = self._places
        if iteration == self.iter:
            state["ranks"] = places
        if self._has_python_layers():
            state["python"] = save_python_random()
        return state

    def _restore_run_state(self, state: dict[str, Any]) -> None:
        # Solvers that train together take turns at the records: the last one's place is where a single one goes on.
        places = state.get("ranks", [])
        if parallel.solver_count() == 1:
            restore_layers(self.net, places[-1] if places else state["train"])
        elif parallel.solver_rank() < len(places):
            restore_layers(self.net, places[parallel.solver_rank()])
        if parallel.solver_count() > 1 and not (parallel.root_solver() and places):
            return  # of several, those whose place was not saved begin the data anew, as in the original
        for net, layers in zip(self.test_nets, state["test"]):
            restore_layers(net, layers)
        self._restored_losses = state["losses"]
        if "python" in state and self._has_python_layers():
            restore_python_random(state["python"])

    def _has_python_layers(self) -> bool:
        return any(node.type == "Python" for net in (self.net, *self.test_nets) for node in net._graph.nodes)

    # -- what others ask

    def know_places(self, places: list[dict[str, Any]]) -> None:
        """Takes where each solver of a run is in its data, by rank: a snapshot after this iteration saves it.

        Args:
            places: what `save_layers` gave for each training net, after the iteration's forward.
        """
        self._places = (self.iter + 1, places)

    def share_weights(self, net: Net) -> None:
        """Lets `net` use the parameters of the net that is trained, in layers of the same name."""
        net.share_with(self.net)

    def add_callback(self, on_start: Any, on_gradients_ready: Callable[[], Any] | None = None) -> None:
        """Calls `on_start()` before each iteration's forward, and `on_gradients_ready()` before its update.

        One object with these two methods, such as `caffe.NCCL`, is taken as well.
        """
        if on_gradients_ready is None:
            on_start, on_gradients_ready = on_start.on_start, on_start.on_gradients_ready
        self._callbacks.append((on_start, on_gradients_ready))

    def set_action_function(self, function: Callable[[], Action]) -> None:
        """Asks `function()` after each iteration and test batch what to do; an answer counts once."""
        self._requested = function


def read_solver_param(solver: Path | Any) -> Any:
    """The upgraded SolverParameter of a prototxt; a copy of one that is given."""
    if isinstance(solver, (str, os.PathLike)):
        return read_solver(solver)
    param = type(solver)()
    param.CopyFrom(solver)
    upgrade_solver_as_needed(param)
    return param
