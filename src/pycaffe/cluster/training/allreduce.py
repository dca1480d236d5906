"""Training by all-reduce: Ray Train starts, watches and restarts the workers; torch.distributed moves the gradients.

    user's process ── TorchTrainer.fit, in a thread ──▶ Ray Train's controller ──▶ W workers (allreduce_worker)
                   ◀── log lines, losses, snapshots ── Journal ◀── rank 0 ──┘      all-reduce: gloo, between GPUs NCCL

A worker that dies ends its group: all-reduce has no use for the rest. Ray Train starts a new group, which goes on from
the newest snapshot of the run, each rank where it was in its data: the answer is that of a run without a death. What
was done since that snapshot is done again, so `snapshot` in the solver says what a death may cost. With workers on
several machines the folder of `snapshot_prefix` has to be one that all of them see.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from pycaffe.cluster.connection import check_nodes, connect
from pycaffe.cluster.training.control import RunControl
from pycaffe.cluster.training.data_paths import data_paths
from pycaffe.cluster.training.journal import Journal, Report
from pycaffe.cluster.training.resources import Resources, check_devices, resources_of_worker
from pycaffe.cluster.training.run import Run
from pycaffe.errors import InputError, SolverError
from pycaffe.solvers import Action
from pycaffe.solvers.solver import read_solver_param

__all__ = ["train_allreduce"]

TAKE_SECONDS = 0.2  # between two looks into the journal
RESIZE_SECONDS = 60.0  # between two looks whether there is room for another number of workers
STOP_SECONDS = 30.0  # how long a run that is given up may take to end by itself
logger = logging.getLogger("pycaffe.cluster")
FOR_EVER = 365 * 24 * 3600  # an iteration may wait for rank 0's tests; as in the original there is no limit


def train_allreduce(
    solver: str | os.PathLike[str] | Any,
    *,
    workers: int | tuple[int, int],
    devices: str | None = None,
    weights: str | None = None,
    snapshot: str | None = None,
    address: str | None = None,
    on_progress: Callable[[int, float], Any] | None = None,
    control: RunControl | None = None,
    max_failures: int = 3,
) -> Run:
    """Trains as a solver says with W workers, each with the prototxt's batch; equals one process on the joined batch.

    Args:
        solver: the path of a solver prototxt, or a SolverParameter.
        workers: W, or the least and the most: then as many as there is room for, looked at each minute and after a
            death. Where their number changes, a rank that is new begins its part of the data anew.
        devices: "cpu", or "gpu": one for each worker; None for what solver_mode says, where the cluster has GPUs.
        weights: begin with these weights.
        snapshot: go on from this solver state.
        address: the Ray cluster; None for the one at hand, or a local one.
        on_progress: called with each iteration and its loss (that of rank 0).
        control: takes what is asked while the run goes on; how many workers there are is Ray Train's matter.
        max_failures: how often the workers are started anew.

    Returns:
        What came of it. `losses` and log are those of rank 0, as are what forward changes by itself (BatchNorm's
        statistics).

    Raises:
        InputError: workers are fewer than one, or a snapshot and weights are given.
        SolverError: the workers died more often than they may.
        CaffeError: what a worker raised.
        ClusterError: from the connection to Ray; or a node lacks a file, or the cluster GPUs.
        MissingExtra: Ray is not installed.
    """
    least, most = (workers, workers) if isinstance(workers, int) else workers
    if not 1 <= least <= most:
        raise InputError(f"workers must be at least 1, or a range such as (2, 8). Got {workers!r}.")
    if snapshot and weights:
        raise InputError("Give a snapshot to resume training or weights to finetune but not both.")
    param = read_solver_param(solver)
    if snapshot or weights:
        param.ClearField("weights")
    if weights:
        param.weights.append(os.fspath(weights))
    check_devices(devices)
    with connect(address, cpus=most) as connection, tempfile.TemporaryDirectory(prefix="pycaffe-") as storage:
        from pycaffe.cluster.training.allreduce_worker import AllReduceJob

        if not connection.started:
            check_nodes(connection, data_paths(param))
        worker = resources_of_worker(connection.ray, devices, param, least)
        journal = _make_journal(connection.ray, os.path.abspath(snapshot) if snapshot else "")
        job = AllReduceJob(param.SerializeToString(), os.getcwd(), worker.gpus > 0, journal)
        trainer = _trainer(job, workers, worker, storage, max_failures)
        return _Follower(journal, on_progress, control or RunControl()).follow(trainer)


def _make_journal(ray: Any, snapshot: str) -> Any:
    """The actor, on this process's own node: another may be taken away, and what was reported with it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Journal).remote(snapshot)


def _trainer(job: Any, workers: int | tuple[int, int], worker: Resources, storage: str, max_failures: int) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from pycaffe.cluster.training.allreduce_worker import run_worker

    return TorchTrainer(
        run_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if job.gpu else "gloo", timeout_s=FOR_EVER),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=job.gpu,
            resources_per_worker={"GPU": worker.gpus} if job.gpu else {"CPU": worker.cpus},
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            storage_path=storage,  # Ray Train's own; our snapshots are where the solver wants them
            failure_config=FailureConfig(max_failures=max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


class _Follower:
    """Follows a run to its end: logs what rank 0 logs, and passes on what is asked of it."""

    def __init__(self, journal: Any, on_progress: Callable[[int, float], Any] | None, control: RunControl) -> None:
        self._journal = journal
        self._on_progress = on_progress
        self._control = control
        self._attempts = 0
        self._losses: dict[int, float] = {}
        self._run = Run(iter=0)
        self._outcome: tuple[dict[str, list[Any]], int] | None = None

    def follow(self, trainer: Any) -> Run:
        """Runs the trainer. Raises what ended the run."""
        import ray

        errors: list[BaseException] = []
        ended = threading.Event()

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                errors.append(error)
            finally:
                ended.set()

        # In a thread: Ray Train would take SIGINT for itself in the main one, and end without a snapshot.
        thread = threading.Thread(target=fit, name="pycaffe-allreduce", daemon=True)
        thread.start()
        try:
            while not ended.wait(TAKE_SECONDS):
                self._take()
                self._control.pass_on(self)
        except BaseException:
            self.stop()
            ended.wait(STOP_SECONDS)
            raise
        self._take()
        failure = ray.get(self._journal.failure.remote())
        if failure is not None:
            raise failure
        if errors or self._outcome is None:
            raise self._given_up(errors)
        self._run.params, self._run.iter = self._outcome
        self._run.losses = [self._losses[number] for number in sorted(self._losses)]
        self._run.restarts = max(self._attempts - 1, 0)
        return self._run

    def _given_up(self, errors: list[BaseException]) -> SolverError:
        """The error for a run that Ray Train gave up."""
        snapshots = self._run.snapshots
        last = f" Go on from the last snapshot, {snapshots[-1]!r}." if snapshots else ""
        failures: dict[int, BaseException] = getattr(errors[0], "worker_failures", {}) if errors else {}
        reasons = [f"worker {rank}: {_first_line(reason)}" for rank, reason in sorted(failures.items())]
        reason = "; ".join(reasons or [_first_line(reason) for reason in errors] or ["no reason is known"])
        error = SolverError(f"Ray Train gave the run up after {self._attempts} attempt(s): {reason}.{last}")
        error.__cause__ = errors[0] if errors else None
        return error

    def _take(self) -> None:
        import ray

        attempt, report = ray.get(self._journal.take.remote())
        if attempt.number > max(self._attempts, 1):
            logger.warning(
                "A worker died, or the cluster has room for another number. %d were started anew, from %s.",
                attempt.workers,
                attempt.snapshot or "where the run began",
            )
        self._attempts = attempt.number
        self._tell(report)

    def _tell(self, report: Report) -> None:
        for values in report.records:
            record = logging.makeLogRecord(values)
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        for iteration, loss in report.losses:
            self._losses[iteration] = loss
            if self._on_progress is not None:
                self._on_progress(iteration, loss)
        self._run.snapshots += report.snapshots
        self._run.add_to_trace(*report.trace)
        self._run.bytes_pushed += report.bytes_reduced
        self._run.bytes_pulled += report.bytes_reduced
        self._outcome = report.outcome or self._outcome

    # -- what a RunControl passes on

    def stop(self) -> None:
        """The end of the run after the iteration that is under way, with a snapshot where the solver wants one."""
        self._journal.ask.remote(Action.STOP.value)

    def checkpoint_now(self) -> None:
        """A snapshot after the iteration that is under way."""
        self._journal.ask.remote(Action.SNAPSHOT.value)

    def join(self) -> None:
        """Ray Train takes what room there is."""
        logger.warning("Workers of an all-reduce join when there is room for them, not when asked.")

    def leave(self, rank: int | None = None) -> None:
        """Ray Train keeps what there is room for."""
        logger.warning("Workers of an all-reduce leave when their nodes do, not when asked.")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n")[0]
