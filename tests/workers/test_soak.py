"""Much work of little size, with workers that are replaced all the time: nothing grows, nothing is left."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import psutil
import pytest

from pycaffe import Pool
from pycaffe.workers.memory import memory_of
from tests.workers import faults
from tests.workers.forked_pool import descriptors, nothing_left_behind
from tests.workers.tiny_net import write_tiny_net

COUNT, PARTS, RECYCLED = 20_000, 10, 100


class Held(NamedTuple):
    own: int
    child: int
    descriptors: int
    mappings: int
    children: int


def held(pool: Pool) -> Held:
    """What the pool's process holds, and the largest of its zygote and workers, when all of them are there."""
    while any(worker.state != "idle" for worker in pool.stats().workers):
        pass
    children = psutil.Process().children(recursive=True)
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in children)
    memories = [memory_of(pid) for pid in (os.getpid(), *(child.pid for child in children))]
    own, *others = [memory.own for memory in memories if memory is not None]
    maps = pathlib.Path("/proc/self/maps").read_text(encoding="ascii").count("\n")
    return Held(own, max(others), len(descriptors()), maps, len(children))


@pytest.mark.slow
def test_nothing_grows(tmp_path: pathlib.Path) -> None:
    net = write_tiny_net(tmp_path)
    with nothing_left_behind():
        with Pool(*net, workers=4, batch_size=8, max_items_per_worker=RECYCLED, preprocess=faults.filled) as pool:
            after = []
            for _ in range(PARTS):
                count = sum(result.error is None for result in pool.imap_unordered(range(COUNT // PARTS)))
                assert count == COUNT // PARTS
                after.append(held(pool))
            restarts = sum(worker.restarts for worker in pool.stats().workers)
        assert restarts >= COUNT // RECYCLED - 4
    early, late = after[1 : PARTS // 2], after[PARTS // 2 :]
    assert {each[2:] for each in late} <= {each[2:] for each in early}, after
    assert min(each.own for each in late) < max(each.own for each in early) + (1 << 20), after
    assert min(each.child for each in late) < max(each.child for each in early) + (1 << 19), after
