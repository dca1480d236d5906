"""The processes of a run on several devices: started, asked to stop or to snapshot, and ended together.

    caffe train ─┬─ rank 0  ← actions, through a pipe        every one of them: a fresh process, a solver, a device
                 ├─ rank 1
                 └─ rank 2

The first that fails ends the others, which would wait for it for ever. Signals are this process's matter: a terminal
sends Ctrl-C to all of them at once, so the ranks ignore it. If this process dies, the ranks end themselves.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

import click

from pycaffe.cli._signal_actions import on_signals
from pycaffe.cli._training_run import TrainingJob, solve
from pycaffe.errors import CaffeError, SolverError

if TYPE_CHECKING:
    from pycaffe.solvers import Action

__all__ = ["solve_on_devices"]

SECONDS_TO_END = 5.0  # after SIGTERM; then SIGKILL


def solve_on_devices(job: TrainingJob, sigint_effect: str, sighup_effect: str) -> int:
    """Trains with a process for each device, and returns the exit status.

    Raises:
        SolverError: a process died.
    """
    from pycaffe.solvers.data_parallel import NCCL

    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    receiving, sending = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="pycaffe-") as folder, contextlib.ExitStack() as stack:
        uid = NCCL.new_uid(folder)
        processes: list[BaseProcess] = []
        stack.enter_context(_ending(processes))
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _exit_in_order))
        stack.enter_context(on_signals(sigint_effect, sighup_effect, sending.send))
        for rank in range(len(job.devices)):
            arguments = (job, rank, uid, receiving if rank == 0 else None)
            process = context.Process(target=_run_rank, args=arguments, name=f"solver {rank}")
            processes.append(process)
            process.start()
        return _first_failure(processes, job.devices)


def _first_failure(processes: list[BaseProcess], devices: tuple[str, ...]) -> int:
    """The exit status of the first process that fails; 0 where all end well."""
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running:
        ended = [running.pop(sentinel) for sentinel in wait(list(running))]  # type: ignore[arg-type]
        for rank in ended:
            processes[rank].join()
        # A death comes first: the others may have failed for it already.
        rank = min(ended, key=lambda rank: (processes[rank].exitcode or 0) or sys.maxsize)
        status = processes[rank].exitcode or 0
        if status < 0:
            raise SolverError(
                f"Solver {rank} of {len(processes)} (pid {processes[rank].pid}, {devices[rank]}) died with "
                f"{signal.Signals(-status).name}. Go on from the last snapshot with --snapshot."
            )
        if status > 0:
            return status
    return 0


@contextlib.contextmanager
def _ending(processes: list[BaseProcess]) -> Iterator[None]:
    """At the end of the block none of the processes is left."""
    try:
        yield
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join(SECONDS_TO_END)
                if process.is_alive():
                    process.kill()
                    process.join()


def _run_rank(job: TrainingJob, rank: int, uid: bytes, actions: Connection | None) -> None:
    """The whole life of one process."""
    from pycaffe import glog, parallel
    from pycaffe.cli._gflags import log_to_stderr
    from pycaffe.solvers import Action

    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parallel.set_solver_count(len(job.devices))
    parallel.set_solver_rank(rank)
    if rank == 0:
        log_to_stderr()
    else:
        glog.init_log(1)  # what all ranks do is logged once

    def requested() -> Action:
        return Action(actions.recv()) if actions is not None and actions.poll() else Action.NONE

    try:
        solve(job, requested, uid)
    except (CaffeError, OSError, click.ClickException) as error:
        print(f"Error: solver {rank} of {len(job.devices)}: {error}", file=sys.stderr)
        sys.exit(1)


def _exit_in_order(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
