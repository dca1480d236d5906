"""One solver's part of `caffe train`: what every process of a run does, the only one or one of several."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._caffe_cpp import info
from pycaffe.errors import CaffeError, SolverError

if TYPE_CHECKING:
    from pycaffe.solvers import Action, Solver

__all__ = ["TrainingJob", "showing", "solve"]


@dataclass(frozen=True)
class TrainingJob:
    """What `caffe train` was asked to do.

    Attributes:
        param: the SolverParameter, with level, stages and weights of the command line.
        snapshot: the solver state to go on from, or an empty string.
        devices: "cpu" or "cuda:N"; a solver for each.
        tensorboard: the folder for event files, or an empty string.
    """

    param: Any
    snapshot: str
    devices: tuple[str, ...]
    tensorboard: str


def solve(job: TrainingJob, requested: Callable[[], Action], uid: bytes | None = None) -> None:
    """Makes the solver of this process and trains. Its rank and their number are set already.

    Args:
        job: what to do.
        requested: asked after each iteration what to do; of several solvers, on rank 0 alone.
        uid: what `NCCL.new_uid` gave to all solvers of the run; None for the only one.
    """
    from pycaffe import parallel
    from pycaffe.solvers import get_solver
    from pycaffe.solvers.data_parallel import NCCL, AgreedAction, SavedPlaces

    solver = get_solver(_param_for(job, job.devices[parallel.solver_rank()]))
    if job.snapshot:
        info(235, f"Resuming from {job.snapshot}")
        solver.restore(job.snapshot)
    solver.set_action_function(requested)
    info(239, "Starting Optimization")
    if uid is not None:
        nccl = NCCL(solver, uid)
        nccl.bcast()
        solver.add_callback(nccl)
        if solver.param.layer_wise_reduce:
            solver.net.after_backward(nccl)
        agreed = AgreedAction(nccl, requested)
        solver.add_callback(agreed)
        solver.add_callback(SavedPlaces(nccl, solver, agreed))
        solver.set_action_function(agreed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The loss is ", RuntimeWarning)  # the log says it
        _train(job, solver)
    if uid is not None:
        nccl.close()


def _train(job: TrainingJob, solver: Solver) -> None:
    from pycaffe import parallel

    if not parallel.root_solver():
        solver.step(solver.param.max_iter - solver.iter)
        return
    with _shown(job, solver), _saved_on_failure(solver):
        solver.solve()
    info(250, "Optimization Done.")


def _param_for(job: TrainingJob, device: str) -> Any:
    """The solver's parameters with the device of one process."""
    param = type(job.param)()
    param.CopyFrom(job.param)
    if device == "cpu":
        param.solver_mode = param.CPU
    else:
        param.solver_mode, param.device_id = param.GPU, int(device.partition(":")[2])
    return param


@contextlib.contextmanager
def _saved_on_failure(solver: Solver) -> Iterator[None]:
    """Within the block what was learned is saved when training fails, whatever the reason: an image that is missing in
    the second epoch does not cost the first.

    Raises:
        click.ClickException: (exit status 1: the command was right) for an error of ours; it tells where to go on.
    """
    first = solver.iter
    try:
        yield
    except Exception as error:
        begun = solver.iter > first
        if isinstance(error, SolverError) and not begun:
            raise  # no snapshot could be written where they should go: nothing was tried
        # After that a SolverError is that of a snapshot which found no room, and another one would not, either.
        saved = _save(solver) if begun and not isinstance(error, SolverError) else ""
        if isinstance(error, CaffeError):
            raise click.ClickException(f"{error}{saved}") from error
        if saved:
            logging.getLogger("pycaffe.cli").error("Training failed.%s", saved)
        raise


def _save(solver: Solver) -> str:
    """Takes a snapshot where the prototxt wants any and there is none of this iteration; says how to go on from it."""
    from pycaffe.solvers.snapshot import snapshot_path

    param = solver.param
    if not (param.snapshot or param.snapshot_after_train):
        return ""
    suffix = ".solverstate" if param.snapshot_format == param.BINARYPROTO else ".solverstate.h5"
    path = snapshot_path(param.snapshot_prefix, solver.iter, suffix)
    there = solver._due(param.snapshot) or (param.snapshot_after_train and solver.iter == param.max_iter)
    try:
        if not there:
            solver.snapshot()
    except SolverError as error:
        return f" {error}"
    return f" What was learned in {solver.iter} iterations is saved: go on with --snapshot {path}"


@contextlib.contextmanager
def _shown(job: TrainingJob, solver: Solver) -> Iterator[None]:
    """Within the block a solver's training is shown."""
    first = solver.iter
    with showing(job.tensorboard, first, solver.param.max_iter) as advance:
        solver.add_callback(
            lambda: advance(solver.iter, solver._smoothed.value if solver.iter > first else None), lambda: None
        )
        yield


@contextlib.contextmanager
def showing(tensorboard: str, first: int, last: int) -> Iterator[Callable[[int, float | None], None]]:
    """Within the block training is drawn on the terminal, where there is one, and written for TensorBoard.

    Args:
        tensorboard: the folder for event files, or an empty string.
        first: the iteration at which training begins.
        last: that at which it ends.

    Yields:
        What is to be called with each iteration and the loss, if that is known.
    """
    from pycaffe.cli._live_line import LiveLine, terminal
    from pycaffe.cli._tensorboard import TensorBoardHandler

    logger = logging.getLogger("pycaffe")
    handlers: list[logging.Handler] = []
    if tensorboard:
        handlers.append(TensorBoardHandler(tensorboard, first))
        logger.setLevel(logging.INFO)  # whatever GLOG_minloglevel keeps from stderr
    stream = terminal()
    line = LiveLine(stream, last) if stream is not None else None
    if line is not None:
        handlers.append(line)
    logger.handlers[:0] = handlers  # before the log's own: the live line makes room for its lines
    try:
        yield line.advance if line is not None else lambda iteration, loss: None
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
