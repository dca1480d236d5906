"""A run that is killed and resumed ends with the weights of one that was left alone, bit for bit."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Iterator

import lmdb
import numpy as np
import pytest

from pycaffe.proto.schema import Datum
from tests.net.nets import layer

# The data do not divide by the batch, and their number not by the snapshots' interval.
COUNT, BATCH, ITERATIONS = 23, 4, 200

BODY = (
    layer(
        "conv",
        "Convolution",
        "data",
        rest="convolution_param { num_output: 5 kernel_size: 3 "
        'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } }',
    )
    + layer("relu", "ReLU", "conv", "conv")
    + layer("pool", "Pooling", "conv", rest="pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }")
    + layer("drop", "Dropout", "pool", "pool", "dropout_param { dropout_ratio: 0.4 }")
    + layer("ip", "InnerProduct", "pool", rest='inner_product_param { num_output: 6 weight_filler { type: "xavier" } }')
    + layer("loss", "SoftmaxWithLoss", "ip label", "loss")
)
SOLVER = """
net: "net.prototxt" type: "%s" base_lr: 0.05 lr_policy: "multistep" gamma: 0.5 stepvalue: 60 stepvalue: 130 %s
weight_decay: 0.001 max_iter: 200 snapshot: 9 snapshot_prefix: "run" random_seed: 3 display: 0 iter_size: 2
"""
# For each folder that it reads, forks a process that trains there from the newest solver state, if there is one, and
# says how far it is. Forks, because each death costs a process, and importing torch takes longer than all the rest.
SCRIPT = r"""
import glob, os, re, sys
import sympy, torch  # sympy by torch's first gradient
import caffe

def train():
    solver = caffe.get_solver("solver.prototxt")
    solver.add_callback(lambda: print(solver.iter, flush=True), lambda: None)
    states = sorted(glob.glob("run_iter_*.solverstate"), key=lambda name: int(re.findall(r"\d+", name)[0]))
    solver.solve(states[-1] if states else None)

while folder := sys.stdin.readline().strip():
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        os.chdir(folder)
        train()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


def write_image_list(folder: pathlib.Path) -> str:
    import cv2

    rng = np.random.default_rng(11)
    for i in range(COUNT):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (9, 8, 3), np.uint8))
    (folder / "list.txt").write_text("".join(f"{folder}/{i}.png {i % 6}\n" for i in range(COUNT)))
    return (
        'layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { crop_size: 7 mirror: true '
        f'scale: 0.0039 }} image_data_param {{ source: "list.txt" batch_size: {BATCH} shuffle: true rand_skip: 5 }} '
        "}\n"
    )


def write_lmdb(folder: pathlib.Path) -> str:
    rng = np.random.default_rng(12)
    with lmdb.open(str(folder / "db"), map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
        for i in range(COUNT):
            pixels = rng.integers(0, 256, (3, 9, 8), np.uint8)
            datum = Datum(channels=3, height=9, width=8, data=pixels.tobytes(), label=i % 6)
            transaction.put(f"{i:08d}".encode(), datum.SerializeToString())
    return (
        'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 7 mirror: true '
        f'scale: 0.0039 }} data_param {{ source: "db" backend: LMDB batch_size: {BATCH} }} }}\n'
    )


class Trainer:
    """A process that runs trainings, one after the other, each in a fork."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, folder: pathlib.Path) -> int:
        """Begins a run; returns its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        return int(self._line())

    def finish(self) -> tuple[int | None, int]:
        """Waits for the end of a run; returns where it began and its exit status."""
        first, line = None, self._line()
        while not line.startswith("ended"):
            first = int(line) if first is None else first
            line = self._line()
        return first, int(line.split()[1])

    def kill_at(self, folder: pathlib.Path, iteration: int) -> int:
        """Lets a run go on until that iteration begins, and kills it; returns how far it had come when it began."""
        child = self.start(folder)
        begin = now = int(self._line())
        while now < iteration:
            now = int(self._line())
        os.kill(child, signal.SIGKILL)
        assert self.finish()[1] == -signal.SIGKILL
        return begin

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def trainers() -> Iterator[tuple[Trainer, Trainer]]:
    """Two, so that nothing is at the same place in memory."""
    both = Trainer(), Trainer()
    yield both
    for trainer in both:
        trainer.close()


@pytest.mark.parametrize(
    ("write_data", "solver_type", "more"),
    [(write_image_list, "SGD", "momentum: 0.9"), (write_lmdb, "Adam", "momentum: 0.9 snapshot_format: BINARYPROTO")],
    ids=["ImageData, SGD", "LMDB, Adam"],
)
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_weights(
    tmp_path: pathlib.Path, trainers: tuple[Trainer, Trainer], write_data: object, solver_type: str, more: str
) -> None:
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "net.prototxt").write_text(write_data(folder) + BODY)  # type: ignore[operator]
        (folder / "solver.prototxt").write_text(SOLVER % (solver_type, more))
    undisturbed, disturbed = trainers
    undisturbed.start(tmp_path / "whole")
    moments = sorted(random.Random(5).sample(range(10, ITERATIONS), 5))
    begins = [disturbed.kill_at(tmp_path / "killed", moment) for moment in moments]
    assert begins[0] == 0
    assert all(begin % 9 == 0 and begin > 0 for begin in begins[1:])
    disturbed.start(tmp_path / "killed")
    for trainer in trainers:
        assert trainer.finish()[1] == 0
    files = [f"run_iter_{ITERATIONS}.caffemodel", f"run_iter_{ITERATIONS}.solverstate"]
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()
