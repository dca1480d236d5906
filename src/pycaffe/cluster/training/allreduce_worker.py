"""One worker of a run by all-reduce: what Ray Train calls in each of its processes, in the group that it has made.

The data-parallel step is that of `caffe train --gpu 0,1,…` (solvers/data_parallel.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Any

from pycaffe import parallel
from pycaffe.cluster.training.journal import Report
from pycaffe.cluster.training.run import TraceEvent
from pycaffe.errors import CaffeError, SolversLost
from pycaffe.layers._torch import torch
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers import Action, Solver, get_solver
from pycaffe.solvers.data_parallel import NCCL, AgreedAction, SavedPlaces

__all__ = ["AllReduceJob", "run_worker"]

REPORT_SECONDS = 0.1  # between two reports; an iteration of a small net takes a millisecond, a message as much


@dataclass(frozen=True)
class AllReduceJob:
    """What a worker has to know.

    Attributes:
        param: the SolverParameter, serialized: protobuf's own pickles do not travel by value.
        folder: the driver's working directory, which relative names in prototxts and lists begin from.
        gpu: whether each worker has a GPU.
        journal: the actor.
    """

    param: bytes
    folder: str
    gpu: bool
    journal: Any


def run_worker(config: dict[str, Any]) -> None:
    """Trains as one of the workers, to the end of the run.

    An error of ours would come again, and ends the run. That the others are gone, or any other error, is raised: Ray
    Train starts all workers anew, as often as it may.
    """
    import ray
    import ray.train

    job: AllReduceJob = config["job"]
    context = ray.train.get_context()
    parallel.set_solver_count(context.get_world_size())
    parallel.set_solver_rank(context.get_world_rank())
    if os.path.isdir(job.folder):
        os.chdir(job.folder)
    try:
        _solve(job)
    except SolversLost:
        if ray.get(job.journal.failure.remote()) is None:
            raise
    except CaffeError as error:
        ray.get(job.journal.fail.remote(error))
    finally:
        # The others wait for this process's numbers; an end of the group tells them. Not the end of the function.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        parallel.set_solver_rank(0)
        parallel.set_solver_count(1)


def _solve(job: AllReduceJob) -> None:
    reporter = _Reporter(job.journal) if parallel.root_solver() else None
    try:
        solver = get_solver(_param_for(job))
        nccl = NCCL(solver, None)
        (snapshot,) = nccl.broadcast([reporter.snapshot if reporter is not None else ""])
        if snapshot:
            solver.restore(snapshot)
        nccl.bcast()
        solver.add_callback(nccl)
        if solver.param.layer_wise_reduce:
            solver.net.after_backward(nccl)
        agreed = AgreedAction(nccl, reporter.requested if reporter is not None else lambda: Action.NONE)
        solver.add_callback(agreed)
        solver.add_callback(SavedPlaces(nccl, solver, agreed))
        solver.set_action_function(agreed)
        if reporter is None:
            solver.step(solver.param.max_iter - solver.iter)
        else:
            reporter.watch(solver, nccl)
            solver.solve()
            reporter.finish(solver)
    finally:
        if reporter is not None:
            reporter.close()


def _param_for(job: AllReduceJob) -> Any:
    """The solver's parameters with this worker's device."""
    param = SolverParameter.FromString(job.param)
    if job.gpu:
        from ray.train.torch import get_device

        param.solver_mode, param.device_id = param.GPU, get_device().index or 0
    else:
        param.solver_mode = param.CPU
    return param


class _Reporter(logging.Handler):
    """Rank 0's end of the journal: collects, and sends every tenth of a second."""

    def __init__(self, journal: Any) -> None:
        import ray

        super().__init__(logging.INFO)
        self._journal = journal
        attempt = ray.get(journal.begin.remote(parallel.solver_count()))
        self._attempt, self.snapshot = attempt.number, attempt.snapshot
        self._report = Report()
        self._reduced = 0  # bytes that are in a report
        self._sent = time.monotonic()
        self._answers: deque[Any] = deque()
        self._asked: deque[int] = deque()
        self._logger = logging.getLogger("pycaffe")
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        names = ("name", "levelno", "levelname", "created", "process", "filename", "lineno", "place")
        values = {name: getattr(record, name) for name in names if hasattr(record, name)}
        self._report.records.append({**values, "msg": record.getMessage(), "args": ()})

    def watch(self, solver: Solver, nccl: NCCL) -> None:
        """Reports the solver's losses and snapshots from now on, and what is averaged."""
        clocks = count()

        def note_loss() -> None:
            self._report.losses.append((solver.iter, solver.loss))
            self._report.trace.append(TraceEvent("reduce", self._attempt - 1, 0, next(clocks), time.time()))
            self._report.bytes_reduced += (nccl.bytes_reduced - self._reduced) * parallel.solver_count()
            self._reduced = nccl.bytes_reduced

        def note_snapshot() -> None:
            self._note_snapshot(solver)
            if time.monotonic() - self._sent >= REPORT_SECONDS:
                self._send()

        solver.add_callback(note_snapshot, note_loss)

    def _note_snapshot(self, solver: Solver) -> None:
        newest = solver.newest_snapshot
        if newest is not None and newest != self.snapshot:
            self.snapshot = newest
            self._report.snapshots.append(os.path.abspath(newest))

    def _send(self) -> None:
        report, self._report, self._sent = self._report, Report(), time.monotonic()
        self._answers.append(self._journal.report.remote(self._attempt, report))

    def requested(self) -> Action:
        """What the driver asks for, once; never waits for an answer that is still on its way."""
        import ray

        while self._answers and ray.wait([self._answers[0]], timeout=0)[0]:
            self._asked.extend(ray.get(self._answers.popleft()))
        return Action(self._asked.popleft()) if self._asked else Action.NONE

    def finish(self, solver: Solver) -> None:
        """Reports the parameters."""
        params = {name: [blob.data.copy() for blob in blobs] for name, blobs in solver.net.params.items()}
        self._note_snapshot(solver)
        self._report.outcome = (params, solver.iter)

    def close(self) -> None:
        """Sends what is left, and hears the log no more."""
        import ray

        self._logger.removeHandler(self)
        self._send()
        ray.wait([self._answers[-1]], timeout=60)
        super().close()
