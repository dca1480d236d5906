"""A job while its workers are killed all the time, and all kinds of bad items are among the good ones."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import threading

import numpy as np
import pytest

from pycaffe import Pool, PoolError, WorkerDied
from pycaffe.errors import ItemTimeout
from tests.workers import faults
from tests.workers.tiny_net import expected_scores, write_tiny_net

COUNT = 2000
BAD = {
    100: (("raise", "plain"), ValueError),
    333: (("os._exit", 7), WorkerDied),
    777: (("segfault",), WorkerDied),
    1111: (("raise", "unpicklable"), PoolError),
    1500: (("hang", "MARKER"), (ItemTimeout, WorkerDied)),  # most of the time it is killed before its time is up
    1800: (("kill",), WorkerDied),
}


class Killer(threading.Thread):
    """Kills a random worker again and again, until it is told to stop."""

    def __init__(self, pool: Pool, every: float) -> None:
        super().__init__()
        self.pool, self.every = pool, every
        self.ended = threading.Event()
        self.kills = 0

    def run(self) -> None:
        chance = random.Random(3)
        while not self.ended.wait(self.every):
            pids = [worker.pid for worker in self.pool.stats().workers if worker.pid and worker.state != "draining"]
            if pids:
                try:
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    self.kills += 1
                except ProcessLookupError:  # it has just been replaced
                    pass


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_item_has_one_result_the_innocent_the_right_one(tmp_path: pathlib.Path, batch_size: int) -> None:
    net = write_tiny_net(tmp_path)
    bad = {index: (tuple(str(tmp_path / "hangs") if part == "MARKER" else part for part in item), kind)
           for index, (item, kind) in BAD.items()}  # fmt: skip
    items = [bad[index][0] if index in bad else ("slow", index) for index in range(COUNT)]
    retries = 6  # killed from outside three times, an innocent item would be lost once in many runs
    with Pool(*net, workers=4, batch_size=batch_size, preprocess=faults.act, retries=retries, item_timeout=2.0) as pool:
        killer = Killer(pool, 0.05)
        killer.start()
        try:
            results = list(pool.imap_unordered(items))
        finally:
            killer.ended.set()
            killer.join()
    assert killer.kills > 20
    assert sorted(result.index for result in results) == list(range(COUNT))
    assert max(result.attempts for result in results) <= retries + 1
    for result in results:
        if result.index in bad:
            assert isinstance(result.error, bad[result.index][1]), result
        else:
            assert result.outputs is not None, result.error
    sample = [result for result in results if result.index not in bad and result.index % 100 == 7]
    for result in sample:
        expected = expected_scores(net[1], net[0], faults.filled(result.index))
        np.testing.assert_allclose(result.outputs["score"], expected, rtol=1e-4, atol=1e-3)
