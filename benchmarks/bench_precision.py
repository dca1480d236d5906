"""Reduced precision on the CPU: pycaffe's bfloat16 and int8 against OpenVINO's float32 and pycaffe's own.

bfloat16 is measured where the processor has instructions for it (amx_bf16 or avx512_bf16 in /proc/cpuinfo); elsewhere
OpenVINO emulates it, which is slower than float32 and proves nothing. int8 is calibrated with seeded inputs: its time
is right, and its error says little about photographs (`Net.compare` says it for a user's own). A process measures one
net at one batch, all engines in turn; figures are medians over processes of medians over rounds, with their spread.

    bench_precision.py [--nets caffenet,vgg16] [--batches 1,8] [--threads 2] [--processes 5] [--quick]
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_inference import integers
from measure import (
    NETS,
    arguments,
    cpu_flags,
    geometric_mean,
    interleave,
    net_files,
    ratio,
    run_process,
    settle,
    spread,
    straightforward_file,
    verdict,
)
from peers import example, openvino

import caffe

QUICK_NETS = ("squeezenet_v1_1", "open_nsfw")
NATIVE_BFLOAT16 = {"amx_bf16", "avx512_bf16"}
BAR, BAR_BATCHES = 1.8, (8, 32)  # bfloat16 against OpenVINO's float32, geometric mean
ROUNDS = 5
CALIBRATION = 8


def main() -> None:
    if sys.argv[1:2] == ["--case"]:
        name, batch, threads = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        print(json.dumps(measure(name, batch, threads)))
        return
    options = parse()
    for name in options.nets:
        net_files(name)
        straightforward_file(name)
    cases: dict[tuple[str, int], list[dict[str, Any]]] = {(n, b): [] for b in options.batches for n in options.nets}
    for _ in range(options.processes):
        for (name, batch), processes in cases.items():
            processes.append(run_process([__file__, "--case", name, str(batch), str(options.threads)]))
    report(cases)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--nets", type=lambda s: s.split(","), help=f"of {','.join(NETS)}")
    parser.add_argument("--batches", type=integers)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    options.nets = options.nets or list(QUICK_NETS if options.quick else NETS)
    options.batches = options.batches or ([1, 8] if options.quick else [1, 8, 32])
    options.processes = options.processes or (1 if options.quick else 5)
    return options


# -- one process


def measure(name: str, batch: int, threads: int) -> dict[str, Any]:
    """Seconds by engine and round, and how far each output is from pycaffe's float32, relative to its largest value."""
    files = (*net_files(name), straightforward_file(name))
    plain = caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1]), threads=threads)
    shape = (batch, *plain.blobs[plain.inputs[0]].shape[1:])
    x = example(shape)
    calibration = np.random.default_rng(1).standard_normal((CALIBRATION, *shape[1:]), dtype=np.float32)
    asked: dict[str, dict[str, Any]] = {"float32": {}, "int8": {"precision": "int8", "calibration": calibration}}
    if NATIVE_BFLOAT16 & cpu_flags():
        asked["bfloat16"] = {"precision": "bfloat16"}
    runs: dict[str, Callable[[], Any]] = {"openvino": functools.partial(openvino(files, x, threads), x)}
    for precision, keywords in asked.items():
        net = caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1]), threads=threads, **keywords)
        net.blobs[net.inputs[0]].reshape(*shape)
        runs[precision] = functools.partial(forward, net, x)
    outputs = {engine: np.array(run()).reshape(batch, -1) for engine, run in runs.items()}
    settle()
    want = outputs["float32"]
    return {
        "seconds": interleave(runs, ROUNDS),
        "error": {engine: float(abs(got - want).max() / abs(want).max()) for engine, got in outputs.items()},
    }


def forward(net: Any, x: Any) -> Any:
    """The whole of what a user does for one output."""
    net.blobs[net.inputs[0]].data[...] = x
    return net.forward()[net.outputs[0]]


# -- the table


def report(cases: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """A line for each case, geometric means by batch, and the bar."""
    print("times as fast as OpenVINO's float32 (and as pycaffe's float32), relative error")
    for (name, batch), processes in cases.items():
        cells = []
        for engine in engines(processes):
            own = statistics.median(speed_ups(processes, engine, "float32"))
            error = max(process["error"][engine] for process in processes)
            cells.append(f"{engine} {spread(speed_ups(processes, engine))} ({own:.3g}), {error:.1e}")
        print(f"{name:16} batch {batch:3}:  " + ";  ".join(cells))
    print()
    for batch in sorted({batch for _, batch in cases}):
        means = {engine: mean(cases, engine, (batch,)) for engine in engines(next(iter(cases.values())))}
        print(
            f"geometric mean, batch {batch}: " + ", ".join(f"{engine} {value:.3g}" for engine, value in means.items())
        )
    if not NATIVE_BFLOAT16 & cpu_flags():
        print(f"bfloat16: {verdict(None)}, this processor has no instructions for it (bar {BAR:g})")
    elif any(batch in BAR_BATCHES for _, batch in cases):
        found = mean(cases, "bfloat16", BAR_BATCHES)
        print(f"bfloat16, batch 8 and 32: {verdict(found >= BAR)}, {found:.3g} (bar {BAR:g})")


def engines(processes: list[dict[str, Any]]) -> list[str]:
    """What was measured beside OpenVINO's and pycaffe's float32."""
    return [engine for engine in processes[0]["seconds"] if engine not in ("openvino", "float32")]


def speed_ups(processes: list[dict[str, Any]], engine: str, against: str = "openvino") -> list[float]:
    """By process."""
    return [ratio(process["seconds"][against], process["seconds"][engine]) for process in processes]


def mean(cases: dict[tuple[str, int], list[dict[str, Any]]], engine: str, batches: tuple[int, ...]) -> float:
    """The geometric mean over nets and batches of how many times as fast an engine is as OpenVINO's float32."""
    chosen = [processes for (_, batch), processes in cases.items() if batch in batches]
    return geometric_mean([statistics.median(speed_ups(processes, engine)) for processes in chosen])


if __name__ == "__main__":
    main()
