"""Runs on two devices, which here are two processes on the CPU."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from pycaffe.solvers import SGDSolver
from tests.cli.test_train import endless, read_until, solver, weights_of

__all__ = ["endless", "solver"]  # fixtures
pytestmark = pytest.mark.slow  # three interpreters import torch

SCRIPT = """
import sys
import pycaffe.cli
import pycaffe.cli.train as verb

if __name__ == "__main__":
    verb._devices = lambda gpu, param: ("cpu", "cpu")
    pycaffe.cli.main(["train", *sys.argv[1:]])
"""


def start(solver: pathlib.Path, *words: Any) -> subprocess.Popen[str]:
    folder = solver.parent / "temporary"
    folder.mkdir()
    script = solver.parent / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), "--solver", str(solver), *map(str, words)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
    )  # fmt: skip


def end(running: subprocess.Popen[str], solver: pathlib.Path, status: int = 0) -> str:
    _, printed = running.communicate(timeout=100)
    assert running.returncode == status, printed
    assert list((solver.parent / "temporary").glob("pycaffe*")) == []
    return printed


def ranks_of(running: subprocess.Popen[str]) -> list[int]:
    """The processes of the two solvers, rank 0 first; multiprocessing's tracker is a child, too."""
    children = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    lines = {int(child): pathlib.Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return sorted(child for child, line in lines.items() if b"spawn_main" in line)


def gone(process: int) -> bool:
    """Whether it has ended; an orphan may wait for a parent who asks how."""
    try:
        return ") Z " in pathlib.Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True


def test_two_devices_train_as_one_with_twice_the_batch(solver: pathlib.Path) -> None:
    printed = end(start(solver), solver)
    for once in (
        "Starting Optimization",
        "Solving little",
        "Iteration 2 (",
        "Iteration 4, Testing net",
        "caffe.cpp:250",
    ):
        assert printed.count(once) == 1, printed
    parallel = weights_of(solver.parent / "run_iter_6.caffemodel", solver)
    net = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace("batch_size: 4", "batch_size: 8"))
    alone = SGDSolver(str(solver))
    alone.step(6)
    np.testing.assert_allclose(parallel, alone.net.params["fc"][0].data, rtol=1e-5, atol=1e-7)


def test_all_go_on_from_a_snapshot(solver: pathlib.Path) -> None:
    alone = SGDSolver(str(solver))
    alone.step(4)
    state = solver.parent / "run_iter_4.solverstate"
    printed = end(start(solver, "--snapshot", state), solver)
    assert printed.count(f"Resuming from {state}") == 1
    assert (solver.parent / "run_iter_6.solverstate").exists()


def test_sigint_stops_all_of_them(endless: pathlib.Path) -> None:
    running = start(endless)
    read_until(running, "Iteration 100 ")
    ranks = ranks_of(running)
    assert len(ranks) == 2
    running.send_signal(signal.SIGHUP)
    read_until(running, "Snapshotting solver state")
    read_until(running, "Iteration ")
    for process in (*ranks, running.pid):  # as a terminal does
        os.kill(process, signal.SIGINT)
    printed = end(running, endless)
    assert printed.count("Optimization stopped early.") == 1
    assert all(map(gone, ranks))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_solver_that_dies_ends_the_run(endless: pathlib.Path, rank: int) -> None:
    running = start(endless)
    read_until(running, "Iteration 100 ")
    ranks = ranks_of(running)
    os.kill(ranks[rank], signal.SIGKILL)
    printed = end(running, endless, status=2)
    died = f"Error: Solver {rank} of 2 (pid {ranks[rank]}, cpu) died with SIGKILL. Go on from the last snapshot"
    assert died in printed
    assert all(map(gone, ranks))


def test_sigterm_ends_all_of_them(endless: pathlib.Path) -> None:
    running = start(endless)
    read_until(running, "Iteration 100 ")
    ranks = ranks_of(running)
    running.terminate()
    end(running, endless, status=128 + signal.SIGTERM)
    assert all(map(gone, ranks))


def test_solvers_do_not_outlive_the_command(endless: pathlib.Path) -> None:
    running = start(endless)
    read_until(running, "Iteration 100 ")
    ranks = ranks_of(running)
    running.kill()
    assert running.stderr is not None
    running.stderr.read()  # ends when the last of them has ended
    running.wait()
    assert all(map(gone, ranks))


def test_an_error_is_said_by_who_had_it(solver: pathlib.Path) -> None:
    text = solver.read_text().replace('lr_policy: "step"', 'lr_policy: "stairs"')
    solver.write_text(text)
    printed = end(start(solver), solver, status=1)
    assert "Unknown learning rate policy: stairs" in printed
    assert "Traceback" not in printed
