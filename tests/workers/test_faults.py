"""2,000 items of 5 ms on 4 workers, with every fault that there is: each item has one result, the innocent a right one.

The deaths are real. What is right is what a pool of one sequential worker answers.
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import random
import resource
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import psutil
import pytest

from pycaffe import InputError, Pool, PoolError, Result, ShapeError, WorkerDied
from pycaffe.errors import ItemTimeout
from tests.workers import faults
from tests.workers.forked_pool import nothing_left_behind
from tests.workers.tiny_net import write_tiny_net

ROOT = pathlib.Path(__file__).parent.parent.parent
COUNT, WORKERS, RETRIES = 2000, 4, 2
SIZES = [1, 8]


class Guilty(NamedTuple):
    """An item with a fault, what it ends with, and how often it runs alone."""

    item: Any
    error: type[BaseException] | tuple[type[BaseException], ...]
    text: str
    attempts: int


KINDS = {
    "raise": Guilty(("raise", "plain"), ValueError, "no good", 1),
    "sys.exit": Guilty(("sys.exit", 3), PoolError, "SystemExit: 3", 1),
    "unpicklable error": Guilty(("raise", "unpicklable"), PoolError, "UnpicklableError: halfhalf", 1),
    "unpicklable result": Guilty(("spoil",), TypeError, "cannot pickle '_thread.lock' object", 1),
    "a wrong shape": Guilty(("shape", 2, 2), ShapeError, "Input size incompatible", 1),
    "os._exit": Guilty(("os._exit", 7), WorkerDied, "died with exit status 7 while running this item", RETRIES + 1),
    "segfault": Guilty(("segfault",), WorkerDied, "died with SIGSEGV while running this item", RETRIES + 1),
    "kill": Guilty(("kill",), WorkerDied, "died with SIGKILL while running this item", RETRIES + 1),
    "hang": Guilty(("sleep",), ItemTimeout, "took longer than 0.4 s", 1),
}
GROUPS = [
    ("raise", "sys.exit", "unpicklable error", "unpicklable result", "a wrong shape"),
    ("os._exit", "segfault", "kill"),
    ("hang",),
]


class Disturbance(threading.Thread):
    """Does something again and again while a pool works."""

    def __init__(self, act: Callable[[], bool], every: float) -> None:
        super().__init__()
        self.act, self.every, self.times = act, every, 0
        self.ended = threading.Event()

    def __enter__(self) -> Disturbance:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(self.every):
            self.times += self.act()


@functools.cache
def sequential(net: tuple[str, str]) -> list[Any]:
    """The right answers."""
    with Pool(*net, backend="sequential", batch_size=1, preprocess=faults.filled, postprocess=None) as pool:
        return [result.outputs["score"] for result in pool.map(range(COUNT))]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def make(net: tuple[str, str], **settings: Any) -> Pool:
    usual = {"preprocess": faults.act, "postprocess": faults.spoil, "outputs": ["data", "score"], "retries": RETRIES}
    return Pool(*net, workers=WORKERS, **{**usual, **settings})


def slow(guilty: Mapping[int, Guilty], padding: tuple[bytes, ...] = ()) -> list[Any]:
    return [guilty[index].item if index in guilty else ("slow", index, *padding) for index in range(COUNT)]


def check(net: tuple[str, str], results: list[Result], guilty: Mapping[int, Guilty], most_attempts: int = 1) -> None:
    """Each item once; the guilty with their errors, the others with the answers of one sequential worker."""
    assert sorted(result.index for result in results) == list(range(COUNT))
    right = sequential(net)
    for result in results:
        if result.index in guilty:
            _, error, text, attempts = guilty[result.index]
            assert isinstance(result.error, error), result
            assert text in str(result.error)
            assert result.attempts == attempts
        else:
            assert result.error is None, result
            assert result.attempts <= most_attempts
            np.testing.assert_allclose(result.outputs, right[result.index], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", SIZES)
@pytest.mark.parametrize("kinds", GROUPS, ids=", ".join)
def test_items_with_a_fault_and_their_neighbours(net: tuple[str, str], kinds: tuple[str, ...], batch_size: int) -> None:
    """Some far apart, some so close that two are in one batch of eight."""
    places = [place + near for place in range(60, COUNT, 380) for near in (0, 3, 190)]
    guilty = {place: KINDS[kind] for place, kind in zip(places, itertools.cycle(kinds))}
    with nothing_left_behind():
        with make(net, batch_size=batch_size, item_timeout=0.4 if kinds == ("hang",) else None) as pool:
            results = list(pool.imap_unordered(slow(guilty)))
        check(net, results, guilty)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", SIZES)
def test_a_random_worker_killed_every_50_ms(net: tuple[str, str], batch_size: int) -> None:
    """With items of every kind among the good ones. Innocent items that run alone when they are killed run again."""
    retries, chance = 6, random.Random(3)  # killed three times, an item would be lost once in many runs
    deadly = (WorkerDied, ItemTimeout)
    guilty = {
        100 + 210 * i: Guilty(each.item, (each.error, WorkerDied), "", 0) for i, each in enumerate(KINDS.values())
    }
    guilty = {index: each._replace(error=deadly) if "sleep" in each.item else each for index, each in guilty.items()}

    def kill() -> bool:
        pids = [worker.pid for worker in pool.stats().workers if worker.pid and worker.state != "draining"]
        return bool(pids) and killed(chance.choice(pids))

    with nothing_left_behind():
        with (
            make(net, batch_size=batch_size, retries=retries, item_timeout=0.4) as pool,
            Disturbance(kill, 0.05) as storm,
        ):
            results = list(pool.imap_unordered(slow(guilty)))
        assert storm.times > 20
        assert max(result.attempts for result in results) <= retries + 1
        guilty = {r.index: guilty[r.index]._replace(attempts=r.attempts) for r in results if r.index in guilty}
        check(net, results, guilty, retries + 1)


def killed(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just been replaced
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", SIZES)
def test_the_zygote_killed_again_and_again(net: tuple[str, str], batch_size: int) -> None:
    """While workers die, too, so that it is needed."""
    guilty = dict.fromkeys(range(60, COUNT, 190), KINDS["os._exit"]._replace(text="died with"))
    before = set(psutil.Process().children())

    def kill() -> bool:
        zygotes = [child for child in psutil.Process().children() if child not in before and has_forked(child)]
        return sum(killed(zygote.pid) for zygote in zygotes) > 0  # all of them

    with nothing_left_behind():
        with make(net, batch_size=batch_size) as pool, Disturbance(kill, 0.2) as storm:
            results = list(pool.imap_unordered(slow(guilty)))
        assert storm.times >= 3
        check(net, results, guilty)


def has_forked(process: psutil.Process) -> bool:
    """Of three zygotes in turn that die before they have loaded the net the pool says so, and stops."""
    try:
        return bool(process.children())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", SIZES)
def test_images_that_are_none(net: tuple[str, str], tmp_path: pathlib.Path, batch_size: int) -> None:
    image = np.random.default_rng(5).integers(0, 256, (24, 30, 3), np.uint8)
    good, whole = tmp_path / "good.png", tmp_path / "whole.jpg"
    cv2.imwrite(str(good), image)
    cv2.imwrite(str(whole), np.repeat(np.repeat(image, 20, 0), 20, 1))
    bad = {
        "empty": (b"", "it is empty"),
        "truncated": (whole.read_bytes()[:-3000], "truncated"),
        "corrupt": (good.read_bytes()[:60] + b"\xff" * 900, ""),
        "no image": (b"<html>not found</html>" * 9, "it is not an image"),
        "30,000 x 30,000": (png_of_zeros(30_000), "30000 x 30000 pixels are more than the limit"),
    }
    guilty = {}
    for number, (name, (data, text)) in enumerate(bad.items()):
        (tmp_path / name).write_bytes(data)
        guilty[150 + 300 * number] = Guilty(str(tmp_path / name), InputError, text, 1)
        guilty[250 + 300 * number] = Guilty(data, InputError, text, 1)
    items = [guilty[i].item if i in guilty else str(good) for i in range(COUNT)]
    with nothing_left_behind():
        settings = {"preprocess": faults.slow_image, "postprocess": None, "outputs": ["score"]}
        with make(net, batch_size=batch_size, **settings) as pool:
            results = pool.map(items)
        with Pool(*net, backend="sequential", **settings) as pool:
            (right,) = pool.map([str(good)])
    for result in results:
        if result.index in guilty:
            assert isinstance(result.error, InputError), result
            assert guilty[result.index].text in str(result.error)
        else:
            np.testing.assert_allclose(result.outputs["score"], right.outputs["score"], rtol=1e-4, atol=1e-3)
        assert result.attempts == 1


@functools.cache
def png_of_zeros(side: int) -> bytes:
    """A whole PNG file of so many black pixels either way: a hundredth of them compressed, a hundred times over."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(1, wbits=-15)
    part = deflate.compress(bytes((1 + side) * side // 100)) + deflate.flush(zlib.Z_FULL_FLUSH)
    adler = struct.pack(">I", (1 + side) * side % 65521 << 16 | 1)  # of zeros
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x78\x01" + part * 100 + deflate.flush() + adler
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_the_large_image_is_one() -> None:
    image = cv2.imdecode(np.frombuffer(png_of_zeros(700), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (700, 700)
    assert not image.any()


# -- memory


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", SIZES)
def test_shared_memory_that_fills_up(net: tuple[str, str], monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    """The system refuses pages after the first MB, to the pool and to its workers."""
    monkeypatch.setattr(os, "posix_fallocate", os.posix_fallocate)  # to be put back
    faults.fill_memory(1 << 20)
    with nothing_left_behind():
        with make(net, batch_size=batch_size, preprocess=faults.WithFullMemory(1 << 20)) as pool:
            results = list(pool.imap_unordered(slow({}, (bytes(300_000),))))
        check(net, results, {})


NEARLY_FULL = """
import sys
from tests.workers import test_faults as t
t.work_with_large_items((sys.argv[1], sys.argv[2]))
"""
SMALL_TMPFS = 'mount -t tmpfs -o size=64k none /dev/shm && head -c 60k /dev/zero > /dev/shm/full && exec "$@"'
PRIVATE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_TMPFS, "sh"]


def work_with_large_items(net: tuple[str, str]) -> None:
    with make(net, batch_size=8) as pool:
        results = list(pool.imap_unordered(slow({}, (bytes(100_000),))))
    check(net, results, {})


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["/dev/shm", "files"])
def test_no_shared_memory(net: tuple[str, str], limit: str) -> None:
    """/dev/shm is nearly full (of a mount namespace of its own, where one may be made); no file may be of any size."""

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    private = limit == "/dev/shm" and subprocess.run([*PRIVATE, "true"], capture_output=True).returncode == 0
    done = subprocess.run(
        [*(PRIVATE if private else []), sys.executable, "-c", NEARLY_FULL, *net],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=None if private else limit_files,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
