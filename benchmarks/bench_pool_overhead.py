"""What a pool costs beside the work itself: milliseconds an item for a net that does next to nothing.

Two workers, batches of 8; items are paths, which `preprocess` turns into the same small input. The peer is the bare
pipe: the same number of batches through `multiprocessing.Pipe`, to two processes that answer at once.
"""

from __future__ import annotations

import multiprocessing
import pathlib
import statistics
import tempfile
import time
from multiprocessing.connection import Connection, wait

import numpy as np
from measure import arguments, spread, verdict

import pycaffe

MODEL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 } } }
layer { name: "same" type: "Power" bottom: "data" top: "same" }
"""
BATCH, WORKERS, ROUNDS = 8, 2, 5
BAR = 0.06  # ms an item
INPUT = np.zeros(4, np.float32)


def preprocess(path: str) -> np.ndarray:
    return INPUT


def pool_milliseconds(model: str, items: list[str]) -> float:
    with pycaffe.Pool(model, workers=WORKERS, batch_size=BATCH, preprocess=preprocess) as pool:
        pool.map(items[: 50 * BATCH])
        start = time.perf_counter()
        count = sum(result.error is None for result in pool.imap_unordered(items))
        seconds = time.perf_counter() - start
    assert count == len(items)
    return seconds / len(items) * 1000


def answer(connection: Connection) -> None:
    while (batch := connection.recv()) is not None:
        connection.send((np.zeros((len(batch), 4), np.float32), [(0, 0.0)] * len(batch)))


def pipe_milliseconds(items: list[str]) -> float:
    pairs = [multiprocessing.Pipe() for _ in range(WORKERS)]
    processes = [multiprocessing.Process(target=answer, args=(theirs,)) for _, theirs in pairs]
    for process in processes:
        process.start()
    ours = [end for end, _ in pairs]
    batches = [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
    start = time.perf_counter()
    for end in ours:
        end.send(batches.pop())
        end.send(batches.pop())
    left = 2 * WORKERS
    while left:
        for end in wait(ours):
            end.recv()
            left -= 1
            if batches:
                end.send(batches.pop())
                left += 1
    seconds = time.perf_counter() - start
    for end, process in zip(ours, processes):
        end.send(None)
        process.join()
    return seconds / len(items) * 1000


def main() -> None:
    quick = arguments(__doc__).parse_args().quick
    items = [f"folder/image{number:06}.jpg" for number in range(2_000 if quick else 20_000)]
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "same.prototxt"
        model.write_text(MODEL, encoding="utf-8")
        pool, pipe = [], []
        for _ in range(1 if quick else ROUNDS):
            pool.append(pool_milliseconds(str(model), items))
            pipe.append(pipe_milliseconds(items))
    print(f"bare pipes: {spread(pipe)} ms an item")
    print(f"pool: {spread(pool)} ms an item   {verdict(statistics.median(pool) <= BAR)} (bar {BAR})")


if __name__ == "__main__":
    main()
