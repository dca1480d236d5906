"""Training iterations of pycaffe against plain PyTorch, float32, on the CPU.

pycaffe's time is the whole of `solver.step(1)` on data that cost nothing to read (SGD with momentum and weight decay);
plain PyTorch's is forward, backward and `torch.optim.SGD.step` of the same net on the same batch (plain_torch.py), in
both of its layouts, of which the faster counts. A process measures one net, all three in turn, each as often first as
the others; there are several such processes for each net, and all figures are medians over processes of medians over
rounds, with their spread. A net's line comes as soon as it is measured: about two minutes for each.

    bench_training.py [--nets lenet,caffenet] [--processes 5] [--threads 2] [--quick]

Beside them stand what the original took on a machine of this kind with OpenBLAS, from notes: not measured here.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import SEED, arguments, interleave, ratio, run_process, spread, verdict

import caffe

BATCHES = {"lenet": 64, "cifar10_quick": 100, "caffenet": 10, "googlenet": 10}
ORIGINAL = {"lenet": 14.6, "cifar10_quick": 101.0, "caffenet": 313.0, "googlenet": 829.0}  # ms
BAR = 1.1
PEERS = ("contiguous", "channels_last")
SGD = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}
SECONDS = 12.0  # of measuring in one process
LINE = "{:14} {:>5}  {:22} {:22} {:22} {:>8}  {:22} {}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--nets", type=lambda s: s.split(","), default=list(BATCHES), help=f"of {','.join(BATCHES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.threads, 1.0 if options.quick else SECONDS)))
        return
    print("ms of an iteration; pycaffe's time / plain PyTorch's in its better layout\n")
    columns = ("net", "batch", "pycaffe", "torch", "torch, channels-last", "original", "ratio", f"at most {BAR}")
    print(LINE.format(*columns), flush=True)
    for name in options.nets:
        command = [__file__, "--one", name, "--threads", str(options.threads), *["--quick"] * options.quick]
        print(line(name, [run_process(command) for _ in range(options.processes or (1 if options.quick else 5))]))
        sys.stdout.flush()


def line(name: str, processes: list[dict[str, Any]]) -> str:
    """A net's figures and verdict."""
    figures = [spread(milliseconds(processes, peer)) for peer in ("pycaffe", *PEERS)]
    ratios = against_best(processes)
    held = verdict(statistics.median(ratios) <= BAR)
    return LINE.format(name, BATCHES[name], *figures, f"{ORIGINAL[name]:g}", spread(ratios), held)


def milliseconds(processes: list[dict[str, Any]], peer: str) -> list[float]:
    """By process, the median over rounds."""
    return [statistics.median(process[peer]) * 1e3 for process in processes]


def against_best(processes: list[dict[str, Any]]) -> list[float]:
    """By process, pycaffe's time over that of the layout that is faster over all processes."""
    best = min(PEERS, key=lambda peer: statistics.median(milliseconds(processes, peer)))
    return [ratio(process["pycaffe"], process[best]) for process in processes]


# -- one process


def measure(name: str, threads: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of an iteration by round, of pycaffe and of each layout."""
    import torch

    torch.set_num_threads(threads)
    steps = trainings(name, BATCHES[name])
    for _ in range(3):
        for step in steps.values():
            step()
    first = interleave(steps, 1)
    rounds = seconds / sum(max(0.15, *taken) for taken in first.values())
    return interleave(steps, int(min(max(rounds, 3), 20)))


def trainings(name: str, batch: int) -> dict[str, Callable[[], Any]]:
    """By peer, what takes one step; all begin with the same weights and have the same batch."""
    import torch
    from plain_torch import PlainTraining

    solver = make_solver(name, batch)
    rng = np.random.default_rng(SEED)
    images = rng.standard_normal(solver.net.blobs["data"].shape, np.float32)
    classes = next(reversed(solver.net.params.values()))[0].shape[0]
    labels = rng.integers(0, classes, batch).astype(np.float32)
    solver.net.blobs["data"].data[...] = images
    solver.net.blobs["label"].data[...] = labels
    values = [blob.data.copy() for blobs in solver.net.params.values() for blob in blobs]
    steps: dict[str, Callable[[], Any]] = {"pycaffe": functools.partial(solver.step, 1)}
    for peer, layout in zip(PEERS, (torch.contiguous_format, torch.channels_last)):
        steps[peer] = PlainTraining(name, values, images, labels, layout, **SGD).step
    return steps


def make_solver(name: str, batch: int) -> Any:
    """The solver of a net, with seeded weights."""
    param = getattr(importlib.import_module(f"nets.{name}"), f"{name}_train")(batch)
    with tempfile.TemporaryDirectory() as folder:
        solver = pathlib.Path(folder, "solver.prototxt")
        pathlib.Path(folder, "net.prototxt").write_text(str(param))
        solver.write_text(
            f'net: "{folder}/net.prototxt" lr_policy: "fixed" base_lr: {SGD["lr"]} momentum: {SGD["momentum"]} '
            f"weight_decay: {SGD['weight_decay']} random_seed: {SEED} display: 0 snapshot_after_train: false"
        )
        return caffe.SGDSolver(str(solver))


if __name__ == "__main__":
    sys.exit(main())
