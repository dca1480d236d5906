"""Workers that are spawned: where a fork is not safe, and on systems that have none."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from pycaffe import Pool, WorkerDied
from pycaffe.errors import ProtoError
from pycaffe.workers import processes
from tests.workers import faults
from tests.workers.forked_pool import await_end, nothing_left_behind
from tests.workers.tiny_net import expected_scores, write_tiny_net

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


@pytest.fixture
def spawned(net: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr(processes, "start_method", lambda *arguments: "spawn")
    with nothing_left_behind(), Pool(*net, workers=1, preprocess=faults.act, batch_size=4, retries=1) as made:
        yield made


def is_right(net: tuple[str, str], outputs: Any, value: float) -> bool:
    return np.allclose(outputs["score"], expected_scores(net[1], net[0], faults.filled(value)), rtol=1e-4, atol=1e-4)


def test_a_job_with_a_death_and_signals_of_the_group(net: tuple[str, str], spawned: Pool) -> None:
    spawned.map([1])
    (worker,) = spawned.stats().workers
    assert "worker import main" in " ".join(psutil.Process(worker.pid).cmdline())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    results = spawned.map([("os._exit", 7) if index == 6 else index for index in range(20)])
    assert isinstance(results[6].error, WorkerDied)
    assert "died with exit status 7 while running this item alone (attempt 2 of 2)" in str(results[6].error)
    assert all(is_right(net, result.outputs, result.index) for result in results if result.index != 6)
    assert spawned.stats().workers[0].restarts >= 2


def test_a_net_that_cannot_be_loaded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "start_method", lambda *arguments: "spawn")
    (tmp_path / "bad.prototxt").write_text("layer {")
    with (
        nothing_left_behind(),
        Pool(tmp_path / "bad.prototxt", workers=1) as workers,
        pytest.raises(ProtoError, match=r"bad\.prototxt"),
    ):
        workers.map([1])


def threads_of_the_session(outputs: Any) -> tuple[str, str]:
    """A `postprocess`: of the worker that it runs in."""
    return os.environ["OMP_NUM_THREADS"], " ".join(psutil.Process().cmdline())


def test_threads_of_a_worker(net: tuple[str, str]) -> None:
    """A session of two threads cannot be forked: such workers are spawned, and their libraries told."""
    with Pool(
        *net, workers=1, threads_per_worker=2, preprocess=faults.act, postprocess=threads_of_the_session
    ) as workers:
        (result,) = workers.map([1])
    assert result.error is None, result
    threads, command = result.outputs
    assert threads == "2"
    assert "worker import main" in command


PARENT = """
import ctypes, sys
from pycaffe import Pool
def hang(item):
    with open(item, "wb") as file:
        file.write(b"x")
    ctypes.PyDLL(None).sleep(1000)
pool = Pool(*sys.argv[1:3], workers=1, threads_per_worker=2, preprocess=hang)
future = pool.submit(sys.argv[3])
sys.stdin.read()
"""


def test_a_worker_that_hangs_with_the_interpreters_lock_ends_with_its_parent(
    net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", PARENT, *net, pipe], stdin=subprocess.PIPE) as parent:
        pipe.read_bytes()
        (worker,) = psutil.Process(parent.pid).children()
        process = os.pidfd_open(worker.pid)
        parent.kill()
        await_end(process, 1.0)


def loaded_openvino(outputs: Any) -> tuple[bool, Any]:
    return "openvino" in sys.modules, outputs["score"]


def test_precision_of_a_worker(net: tuple[str, str]) -> None:
    with Pool(*net, workers=1, precision="bfloat16", preprocess=faults.act, postprocess=loaded_openvino) as workers:
        (result,) = workers.map([1])
    assert result.error is None, result
    loaded, scores = result.outputs
    assert loaded
    np.testing.assert_allclose(scores, expected_scores(net[1], net[0], faults.filled(1)), rtol=0.1, atol=0.2)


# What Linux has and macOS has not. A stand-in: the real systems have not been tried.
AS_ON_MACOS = """
import os, select, signal, socket, sys
sys.platform = "darwin"
for module, names in (
    (os, ("memfd_create", "pidfd_open", "posix_fallocate", "pipe2", "eventfd", "sched_getaffinity")),
    (signal, ("pidfd_send_signal",)),
    (select, ("epoll",)),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["fcntl"] = None
import pycaffe
from tests.workers import faults
with pycaffe.Pool(*sys.argv[1:3], workers=2, preprocess=faults.filled, batch_size=4) as pool:
    outputs = [result.outputs["score"].sum() for result in pool.map(range(50))]
    assert "pycaffe.workers.zygote" not in sys.modules
with pycaffe.Pool(*sys.argv[1:3], backend="sequential", preprocess=faults.filled) as pool:
    right = [result.outputs["score"].sum() for result in pool.map(range(50))]
assert max(abs(a - b) for a, b in zip(outputs, right)) < 1e-2
"""
# Neither fork nor POSIX signals. Pipes and processes are of another kind there, so that this is about imports alone.
AS_ON_WINDOWS = """
import os, signal, socket, sys
import multiprocessing.connection, subprocess, asyncio, ctypes
for module, names in (
    (os, ("fork", "memfd_create", "pidfd_open", "posix_fallocate", "register_at_fork", "pipe2")),
    (signal, ("pthread_sigmask", "SIGKILL", "SIGCHLD", "set_wakeup_fd", "SIGIO", "pidfd_send_signal")),
    (socket, ("AF_UNIX", "send_fds", "recv_fds")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["fcntl"] = sys.modules["resource"] = None
import importlib, pathlib
import pycaffe.workers
sys.platform = "win32"
for path in sorted(pathlib.Path(pycaffe.workers.__file__).parent.glob("*.py")):
    if path.stem not in ("zygote", "forked"):
        importlib.import_module("pycaffe.workers." + path.stem)
with pycaffe.Pool(*sys.argv[1:3], backend="thread", workers=2) as pool:
    (result,) = pool.map([{"data": __import__("numpy").ones((3, 4, 5), "float32")}])
assert result.error is None, result.error
"""


@pytest.mark.parametrize("code", [AS_ON_MACOS, AS_ON_WINDOWS], ids=["macOS", "Windows"])
def test_other_systems(net: tuple[str, str], code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *net],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
