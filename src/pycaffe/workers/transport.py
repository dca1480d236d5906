"""Messages as bytes: pickles whose large parts travel in memory that a pool and a worker share.

    message ─pickle 5─→ pickle + large buffers ─→ each part ≥ SHARED_FROM bytes: a place in shared memory
                                              └─→ all others, and those that find no room: into the bytes

    bytes = count of parts, (place, length) of each, parts that are inline

The shared memory is an anonymous file (memfd), one for each worker, half of it for each direction. The kernel frees it
with its last descriptor, however pool and worker end, and it does not lie in /dev/shm, which is small in containers.
Its pages are taken as they are needed and used again; nothing is ever awaited: where the other side has not read yet
and there is no room, or the system has no more memory, parts go through the pipe like all others.

A direction has one writer and one reader. The reader counts what it has copied out in the memory itself; the writer
remembers in order where it put things, and may use again what the counter has passed. The counter's value comes from
another process, which may be a dying one: it is checked, never trusted.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import struct
from collections import deque
from typing import Any

from pycaffe.errors import PoolError
from pycaffe.workers.pickling import dumps

__all__ = ["DIRECTION", "SHARED_FROM", "SharedMemory", "Transport", "memory_file"]

SHARED_FROM = 64 << 10  # bytes; below it the pipe is as fast (benchmarks/bench_pool.py, "transport")
DIRECTION = 64 << 20  # bytes of address space for each direction
COUNTER = mmap.PAGESIZE  # bytes at the beginning of a direction for the reader's counter
ALIGNMENT = 64
INLINE = (1 << 64) - 1
_COUNT = struct.Struct("<I")
_PART = struct.Struct("<QQ")


def memory_file() -> int | None:
    """The descriptor of fresh memory for a pool and one worker; None where the system has none to share in this way."""
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = None
    try:
        descriptor = os.memfd_create("pycaffe-worker")
        os.ftruncate(descriptor, 2 * DIRECTION)  # address space; pages come when they are written
        os.posix_fallocate(descriptor, 0, COUNTER)
        os.posix_fallocate(descriptor, DIRECTION, COUNTER)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


class SharedMemory:
    """The memory behind a descriptor of `memory_file`, which it takes over.

    Args:
        descriptor: of the memory.
        writes: the direction that this side writes, 0 (the pool's) or 1 (the worker's); it reads the other one.

    Raises:
        OSError: the system has no more address space or descriptors.
    """

    def __init__(self, descriptor: int, writes: int) -> None:
        try:
            self._map = mmap.mmap(descriptor, 2 * DIRECTION)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor
        self._start, self._other = writes * DIRECTION, (1 - writes) * DIRECTION
        self._written = 0  # parts, ever
        self._read = 0
        self._taken: deque[tuple[int, int]] = deque()  # (begin, end) of what may not have been read, oldest first
        self._backed = COUNTER  # the pages below it are there

    # -- the writing direction

    def write(self, part: memoryview) -> int | None:
        """Copies a part into the memory; its place, or None where there is no room."""
        self._forget_read()
        place = self._room(-(-part.nbytes // ALIGNMENT) * ALIGNMENT)
        if place is None or not self._back(place + part.nbytes):
            return None
        begin = self._start + place
        self._map[begin : begin + part.nbytes] = part
        self._taken.append((place, place + -(-part.nbytes // ALIGNMENT) * ALIGNMENT))
        self._written += 1
        return place

    def _forget_read(self) -> None:
        (read,) = struct.unpack_from("<Q", self._map, self._start)
        oldest = self._written - len(self._taken)
        for _ in range(min(max(0, read - oldest), len(self._taken)) if read <= self._written else 0):
            self._taken.popleft()

    def _room(self, size: int) -> int | None:
        """The lowest place with so many free bytes, so that few pages are ever used."""
        place = COUNTER
        for begin, end in sorted(self._taken):
            if begin - place >= size:
                break
            place = end
        return place if place + size <= DIRECTION else None

    def _back(self, end: int) -> bool:
        """Makes sure of the pages up to `end`: a write to a page that the system does not have would kill us."""
        if end > self._backed:
            try:
                os.posix_fallocate(self._file, self._start + self._backed, end - self._backed)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT, errno.EINTR):
                    raise
                return False
            self._backed = end
        return True

    # -- the reading direction

    def read(self, place: int, length: int) -> bytearray:
        """Copies a part out; its place is free from then on.

        Raises:
            PoolError: the place lies outside of the memory.
        """
        if not COUNTER <= place <= place + length <= DIRECTION:
            raise PoolError(f"A message names {length} bytes at {place}, which are not in the shared memory.")
        begin = self._other + place
        part = bytearray(memoryview(self._map)[begin : begin + length])
        self._read += 1
        struct.pack_into("<Q", self._map, self._other, self._read)
        return part

    def close(self) -> None:
        """Gives the memory back, as far as this process is concerned. Repeatable."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._map.close()


class Transport:
    """Makes bytes of messages and messages of bytes, for one side of one worker's pipe.

    Messages must be unpacked in the order in which the other side packed them, and all of them.

    Args:
        memory: shared with the other side; None for none.
    """

    def __init__(self, memory: SharedMemory | None = None) -> None:
        self._memory = memory

    def pack(self, message: object) -> list[Any]:
        """The bytes to send, in pieces.

        Functions and classes of `__main__`, which no worker can import, are written out.

        Raises:
            Exception: whatever pickling a user's object raises. Nothing was written then.
        """
        buffers: list[memoryview] = []

        def keep_in_pickle(buffer: pickle.PickleBuffer) -> bool:
            try:
                raw = buffer.raw()
            except BufferError:  # not in one piece
                return True
            if raw.nbytes < SHARED_FROM:
                return True
            buffers.append(raw)
            return False

        parts = [dumps(message, keep_in_pickle, buffers.clear), *buffers]
        pieces = [_COUNT.pack(len(parts))]
        inline: list[Any] = []
        for part in parts:
            place = None
            if self._memory is not None and part.nbytes >= SHARED_FROM:
                place = self._memory.write(part)
            if place is None:
                inline.append(part)
            pieces.append(_PART.pack(INLINE if place is None else place, part.nbytes))
        return [b"".join(pieces), *inline]

    def unpack(self, data: bytes | bytearray | memoryview) -> Any:
        """The message in received bytes.

        Raises:
            Exception: whatever unpickling a user's object raises.
            PoolError: the bytes are not a message.
        """
        view = memoryview(data)
        try:
            (count,) = _COUNT.unpack_from(view)
            table = [_PART.unpack_from(view, _COUNT.size + i * _PART.size) for i in range(count)]
        except struct.error as error:
            raise PoolError(f"A message of {len(data)} bytes is not one: {error}.") from error
        at = _COUNT.size + count * _PART.size
        parts: list[Any] = []
        for place, length in table:
            if place != INLINE:
                if self._memory is None:
                    raise PoolError("A message lies in shared memory, and there is none.")
                parts.append(self._memory.read(place, length))
            else:
                if at + length > len(data):
                    raise PoolError(f"A message of {len(data)} bytes lacks {at + length - len(data)} of them.")
                # The pickle itself is only read; a buffer becomes an array's memory, which has to be its own.
                parts.append(bytearray(view[at : at + length]) if parts else view[at : at + length])
                at += length
        if not parts:
            raise PoolError("A message has no parts.")
        return pickle.loads(parts[0], buffers=parts[1:])

    def close(self) -> None:
        """Gives the shared memory back. Repeatable."""
        if self._memory is not None:
            self._memory.close()
