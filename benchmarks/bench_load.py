"""Nets from their files to the first output, and the memory that this takes, against OpenCV 4's importer.

Time: each run is a fresh process, the files are in the page cache, and the clock starts after `import caffe`
(`import cv2`), whose own time is printed beside. What pycaffe imports at the first forward (onnx, onnxruntime) counts
into its time.

Memory, in runs of their own: the anonymous memory (RssAnon) that a net owns, beyond what the process held before the
net: after five forwards, and at the most on the way there (sampled from outside). Before, the process ran
another net, so that the libraries are there. It is held against weights + activations, the bytes of all blobs. Pages
of the mapped weights belong to the page cache and count nowhere.
"""

from __future__ import annotations

import pathlib
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from measure import activation_bytes, arguments, in_turn, net_files, spread, verdict, weight_bytes

import caffe

NETS = ("caffenet", "vgg16", "googlenet", "resnet50")
BATCHES = (1, 8)  # of memory; time is that of one image
ROUNDS, MEMORY_ROUNDS = 7, 3
TIME_BAR, MEMORY_BAR = 0.6, 1.15  # the first for CaffeNet

LOAD = {
    "pycaffe": """
def load(prototxt, weights, x):
    net = caffe.Net(prototxt, caffe.TEST, weights=weights)
    net.blobs["data"].reshape(*x.shape)
    def run():
        net.blobs["data"].data[...] = x
        return net.forward()["prob"]
    return run
""",
    "opencv": """
def load(prototxt, weights, x):
    net = cv2.dnn.readNetFromCaffe(prototxt, weights)
    def run():
        net.setInput(x)
        return net.forward()
    return run
""",
}
TIME = """
import json, sys, time
begin = time.perf_counter()
import {module}
imported = time.perf_counter()
import numpy as np
{load}
x = np.random.default_rng(0).standard_normal([int(n) for n in sys.argv[3].split(",")], dtype=np.float32)
start = time.perf_counter()
prob = load(sys.argv[1], sys.argv[2], x)()
end = time.perf_counter()
print(json.dumps({{"import": imported - begin, "load": end - start, "sum": float(prob.sum())}}))
"""
MEMORY = """
import gc, sys
import {module}
import numpy as np
{load}
load(sys.argv[4], sys.argv[5], np.zeros((1, 1, 28, 28), np.float32))()
gc.collect()
x = np.random.default_rng(0).standard_normal([int(n) for n in sys.argv[3].split(",")], dtype=np.float32)
print("ready", flush=True)
sys.stdin.readline()
run = load(sys.argv[1], sys.argv[2], x)
for _ in range(5):
    run()
print("done", flush=True)
sys.stdin.readline()
"""
MODULES = {"pycaffe": "caffe", "opencv": "cv2"}


def main() -> None:
    quick = arguments(__doc__).parse_args().quick
    for name in NETS[:1] if quick else NETS:
        files = [str(path) for path in net_files(name)]
        net = caffe.Net(files[0], caffe.TEST, weights=files[1])
        load_time(name, [*files, shape_of(net)], 2 if quick else ROUNDS)
        for batch in BATCHES:
            net.blobs["data"].reshape(batch, *net.blobs["data"].shape[1:])
            net.reshape()
            whole = weight_bytes(net) + activation_bytes(net)
            others = [*files, shape_of(net), *map(str, net_files("lenet"))]
            load_memory(f"{name}, batch {batch}", others, whole, 1 if quick else MEMORY_ROUNDS)


def shape_of(net: Any) -> str:
    """The input's shape, for a command line."""
    return ",".join(map(str, net.blobs["data"].shape))


def load_time(name: str, files: list[str], rounds: int) -> None:
    """Prints seconds to the first output, and pycaffe's part of OpenCV's."""
    scripts = {e: ["-c", TIME.format(module=MODULES[e], load=LOAD[e]), *files] for e in MODULES}
    in_turn(scripts, 1)  # brings the files into the page cache
    runs = in_turn(scripts, rounds)
    for engine, results in runs.items():
        imports, loads = ([result[part] for result in results] for part in ("import", "load"))
        print(f"{name:10} {engine:8} import {spread(imports)} s, load {spread(loads)} s")
    ratios = [mine["load"] / peer["load"] for mine, peer in zip(runs["pycaffe"], runs["opencv"])]
    bar = ""
    if name == "caffenet":
        bar = f"   {verdict(statistics.median(ratios) <= TIME_BAR)} (bar {TIME_BAR})"
    print(f"{name:10} load, pycaffe / OpenCV 4: {spread(ratios)}{bar}")


def load_memory(name: str, files: list[str], whole: int, rounds: int) -> None:
    """Prints what a loaded net owns and owned at its peak, over weights + activations."""
    for engine in MODULES:
        script = MEMORY.format(module=MODULES[engine], load=LOAD[engine])
        found = [own_memory(["-c", script, *files]) for _ in range(rounds)]
        own, peak = ([values[i] / whole for values in found] for i in (0, 1))
        held = ""
        if engine == "pycaffe":
            held = (
                f"   {verdict(max(statistics.median(own), statistics.median(peak)) <= MEMORY_BAR)} (bar {MEMORY_BAR})"
            )
        print(
            f"{name:18} {engine:8} owns {spread(own)}, at its peak {spread(peak)} "
            f"of weights + activations ({whole / 1e6:.0f} MB){held}"
        )


def own_memory(script: list[str]) -> tuple[int, int]:
    """Anonymous bytes that a script's net adds to its process: at the end, and at the most."""
    with subprocess.Popen([sys.executable, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        status = pathlib.Path(f"/proc/{child.pid}/status")
        expect(child.stdout.readline(), "ready")
        before = peak = anonymous(status)
        child.stdin.write("\n")
        child.stdin.flush()
        has_spoken = output_watch(child)
        while not has_spoken():
            peak = max(peak, anonymous(status))
            time.sleep(0.001)
        expect(child.stdout.readline(), "done")
        after = anonymous(status)
        child.communicate("\n")
    return after - before, max(peak, after) - before


def expect(line: str, word: str) -> None:
    """A child that ends early has shown its error."""
    if line.strip() != word:
        raise RuntimeError(f"The measured process said {line!r}, not {word!r}.")


def anonymous(status: pathlib.Path) -> int:
    """RssAnon of a process in bytes."""
    lines = status.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def output_watch(child: subprocess.Popen[str]) -> Callable[[], bool]:
    """Tells whether a child has written, or ended."""
    chooser = selectors.DefaultSelector()
    assert child.stdout is not None
    chooser.register(child.stdout, selectors.EVENT_READ)
    return lambda: bool(chooser.select(timeout=0))


if __name__ == "__main__":
    main()
