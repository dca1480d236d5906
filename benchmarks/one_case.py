"""One net, one batch, one number of threads, all peers in turn: a process of bench_inference.py.

one_case.py NET BATCH THREADS SECONDS: prints one JSON object. It measures for about SECONDS, two rounds at least.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gemm_peak import FLOPS, NumpyProduct, onnxruntime_product
from measure import elapsed, flops, interleave, net_files, settle, straightforward_file
from peers import PEERS, example

import caffe

MOST_ROUNDS = 8
LONG = 2.0  # seconds; compiling, which a first run may include, is less
PRODUCTS = ("product of onnxruntime", "product of numpy")


def measure(name: str, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    """Times and the machine's peak by round, operations, the largest difference from pycaffe's output."""
    files = (*net_files(name), straightforward_file(name))
    net = caffe.Net(str(files[0]), caffe.TEST)
    (source,) = net.inputs
    x = example((batch, *net.blobs[source].shape[1:]))
    net.blobs[source].reshape(*x.shape)
    net.reshape()
    operations = flops(net)
    del net
    runs: dict[str, Callable[[], Any]] = {}
    outputs: dict[str, Any] = {}
    first: dict[str, float] = {}
    for peer, make in PEERS.items():
        run = make(files, x, threads)
        start = time.perf_counter()
        outputs[peer] = np.array(run(x)).reshape(batch, -1)
        first[peer] = time.perf_counter() - start
        runs[peer] = functools.partial(run, x)
    with NumpyProduct(threads) as by_numpy:
        runs[PRODUCTS[0]] = onnxruntime_product(threads)
        runs[PRODUCTS[1]] = by_numpy
        round_seconds = 0.0
        for peer, once in runs.items():
            settle()
            known = first.get(peer, 0.0)
            round_seconds += max(known if known > LONG else elapsed(once), 0.25)
        times = interleave(runs, int(min(max(seconds / round_seconds, 2), MOST_ROUNDS)))
    products = [FLOPS / min(pair) for pair in zip(*(times.pop(name) for name in PRODUCTS))]
    return {
        "seconds": times,
        "peak": products,  # by round, in operations a second
        "flops": operations,
        "difference": {peer: float(abs(output - outputs["pycaffe"]).max()) for peer, output in outputs.items()},
        "memory": peak_memory(),
    }


def peak_memory() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not say."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    result = measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    print(json.dumps(result))
