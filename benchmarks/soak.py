"""24 hours in ten minutes: 200,000 tiny items through a pool whose workers are replaced after 200 each.

Prints every ten thousand items what the pool's process, its zygote and its workers hold: memory of their own (USS),
descriptors, mappings, processes, zombies. In the end it says whether anything grew: the second half is held against
the first.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from measure import arguments, verdict

import pycaffe
from pycaffe.workers.memory import memory_of

MODEL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score" inner_product_param { num_output: 7 } }
"""
ITEMS, RECYCLED, WORKERS, SAMPLES = 200_000, 200, 4, 20
GROWTH = 1 << 20  # bytes that the pool's process may hold more of in the second half: an allocator's breath
CHILD_GROWTH = 1 << 19


@dataclass(frozen=True)
class Sample:
    """What is held at one moment.

    own: bytes of this process. child: bytes of the largest other one. descriptors, mappings: of this process.
    """

    own: int
    child: int
    descriptors: int
    mappings: int
    children: int
    zombies: int

    def __str__(self) -> str:
        return (
            f"{self.own / 1e6:.1f} MB, {self.child / 1e6:.1f} MB the largest child, {self.descriptors} descriptors, "
            f"{self.mappings} mappings, {self.children} processes, {self.zombies} zombies"
        )


def preprocess(item: int) -> np.ndarray:
    return np.full((3, 4, 5), item % 100, np.float32)


def sample(pool: pycaffe.Pool) -> Sample:
    """Between jobs, with all workers there."""
    found = pool.stats()
    while any(worker.state != "idle" for worker in found.workers):
        time.sleep(0.001)
        found = pool.stats()
    children = psutil.Process().children(recursive=True)
    states = Counter(child.status() for child in children)
    mine = memory_of(os.getpid())
    with open("/proc/self/maps", encoding="ascii") as maps:
        mappings = sum(1 for _ in maps)
    return Sample(
        mine.own if mine is not None else 0,
        max(memory.own for child in children if (memory := memory_of(child.pid)) is not None),
        len(os.listdir("/proc/self/fd")),
        mappings,
        len(children) - states[psutil.STATUS_ZOMBIE],
        states[psutil.STATUS_ZOMBIE],
    )


def soak(pool: pycaffe.Pool, items: int, samples: int) -> Iterator[Sample]:
    """Runs the items and looks at the pool after each part of them.

    Raises:
        RuntimeError: an item is lost or wrong.
    """
    right = pool.map(range(100))
    scores = [result.outputs["score"] for result in right if result.outputs is not None]
    part = items // samples
    for number in range(samples):
        seen = set()
        for result in pool.imap_unordered(range(number * part, (number + 1) * part)):
            seen.add(result.index)
            if result.outputs is None or not np.allclose(result.outputs["score"], scores[result.item % 100], rtol=1e-4):
                raise RuntimeError(f"Item {result.item} is wrong: {result!r}")
        if len(seen) != part:
            raise RuntimeError(f"{len(seen)} of {part} items came back.")
        yield sample(pool)


def growth(samples: list[Sample]) -> dict[str, float]:
    """By what the second half of the samples is above the first: medians, so that one moment does not decide."""
    middle = len(samples) // 2
    found: dict[str, float] = {}
    for name in Sample.__dataclass_fields__:
        values: list[Any] = [getattr(each, name) for each in samples]
        found[name] = statistics.median(values[middle:]) - statistics.median(values[:middle])
    return found


def is_flat(samples: list[Sample]) -> bool:
    """Whether nothing grew but what an allocator may."""
    found = growth(samples)
    rest = [found[name] for name in ("descriptors", "children", "zombies")]
    return found["own"] < GROWTH and found["child"] < CHILD_GROWTH and found["mappings"] < 20 and max(rest) <= 0


def main() -> None:
    quick = arguments(__doc__).parse_args().quick
    items = ITEMS // 20 if quick else ITEMS
    start, samples = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "tiny.prototxt"
        model.write_text(MODEL, encoding="utf-8")
        with pycaffe.Pool(
            model, workers=WORKERS, batch_size=8, max_items_per_worker=RECYCLED, preprocess=preprocess
        ) as pool:
            for found in soak(pool, items, SAMPLES):
                samples.append(found)
                done, seconds = len(samples) * items // SAMPLES, time.perf_counter() - start
                print(f"{done:8} items, {seconds:5.0f} s: {found}", flush=True)
            restarts = sum(worker.restarts for worker in pool.stats().workers)
        left = len(psutil.Process().children(recursive=True))
    print(f"{restarts} workers replaced, {left} processes left; growth: {growth(samples)}")
    print(f"flat: {verdict(is_flat(samples))}")


if __name__ == "__main__":
    main()
