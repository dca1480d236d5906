"""One pool over JPEGs, hand-written or pycaffe's: a process of bench_pool.py.

pool_peers.py PEER WORKERS BATCH FOLDER: loads CaffeNet in WORKERS processes, prints "ready"; then for each line with a
number it runs that many images of the folder, decoding included, and prints the seconds.

All do the same to an image: decode, stretch to 227×227, subtract the mean. The hand-written pools are what one writes
in an afternoon and measures first: everything loaded before the fork or in the initializer, one thread a process.
"""

from __future__ import annotations

import itertools
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measure import net_files, straightforward_file

SIZE, MEAN = 227, (104.0, 117.0, 123.0)
Run = Callable[[Sequence[str]], int]

net: Any = None  # of a hand-written pool's process


def decoded(path: str) -> Any:
    """(3, 227, 227), BGR, mean subtracted."""
    import cv2

    image = cv2.resize(cv2.imread(path), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return (image.astype(np.float32) - np.float32(MEAN)).transpose(2, 0, 1)


# -- OpenCV: each process loads the net; one image at a time


def load_opencv() -> None:
    import cv2

    global net
    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromCaffe(*map(str, net_files("caffenet")))


def classify_opencv(path: str) -> int:
    net.setInput(decoded(path)[None])
    return int(net.forward()[0].argmax())


def opencv_pool(workers: int, batch: int) -> Run:
    pool = multiprocessing.get_context("fork").Pool(workers, load_opencv)
    return lambda paths: sum(1 for _ in pool.imap_unordered(classify_opencv, paths))


# -- onnxruntime: one session, made before the fork; whole batches


def classify_onnxruntime(paths: Sequence[str]) -> list[int]:
    batch = np.stack([decoded(path) for path in paths])
    return [int(row.argmax()) for row in net.run(None, {net.get_inputs()[0].name: batch})[0]]


def onnxruntime_pool(workers: int, batch: int) -> Run:
    import cv2
    import onnxruntime

    global net
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    net = onnxruntime.InferenceSession(
        str(straightforward_file("caffenet")), options, providers=["CPUExecutionProvider"]
    )
    pool = multiprocessing.get_context("fork").Pool(workers)

    def run(paths: Sequence[str]) -> int:
        batches = [paths[i : i + batch] for i in range(0, len(paths), batch)]
        return sum(len(answers) for answers in pool.imap_unordered(classify_onnxruntime, batches))

    return run


# -- pycaffe


def pycaffe_pool(workers: int, batch: int, backend: Any = "process") -> Run:
    import pycaffe

    preprocess = pycaffe.ImagePreprocess(mean=MEAN, resize=(SIZE, SIZE))
    pool = pycaffe.Pool(
        *net_files("caffenet"), workers=workers, backend=backend, batch_size=batch, preprocess=preprocess
    )

    def run(paths: Sequence[str]) -> int:
        count = 0
        for result in pool.imap_unordered(paths):
            if result.error is not None:
                raise result.error
            count += result.outputs["prob"].argmax() >= 0
        return count

    return run


def ray_pool(workers: int, batch: int) -> Run:
    return pycaffe_pool(workers, batch, "ray")


POOLS = {"opencv": opencv_pool, "onnxruntime": onnxruntime_pool, "pycaffe": pycaffe_pool, "ray": ray_pool}


def main(peer: str, workers: str, batch: str, folder: str) -> None:
    paths = sorted(map(str, pathlib.Path(folder).glob("*.jpg")))
    run = POOLS[peer](int(workers), int(batch))
    run(paths[: 4 * int(workers) * int(batch)])
    print("ready", flush=True)
    for line in sys.stdin:
        images = list(itertools.islice(itertools.cycle(paths), int(line)))
        start = time.perf_counter()
        if run(images) != len(images):
            raise RuntimeError(f"{peer} lost images")
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
