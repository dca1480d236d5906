"""How long a training net waits for its data: readers that decode ahead, against the same net on data in memory.

LeNet (batch 64) reads raw 28 x 28 digits from an LMDB; CaffeNet (batch 10) reads JPEG files of 500 x 375, resizes them
to 256 x 256, and crops and mirrors them at random. Sources are made here, with seeded pixels.

    bench_prefetch.py [--threads 2] [--quick]

`waits` is the time that an iteration is held up in its reader until the batch is there; with `prefetch: 0`, which reads
when it is asked, it shows what reading costs. Reading ahead takes the cores' time from the net: `step` against `step in
memory` shows that.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import SEED, arguments, verdict
from nets import caffenet, lenet

import caffe
from caffe import NetSpec
from caffe import layers as L
from caffe import params as P
from pycaffe.data import write_database

BAR = 0.02  # of an iteration
DIGITS, PHOTOGRAPHS = 6000, 200
READ_AHEAD = 4  # data_param.prefetch by default
CASES: dict[str, tuple[Callable[[Any], Any], int]] = {"lenet": (lenet.scores, 64), "caffenet": (caffenet.scores, 10)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    caffe.set_num_threads(options.threads)
    columns = f"{'step in memory':>14} {'step':>8} {'waits':>8} {'prefetch: 0 waits':>18}"
    print(f"{'net':10} {'source':22} {columns}   ms, medians")
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, make) in {
            "lenet": ("LMDB, raw", digits),
            "caffenet": ("ImageData, JPEG", photographs),
        }.items():
            iterations = 5 if options.quick else {"lenet": 300, "caffenet": 40}[name]
            reader = make(pathlib.Path(folder))
            memory, _ = run(folder, name, in_memory, iterations)
            step, waits = run(folder, name, lambda n, batch, make=reader: make(n, batch, READ_AHEAD), iterations)
            _, without = run(folder, name, lambda n, batch, make=reader: make(n, batch, 0), iterations)
            print(f"{name:10} {source:22} {memory:14.2f} {step:8.2f} {waits:8.3f} {without:18.3f}")
            print(f"  {verdict(waits <= BAR * step):12} waits {waits / step:.2%} of an iteration, at most {BAR:.0%}")


# -- sources: what writes one, and gives what adds its reader to a net

Reader = Callable[[Any, int, int], None]


def digits(folder: pathlib.Path) -> Reader:
    """An LMDB of raw images as MNIST's."""
    rng = np.random.default_rng(SEED)
    write_database(folder / "digits", rng.integers(0, 256, (DIGITS, 1, 28, 28), np.uint8), np.arange(DIGITS) % 10)

    def add(n: Any, batch: int, prefetch: int) -> None:
        n.data, n.label = L.Data(
            ntop=2,
            data_param={
                "source": str(folder / "digits"), "backend": P.Data.LMDB, "batch_size": batch, "prefetch": prefetch,
            },
            transform_param={"scale": 1 / 256},
        )  # fmt: skip

    return add


def photographs(folder: pathlib.Path) -> Reader:
    """A list of JPEG files, smooth in the large and grainy in the small, about 60 kB each as ImageNet's."""
    import cv2

    rng = np.random.default_rng(SEED)
    lines = []
    for number in range(PHOTOGRAPHS):
        smooth = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (500, 375), interpolation=cv2.INTER_CUBIC)
        grainy = smooth + rng.normal(0, 6, smooth.shape)
        cv2.imwrite(str(folder / f"{number}.jpg"), grainy.clip(0, 255).astype(np.uint8))
        lines.append(f"{folder}/{number}.jpg {number % 1000}\n")
    (folder / "list.txt").write_text("".join(lines))

    def add(n: Any, batch: int, prefetch: int) -> None:
        n.data, n.label = L.ImageData(
            ntop=2,
            image_data_param={
                "source": str(folder / "list.txt"), "batch_size": batch, "shuffle": True, "new_height": 256,
                "new_width": 256,
            },
            data_param={"prefetch": prefetch},
            transform_param={"crop_size": 227, "mirror": True, "mean_value": [104, 117, 123]},
        )  # fmt: skip

    return add


def in_memory(n: Any, batch: int) -> None:
    """Data that cost nothing to read."""
    shape = [batch, 1, 28, 28] if batch == CASES["lenet"][1] else [batch, 3, 227, 227]
    n.data, n.label = L.DummyData(ntop=2, shape=[{"dim": shape}, {"dim": [batch]}])


# -- runs


def run(folder: str, name: str, add_data: Callable[[Any, int], None], iterations: int) -> tuple[float, float]:
    """Median milliseconds of an iteration, and of its wait for the batch."""
    solver = make_solver(folder, name, add_data)
    reader, waits = solver.net.layers[0], []
    forward = reader.forward_blobs

    def timed(*blobs: Any) -> None:
        start = time.perf_counter()
        forward(*blobs)
        waits.append(time.perf_counter() - start)

    reader.forward_blobs = timed
    solver.step(3)
    waits.clear()
    steps = []
    for _ in range(iterations):
        start = time.perf_counter()
        solver.step(1)
        steps.append(time.perf_counter() - start)
    return statistics.median(steps) * 1e3, statistics.median(waits) * 1e3


def make_solver(folder: str, name: str, add_data: Callable[[Any, int], None]) -> Any:
    """The solver of a net on such data."""
    scores, batch = CASES[name]
    n = NetSpec()
    add_data(n, batch)
    n.loss = L.SoftmaxWithLoss(scores(n), n.label)
    pathlib.Path(folder, "net.prototxt").write_text(str(n.to_proto()))
    solver = pathlib.Path(folder, "solver.prototxt")
    solver.write_text(
        f'net: "{folder}/net.prototxt" lr_policy: "fixed" base_lr: 1e-4 momentum: 0.9 random_seed: {SEED} '
        "display: 0 snapshot_after_train: false"
    )
    return caffe.SGDSolver(str(solver))


if __name__ == "__main__":
    sys.exit(main())
