"""Detectors against OpenCV 4's dnn, batch 1, float32, on the CPU, DetectionOutput and all.

The net is OpenCV's face detector (res10, an SSD); others by --net. pycaffe's time is the whole of
`net.blobs["data"].data[...] = x; net.forward()`, OpenCV's that of `setInput(x)` and `forward()`; x is a photograph. A
process measures one net, both in turn; there are several, and the figure is the median over processes of the median of
the rounds' ratios. Detections have to be equal: the largest difference of any value is printed.

    bench_detection.py [--threads 2] [--processes 5] [--net NAME,PROTOTXT,CAFFEMODEL ...] [--quick]
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
from measure import arguments, interleave, ratio, run_process, settle, spread, verdict
from peers import opencv, pycaffe

import caffe
from pycaffe.images import ImagePreprocess

SCRIPTS = pathlib.Path(__file__).parent.parent / "scripts"
BAR = 1.5  # times as fast as OpenCV
MEAN = {"res10": (104, 177, 123)}  # none for others
PEERS = {"pycaffe": pycaffe, "opencv": opencv}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        name, model, weights, photograph, threads, rounds = sys.argv[2:]
        print(json.dumps(measure(name, model, weights, photograph, int(threads), int(rounds))))
        return
    options = parse()
    photographs, res10 = fetched("photographs"), fetched("res10")
    nets = {
        "res10": (str(res10 / "deploy.prototxt.txt"), str(res10 / "res10_300x300_ssd_iter_140000.caffemodel")),
        **{name: (model, weights) for name, model, weights in options.net},
    }
    print(f"{'net':16} threads  pycaffe ms {'':14} OpenCV ms {'':15} times as fast {'':14} largest difference")
    for name, files in nets.items():
        command = [__file__, "--one", name, *files, str(photographs / "astronaut.png"), str(options.threads)]
        processes = [run_process([*command, str(options.rounds)]) for _ in range(options.processes)]
        times = {peer: [statistics.median(process["seconds"][peer]) * 1e3 for process in processes] for peer in PEERS}
        ratios = [ratio(process["seconds"]["opencv"], process["seconds"]["pycaffe"]) for process in processes]
        difference = max(process["difference"] for process in processes)
        print(
            f"{name:16} {options.threads:7}  {spread(times['pycaffe']):25} {spread(times['opencv']):25} "
            f"{spread(ratios):27}  {difference:.1e}  ({processes[0]['found']} detections)"
        )
        held = statistics.median(ratios) >= BAR if options.threads == 2 else None
        print(f"  at least {BAR} times as fast as OpenCV, 2 threads: {verdict(held)}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--net", type=lambda text: text.split(","), action="append", default=[])
    options = parser.parse_args()
    options.processes = options.processes or (1 if options.quick else 5)
    options.rounds = 3 if options.quick else 15
    return options


def fetched(name: str) -> pathlib.Path:
    """The folder that scripts/fetch_models gives."""
    command = [sys.executable, SCRIPTS / "fetch_models", name]
    return pathlib.Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


def measure(name: str, model: str, weights: str, photograph: str, threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of each peer by round, how many detections there are, and how far they are from each other."""
    net = caffe.Net(model, caffe.TEST)
    height, width = net.blobs[net.inputs[0]].shape[2:]
    del net
    x = ImagePreprocess(mean=MEAN.get(name), resize=(height, width))(photograph)[None]
    runs = {}
    outputs = {}
    for peer, make in PEERS.items():
        run = make((pathlib.Path(model), pathlib.Path(weights), pathlib.Path()), x, threads)
        outputs[peer] = rows_of(run(x))
        runs[peer] = functools.partial(run, x)
    settle()
    ours, theirs = outputs["pycaffe"], outputs["opencv"]
    difference = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else float("inf")
    return {"seconds": interleave(runs, rounds), "found": len(theirs), "difference": difference}


def rows_of(output: Any) -> Any:
    """A copy of the detections (n, 7), without the rows of zeros that fill up."""
    rows = np.array(output).reshape(-1, 7)
    return rows[rows.any(axis=1)]


if __name__ == "__main__":
    main()
