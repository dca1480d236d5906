"""What the benchmarks share: files with seeded weights, runs of peers in turn, ratios with their spread."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import caffe

FILES = pathlib.Path(__file__).parent / "files"
NETS = ("caffenet", "googlenet", "squeezenet_v1_1", "mobilenet_v1", "resnet50", "vgg16", "open_nsfw")
SEED = 1


# -- nets


def net_param(name: str, batch: int = 1) -> Any:
    """The NetParameter of a net of benchmarks/nets."""
    return getattr(importlib.import_module(f"nets.{name}"), name)(batch)


def net_files(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The prototxt and the caffemodel of a net, written once.

    Weights come from the fillers and BatchNorm's statistics from NumPy, both seeded; a net that is fetched has its own.
    """
    FILES.mkdir(exist_ok=True)
    prototxt, weights = FILES / f"{name}.prototxt", FILES / f"{name}.caffemodel"
    text = str(net_param(name))
    if weights.exists() and prototxt.exists() and prototxt.read_text() == text:
        return prototxt, weights
    prototxt.write_text(text)
    module = importlib.import_module(f"nets.{name}")
    caffe.set_random_seed(SEED)
    fetched = str(module.weights()) if hasattr(module, "weights") else None
    net = caffe.Net(str(prototxt), caffe.TEST, weights=fetched)
    if fetched is None:
        fill_statistics(net)
    net.save(str(weights))
    return prototxt, weights


def fill_statistics(net: Any) -> None:
    """Gives BatchNorm layers statistics about those that msra-filled convolutions produce, so that nothing grows."""
    rng = np.random.default_rng(SEED)
    for name, layer in zip(net._layer_names, net.layers):
        if layer.type == "BatchNorm":
            mean, variance, factor = net.params[name]
            mean.data[...] = rng.normal(0, 0.1, mean.data.shape)
            variance.data[...] = rng.uniform(0.5, 1.5, variance.data.shape)
            factor.data[...] = 1


def straightforward_file(name: str) -> pathlib.Path:
    """The straightforward ONNX model of a net, written once."""
    import onnx
    from straightforward import straightforward_model

    files = net_files(name)
    path = FILES / f"{name}.onnx"
    if not path.exists() or path.stat().st_mtime < files[1].stat().st_mtime:
        net = caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1]))
        onnx.save(straightforward_model(net_param(name), net), str(path))
    return path


def flops(net: Any) -> float:
    """Floating point operations of one forward, two for each multiplication with its sum.

    Counted from the shapes of convolutions and inner products, at the net's present shapes.
    """
    total = 0
    for name, layer in zip(net._layer_names, net.layers):
        if layer.type in ("Convolution", "InnerProduct"):
            (top,) = net.top_names[name]
            shape, weights = net.blobs[top].shape, net.params[name][0].shape
            total += 2 * math.prod(shape) * math.prod(weights[1:])
    return float(total)


def weight_bytes(net: Any) -> int:
    """Bytes of all parameters."""
    return sum(4 * int(math.prod(blob.shape)) for blobs in net.params.values() for blob in blobs)


def activation_bytes(net: Any) -> int:
    """Bytes of all blobs; a Split's tops are its bottom."""
    split = {
        top for name, layer in zip(net._layer_names, net.layers) if layer.type == "Split" for top in net.top_names[name]
    }
    return sum(4 * int(math.prod(blob.shape)) for name, blob in net.blobs.items() if name not in split)


# -- runs


def in_turn(scripts: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Runs each script as a process of its own, all in turn, `rounds` times; each prints one JSON object."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in scripts}
    for _ in range(rounds):
        for name, arguments in scripts.items():
            results[name].append(run_process(arguments))
    return results


def run_process(arguments: Sequence[str]) -> Any:
    """Runs Python in a process of its own; the JSON of the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:200]} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def settle(limit: float = 0.5) -> None:
    """Waits until this process's threads are idle.

    The pools of onnxruntime and OpenVINO spin for a while after a run; on a machine with few cores they would slow
    down whoever comes next.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(0.01)
        if time.process_time() - used < 0.002:
            return


def elapsed(run: Callable[[], Any]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def burst(run: Callable[[], Any], seconds: float = 0.15, most: int = 20) -> float:
    """Median seconds of consecutive runs, after one that wakes threads and caches where it costs little."""
    settle()
    first = elapsed(run)
    times = [first] if first > 2 * seconds else []
    while not times or (sum(times) < seconds and len(times) < most):
        times.append(elapsed(run))
    return statistics.median(times)


def interleave(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each by round; the order changes from round to round."""
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            seconds[name].append(burst(runs[name]))
    return seconds


# -- figures


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a whole round cancels."""
    return statistics.median(a / b for a, b in zip(above, below))


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def spread(values: Sequence[float]) -> str:
    """`median (minimum to maximum)`."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def verdict(held: bool | None) -> str:
    """How a bar came out, in words."""
    return {True: "held", False: "NOT HELD", None: "not measured"}[held]


def cpu_flags() -> frozenset[str]:
    """What the processor can do, in the words of /proc/cpuinfo; empty where there is none."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="little of everything: shows that it works, proves nothing"
    )
    return parser
