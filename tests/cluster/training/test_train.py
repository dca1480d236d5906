"""`pycaffe.cluster.train` on a Ray of this machine: real processes, real deaths."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pycaffe.cluster.training.train as train_module
from pycaffe import glog
from pycaffe.cluster import Run, RunControl, connection, train
from pycaffe.cluster.connection import Connection
from pycaffe.cluster.training import allreduce
from pycaffe.cluster.training.data_paths import data_paths
from pycaffe.cluster.training.driver import Driver
from pycaffe.cluster.training.train import checkpoint_interval
from pycaffe.cluster.training.worker_actor import News
from pycaffe.cluster.training.worker_solver import StepReport
from pycaffe.errors import CaffeError, ClusterError, DataError, SolverError
from pycaffe.proto.schema import SolverParameter
from tests.cluster.training.in_process import train_here
from tests.cluster.training.small_net import alone, assert_same, write_solver
from tests.cluster.training.training_logs import assert_same_log, numbers_of
from tests.net.nets import layer

TESTS = "momentum: 0.9 test_interval: 10 display: 5 snapshot: 10 test_iter: "  # of the batch, so that rows are the same


@pytest.fixture
def pids(local_ray: Connection) -> Iterator[dict[str, list[int]]]:
    """Of workers and servers, in the order in which they were ready."""
    found: dict[str, list[int]] = {"Worker process": [], "Server": []}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ready = re.match(r"(Worker process|Server) \d+ is ready: pid (\d+)", record.getMessage())
            if ready:
                found[ready[1]].append(int(ready[2]))

    logger, listener = logging.getLogger("pycaffe"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(listener)
    logger.setLevel(level)
    for pid in [*found["Worker process"], *found["Server"]]:
        wait_for_end(pid)


def wait_for_end(pid: int, seconds: float = 20.0) -> None:
    """Returns once a process is no more; fails after a while."""
    import select

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([handle], [], [], seconds)
    os.close(handle)
    assert ended, f"process {pid} is still there"


def at(deeds: dict[int, Callable[[], Any]]) -> Callable[[int, float], None]:
    """An on_progress that does something once an iteration is done."""
    left = dict(deeds)

    def progress(iteration: int, loss: float) -> None:
        for due in [due for due in left if due <= iteration]:
            left.pop(due)()

    return progress


@contextlib.contextmanager
def logged(file: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """With the log of `caffe train`, which goes to a file."""
    before = glog._handler
    glog.init_log(0)
    try:
        yield
    finally:
        logging.getLogger("pycaffe").removeHandler(glog._handler)
        glog._handler = before
    file.write_text(capsys.readouterr().err)


def test_a_run_is_that_of_one_process(
    tmp_path: pathlib.Path, pids: dict[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Parameters, losses, log, snapshots; the way from a cluster to one process and to a cluster of another size."""
    progress: list[tuple[int, float]] = []
    with logged(tmp_path / "log", capsys):
        run = train(
            write_solver(tmp_path, 4, TESTS + "4", prefix="cluster"),
            workers=2,
            servers=2,
            on_progress=lambda iteration, loss: progress.append((iteration, loss)),
        )
    with logged(tmp_path / "log of one", capsys):
        want = alone(write_solver(tmp_path, 8, TESTS + "2", prefix="one"))
    assert_same(run.params, want)
    assert run.iter == 20
    assert progress == [(iteration + 1, loss) for iteration, loss in enumerate(run.losses)]
    assert sorted(number for event in run.trace for number in event.batches) == run.batches == list(range(40))
    count = 4 * sum(array.size for arrays in want.values() for array in arrays)
    assert run.bytes_pushed == 20 * 2 * count
    assert run.bytes_pulled == 21 * 2 * count
    assert run.snapshots == [str(tmp_path / f"cluster_iter_{number}.solverstate") for number in (10, 20)]
    assert list(numbers_of(tmp_path / "log")["test/accuracy"]) == [0, 10, 20]
    assert_same_log(tmp_path / "log", tmp_path / "log of one", rel=1e-4)
    assert_same(alone(str(tmp_path / "one8.prototxt"), run.snapshots[0]), want)
    smaller = write_solver(tmp_path, 2, TESTS + "8", prefix="four")
    assert_same(train_here(smaller, 4, servers=3, snapshot=run.snapshots[0]).params, want)


@pytest.mark.parametrize(
    ("mode", "staleness", "compression", "pushed"), [("ssp", 1, "fp16", 0.5), ("async", None, "topk:0.05", 0.2)]
)
def test_without_lockstep(
    mode: str,
    staleness: int | None,
    compression: str,
    pushed: float,
    tmp_path: pathlib.Path,
    pids: dict[str, list[int]],
) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9", steps=40)
    run = train(solver, workers=2, servers=2, mode=mode, staleness=staleness, compression=compression)
    assert run.iter == 40
    assert sum(run.losses[-10:]) < sum(run.losses[:10])
    sent = {(event.worker, event.clock): event.time for event in run.trace if event.kind == "push"}
    assert {worker for worker, _ in sent} == {0, 1}
    count = sum(4 * array.size for arrays in run.params.values() for array in arrays)
    assert run.bytes_pushed <= 1.01 * pushed * len(sent) * count
    if staleness is not None:
        for event in run.trace:
            if event.kind == "pull" and event.clock > staleness:
                assert all(sent[worker, event.clock - staleness - 1] <= event.time for worker in (0, 1))


def test_reports_that_come_after_the_servers_result_count(
    tmp_path: pathlib.Path, pids: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hear, timers = Driver._hear_worker, []

    def hear_late(driver: Driver, incarnation: int, news: News) -> None:
        if isinstance(news, StepReport) and (news.rank, news.iteration) == (1, 20):
            timers.append(threading.Timer(1.0, hear, (driver, incarnation, news)))
            timers[-1].start()
        else:
            hear(driver, incarnation, news)

    monkeypatch.setattr(Driver, "_hear_worker", hear_late)
    run = train(write_solver(tmp_path, 4), workers=2)
    for timer in timers:
        timer.join()
    assert len(timers) == 1
    assert sorted(number for event in run.trace for number in event.batches) == list(range(40))
    assert len(run.losses) == 20


def test_killed_workers_and_servers_change_nothing(tmp_path: pathlib.Path, pids: dict[str, list[int]]) -> None:
    """In a run that goes on from one process's snapshot, and in which servers tell each other norms."""

    def kill(*kinds: str) -> None:
        for kind in kinds:
            os.kill(pids[kind][-1], signal.SIGKILL)

    more = "momentum: 0.9 clip_gradients: 0.3"
    want = alone(write_solver(tmp_path, 8, more + " snapshot: 5", steps=30, prefix="one"))
    deaths = {12: lambda: kill("Worker process"), 22: lambda: kill("Worker process", "Server")}
    run = train(
        write_solver(tmp_path, 4, more, steps=30, prefix="cluster"),
        workers=2,
        servers=2,
        checkpoint_every=5,
        snapshot=tmp_path / "one_iter_5.solverstate",
        on_progress=at(deaths),
    )
    assert run.restarts == 3
    assert len(run.losses) == 25
    assert run.batches == list(range(50))
    assert_same(run.params, want)


@pytest.mark.slow
def test_workers_join_and_leave(tmp_path: pathlib.Path, pids: dict[str, list[int]]) -> None:
    control = RunControl()
    seen: list[int] = []

    def progress(iteration: int, loss: float) -> None:
        if iteration == 1:
            control.add_worker()
        seen.append(len(pids["Worker process"]))
        if seen[-1] == 2 and seen.count(2) == 20:
            control.remove_worker(0)
        if seen.count(2) == 60:
            control.snapshot()
            control.stop()

    solver = write_solver(tmp_path, 4, "momentum: 0.9 snapshot_after_train: false", steps=100_000)
    run = train(solver, workers=1, min_workers=1, max_workers=2, on_progress=progress, control=control)
    ranks = {(event.generation, event.worker) for event in run.trace}
    assert ranks == {(1, 0), (2, 0), (2, 1), (3, 0)}
    assert [(steps.generation, steps.assignment.workers) for steps in run.counted] == [(1, 1), (2, 2), (3, 1)]
    assert run.batches == list(range(len(run.batches)))
    assert run.snapshots == [str(tmp_path / f"run_iter_{run.iter}.solverstate")]
    assert run.iter < 100_000


def test_an_error_of_a_worker_ends_the_run(tmp_path: pathlib.Path, pids: dict[str, list[int]]) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9 snapshot_after_train: true", steps=4000)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n{tmp_path / 'lost.h5'}\n")
    with pytest.raises(DataError, match=r"Failed opening HDF5 file: .*lost\.h5"):
        train(solver, workers=1, checkpoint_every=5)
    (snapshot,) = tmp_path.glob("run_iter_*.solverstate")
    assert int(snapshot.stem.rpartition("_")[2]) % 5 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "A cluster needs at least one worker; got workers=0"),
        ({"workers": 1, "servers": 0}, "at least one server; got servers=0"),
        ({"workers": 1, "mode": "ssp"}, "Mode 'ssp' needs staleness"),
        ({"workers": 1, "mode": "hogwild"}, "mode is 'sync', 'async', 'ssp' or 'allreduce'; got 'hogwild'"),
        ({"workers": 1, "compression": "zip"}, "compression is None, 'fp16' or 'topk:F'"),
        ({"workers": 1, "snapshot": "a", "weights": "b"}, "but not both"),
        ({"workers": 1, "mode": "allreduce", "servers": 2}, "mode 'allreduce' has none"),
        ({"workers": 1, "checkpoint_every": 0}, "must be a divisor"),
        ({"workers": 1, "mode": "allreduce", "checkpoint_every": 5}, "checkpoint_every is of parameter servers"),
        ({"workers": 1, "mode": "allreduce", "devices": "tpu"}, "devices is None, 'cpu' or 'gpu'; got 'tpu'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises((SolverError, CaffeError), match=re.escape(message)):
        train(write_solver(tmp_path, 4), **options)


def test_checkpoints_are_also_where_snapshots_are() -> None:
    assert checkpoint_interval(None, 0) == 100
    assert checkpoint_interval(None, 5000) == 100
    assert checkpoint_interval(None, 777) == 37
    assert checkpoint_interval(None, 10) == 10
    assert checkpoint_interval(None, 5003) == 5003
    assert checkpoint_interval(5, 10) == 5


@pytest.mark.parametrize("prefix", ["images/", "images/a"])
def test_what_is_looked_for_on_nodes(prefix: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = []
    for name, phase in (("list", "TRAIN"), ("test list", "TEST")):
        source = f'image_data_param {{ source: "{name}" root_folder: "{tmp_path}/{prefix}" }}'
        sources.append(layer("data", "ImageData", "", "data label", f"{source} include {{ phase: {phase} }}"))
    (tmp_path / "net").write_text("".join(sources))
    solver = SolverParameter(net="net")
    train_files = [str(tmp_path), "list", f"{tmp_path}/images"]
    assert data_paths(solver) == train_files, "it never tests"
    solver.test_iter.append(1)
    solver.test_interval = 1
    assert data_paths(solver) == [*train_files, "test list", f"{tmp_path}/images"]


@pytest.mark.parametrize("mode", ["sync", "allreduce"])
def test_a_node_without_the_data(
    mode: str, tmp_path: pathlib.Path, local_ray: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one node of a cluster that was not started for this process; its files are this machine's, so one is lost."""
    solver = write_solver(tmp_path, 4)
    monkeypatch.setattr(connection, "_started_here", False)
    looked: list[str] = []

    def lost_meanwhile(param: Any) -> list[str]:
        looked.extend(data_paths(param))
        (tmp_path / "list.txt").unlink()
        return looked

    for module in (train_module, allreduce):
        monkeypatch.setattr(module, "data_paths", lost_meanwhile)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=rf"Node '.+' has no '{tmp_path}/list\.txt'\. The same path has to lead"):
        train(solver, workers=1, mode=mode)
    assert time.monotonic() - begun < 30
    assert looked == [os.getcwd(), f"{tmp_path}/list.txt"]


def test_a_run_pickles() -> None:
    import pickle

    assert pickle.loads(pickle.dumps(Run(iter=3))).iter == 3
