"""`caffe train --workers 2`, from weights to its end: what each worker reads, log, snapshot."""

from __future__ import annotations

import pathlib
import re

import numpy as np
import pytest

from pycaffe import cli
from pycaffe.cluster.connection import Connection
from pycaffe.solvers import get_solver
from tests.cli.conftest import no_log_goes_on  # noqa: F401 (runs around each test)
from tests.cluster.training.small_net import alone, assert_same, write_solver
from tests.cluster.training.training_logs import assert_same_log, numbers_of

STEPS = 5
STILL = "base_lr: 1e-7"  # so the losses tell what is read, and not how far the others are


def losses(solver: str, weights: str, rows: slice) -> list[float]:
    """Of so many rows of each joined batch."""
    net = get_solver(solver).net
    net.copy_from(weights)
    found = []
    for _ in range(STEPS):
        net.forward()
        scores = net.blobs["fc"].data[rows].astype(np.float64)
        labels = net.blobs["label"].data[rows].astype(int)
        chosen = scores[np.arange(len(labels)), labels]
        found.append(float(np.mean(np.log(np.exp(scores).sum(axis=1)) - chosen)))
    return found


def logged(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `caffe train` logs."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *words])
    log = capsys.readouterr().err
    assert not ended.value.code, log
    return log


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        # Parameter servers: batches follow each other, and the first four of eight rows are worker 0's.
        (["--servers", "2", "--mode", "ssp", "--staleness", "2", "--compression", "fp16"], slice(0, 4)),
        # All-reduce, as the original's several GPUs (DataLayer::Skip): of two each reads every second record.
        pytest.param(["--mode", "allreduce"], slice(0, 8, 2), marks=pytest.mark.slow),
    ],
    ids=["ssp", "allreduce"],
)
def test_the_command(
    options: list[str], rows: slice, tmp_path: pathlib.Path, local_ray: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = alone(write_solver(tmp_path, 8, "momentum: 0.9 snapshot_after_train: true", steps=30, prefix="one"))
    weights = str(tmp_path / "one_iter_30.caffemodel")
    more = STILL + " display: 1 test_interval: 2 snapshot_after_train: true test_iter: "
    solver = write_solver(tmp_path, 4, more + "4", steps=STEPS)
    joined = write_solver(tmp_path, 8, more + "2", steps=STEPS, prefix="one")
    log = logged(capsys, "--solver", solver, "--workers", "2", "--weights", weights, *options)
    of_one = logged(capsys, "--solver", joined, "--weights", weights)
    (tmp_path / "log").write_text(log)
    (tmp_path / "log of one").write_text(of_one)
    assert list(numbers_of(tmp_path / "log")["test/accuracy"]) == [0, 2, 4]
    assert_same_log(tmp_path / "log", tmp_path / "log of one", rel=5e-3)
    # Rank 0 displays its own loss, as the original's root solver does; fp16 rounds what is pulled.
    shown = re.findall(rf"Iteration ([0-{STEPS - 1}])\b.*, loss = ([\d.]+)", log)
    assert [int(iteration) for iteration, _ in shown] == list(range(STEPS))
    want = losses(write_solver(tmp_path, 8, prefix="one"), weights, rows)
    assert [float(loss) for _, loss in shown] == pytest.approx(want, rel=5e-3)
    assert "Optimization Done." in log
    done = get_solver(solver)
    done.restore(str(tmp_path / f"run_iter_{STEPS}.solverstate"))
    assert_same({name: [blob.data for blob in blobs] for name, blobs in done.net.params.items()}, trained)
