"""What the benchmarks share: files with seeded weights, runs of peers in turn, ratios with their spread."""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import caffe

FILES = pathlib.Path(__file__).parent / "files"


def net_files(name: str, param: Any) -> tuple[pathlib.Path, pathlib.Path]:
    """The prototxt and the caffemodel of a net, written once; the weights come from the fillers with a fixed seed."""
    FILES.mkdir(exist_ok=True)
    prototxt, weights = FILES / f"{name}.prototxt", FILES / f"{name}.caffemodel"
    if not weights.exists():
        prototxt.write_text(str(param))
        caffe.set_random_seed(1)
        caffe.Net(str(prototxt), caffe.TEST).save(str(weights))
    return prototxt, weights


def in_turn(scripts: dict[str, Sequence[str]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Runs each script as a process of its own, all in turn, `rounds` times; each prints one JSON object."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in scripts}
    for _ in range(rounds):
        for name, arguments in scripts.items():
            done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def spread(values: Sequence[float]) -> str:
    """`median (minimum to maximum)`."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
