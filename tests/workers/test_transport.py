from __future__ import annotations

import errno
import os
import pathlib
import random
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from pycaffe.errors import PoolError
from pycaffe.workers import transport
from pycaffe.workers.transport import COUNTER, DIRECTION, SHARED_FROM, SharedMemory, Transport, memory_file
from tests.net.nets import run_python

Pair = tuple[Transport, Transport, SharedMemory]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The pool's side and the worker's, and the pool's memory."""
    file = memory_file()
    assert file is not None
    memory = SharedMemory(os.dup(file), 0)
    sides = Transport(memory), Transport(SharedMemory(file, 1))
    yield (*sides, memory)
    for side in sides:
        side.close()


def array_of(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def sent(data: list) -> bytes:
    return b"".join(data)


@pytest.mark.parametrize("shared", [True, False])
def test_messages_come_out_as_they_went_in(pair: Pair, shared: bool) -> None:
    pool, worker = pair[:2] if shared else (Transport(), Transport())
    image = array_of(3 * 375 * 500).reshape(375, 500, 3)
    fortran = np.asfortranarray(image.astype(np.float64))
    message = {"small": np.arange(6).reshape(2, 3), "image": image, "fortran": fortran, "part": image[::2, 1:]}
    for sender, receiver in ((pool, worker), (worker, pool)):
        got = receiver.unpack(sent(sender.pack([message, b"x" * 100_000, "text"])))
        assert got[1:] == [b"x" * 100_000, "text"]
        for name, array in message.items():
            np.testing.assert_array_equal(got[0][name], array)
            assert got[0][name].dtype == array.dtype
            assert got[0][name].flags.writeable


def test_only_large_parts_are_shared(pair: Pair) -> None:
    pool, worker, _ = pair
    assert len(sent(pool.pack(array_of(SHARED_FROM)))) < 1000
    assert len(sent(pool.pack(array_of(SHARED_FROM - 1000)))) > SHARED_FROM - 1000
    assert len(sent(worker.pack(b"x" * SHARED_FROM))) < 1000
    assert len(sent(Transport().pack(array_of(SHARED_FROM)))) > SHARED_FROM


def test_what_was_received_stays_when_its_place_is_used_again(pair: Pair) -> None:
    pool, worker, _ = pair
    first = worker.unpack(sent(pool.pack(array_of(1 << 20, seed=1))))
    second = worker.unpack(sent(pool.pack(array_of(1 << 20, seed=2))))
    np.testing.assert_array_equal(first, array_of(1 << 20, seed=1))
    np.testing.assert_array_equal(second, array_of(1 << 20, seed=2))


def test_where_there_is_no_room_parts_go_through_the_pipe(pair: Pair) -> None:
    pool, worker, _ = pair
    size = DIRECTION // 3
    messages = [sent(pool.pack(array_of(size, seed=i))) for i in range(4)]
    assert [len(message) > size for message in messages] == [False, False, True, True]
    for i, message in enumerate(messages):
        np.testing.assert_array_equal(worker.unpack(message), array_of(size, seed=i))
    assert len(sent(pool.pack(array_of(size)))) < 1000
    assert len(sent(pool.pack(array_of(2 * DIRECTION)))) > 2 * DIRECTION


def test_places_that_were_read_are_used_again(pair: Pair) -> None:
    """Two batches under way, as a pool has them: the memory stays at what three take, however many there are."""
    pool, worker, memory = pair
    under_way = []
    for i in range(100):
        under_way.append(sent(pool.pack(array_of(1 << 20, seed=i))))
        assert len(under_way[-1]) < 1000
        if len(under_way) == 2:
            np.testing.assert_array_equal(worker.unpack(under_way.pop(0)), array_of(1 << 20, seed=i - 1))
    assert os.fstat(memory._file).st_blocks * 512 < 4 << 20


def test_random_traffic_both_ways(pair: Pair) -> None:
    rng = random.Random(3)
    under_way: dict[int, list] = {0: [], 1: []}
    for i in range(600):
        side = rng.randrange(2)
        if rng.random() < 0.5 and len(under_way[side]) < 6:
            arrays = [array_of(int(10 ** rng.uniform(0, 6.8)), seed=i + j) for j in range(rng.randrange(4))]
            under_way[side].append((arrays, sent(pair[side].pack(arrays))))
        elif under_way[side]:
            want, data = under_way[side].pop(0)
            got = pair[1 - side].unpack(data)
            assert len(got) == len(want)
            for a, b in zip(got, want):
                np.testing.assert_array_equal(a, b)


def test_a_failed_pickle_writes_nothing(pair: Pair) -> None:
    pool, worker, memory = pair
    with pytest.raises(TypeError, match="pickle"):
        pool.pack([array_of(1 << 20), (x for x in "generators do not pickle")])
    assert memory._written == 0
    np.testing.assert_array_equal(worker.unpack(sent(pool.pack(array_of(1 << 20)))), array_of(1 << 20))


def test_a_failed_unpickle_frees_the_places(pair: Pair) -> None:
    pool, worker, _ = pair

    class Bad:
        def __reduce__(self) -> tuple:
            return int, ("no number",)

    array = array_of(16 << 20)
    for _ in range(3 * DIRECTION // array.nbytes):
        data = sent(pool.pack([array, Bad()]))
        assert len(data) < 1000
        with pytest.raises(ValueError, match="no number"):
            worker.unpack(data)


@pytest.mark.parametrize("counter", [2, 1 << 40, (1 << 64) - 1])
def test_a_counter_that_lies_frees_nothing(pair: Pair, counter: int) -> None:
    pool, worker, memory = pair
    first = sent(pool.pack(array_of(1 << 20, seed=1)))
    struct.pack_into("<Q", memory._map, 0, counter)
    second = sent(pool.pack(array_of(1 << 20, seed=2)))
    np.testing.assert_array_equal(worker.unpack(first), array_of(1 << 20, seed=1))
    np.testing.assert_array_equal(worker.unpack(second), array_of(1 << 20, seed=2))


@pytest.mark.parametrize(
    ("place", "length"), [(0, 10), (COUNTER - 1, 10), (DIRECTION - 5, 10), (COUNTER, DIRECTION), (1 << 63, 10)]
)
def test_a_place_outside_of_the_memory(pair: Pair, place: int, length: int) -> None:
    forged = struct.pack("<IQQ", 1, place, length)
    with pytest.raises(PoolError, match=f"{length} bytes at {place}"):
        pair[0].unpack(forged)
    with pytest.raises(PoolError, match="there is none"):
        Transport().unpack(forged)


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff" + bytes(64), bytes(4)])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(PoolError, match="message"):
        Transport().unpack(data)


def test_a_message_that_lacks_its_end() -> None:
    with pytest.raises(PoolError, match="lacks 3 of them"):
        Transport().unpack(sent(Transport().pack("text"))[:-3])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_where_the_system_has_no_pages_parts_go_through_the_pipe(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pool, worker, _ = pair
    fallocate = os.posix_fallocate

    def no_pages(*arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", no_pages)
    data = sent(pool.pack(array_of(1 << 20)))
    assert len(data) > 1 << 20
    np.testing.assert_array_equal(worker.unpack(data), array_of(1 << 20))
    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    assert len(sent(pool.pack(array_of(1 << 20)))) < 1000


LIMITS = """
import os, resource
from pycaffe.workers.transport import memory_file
before = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 22, 1 << 22))
assert memory_file() is None
assert os.listdir("/proc/self/fd") == before
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
assert memory_file() is None
"""


def test_under_limits_of_files(tmp_path: pathlib.Path) -> None:
    assert run_python(LIMITS, cwd=tmp_path).stderr == ""


def test_systems_without_such_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert memory_file() is None


def test_a_memory_that_cannot_be_mapped_is_closed() -> None:
    file = os.memfd_create("empty")
    with pytest.raises(ValueError, match="mmap"):
        SharedMemory(file, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    file = memory_file()
    assert file is not None
    side = Transport(SharedMemory(file, 0))
    side.close()
    side.close()
    assert os.listdir("/proc/self/fd") == before


def test_the_constants_fit_together() -> None:
    assert DIRECTION % transport.mmap.ALLOCATIONGRANULARITY == 0
    assert SHARED_FROM > COUNTER


MAIN = """
import numpy as np, pathlib
from pycaffe.workers.transport import Transport
class Point:
    def __init__(self, x): self.x = x
    def norm(self): return abs(self.x)
def double(x): return 2 * x
message = [Point(-3), double, lambda x: x + 1, np.zeros(200_000, np.uint8)]
for name, part in (("class", message[:1]), ("all", message)):
    pathlib.Path(name).write_bytes(b"".join(Transport().pack(part)))
"""


def test_what_is_defined_in_a_script_travels_with_the_message(tmp_path: pathlib.Path) -> None:
    """Its `__main__` is not ours, as a worker's is not its pool's."""
    run_python(MAIN, cwd=tmp_path)
    (point,) = Transport().unpack((tmp_path / "class").read_bytes())
    assert point.norm() == 3
    point, double, increment, array = Transport().unpack((tmp_path / "all").read_bytes())
    assert (point.norm(), double(4), increment(5), array.sum(), len(array)) == (3, 8, 6, 0, 200_000)
