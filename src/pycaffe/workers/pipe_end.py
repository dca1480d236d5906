"""The pool's end of a worker's pipe: nothing here ever waits for the worker.

Bytes are framed as `multiprocessing.connection.Connection` frames them, which is what the worker has at its end.

A worker reads its pipe at once, so what is sent normally leaves with the call. What does not, because a worker is
stopped or holds its interpreter, is left to a thread of this end. What a worker has sent in part waits here for the
rest.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

__all__ = ["PipeEnd"]

READ = 1 << 18  # bytes at a time; a socket holds about as many
LONG = 0x7FFFFFFF  # a longer message has its length in a second header
_SHORT, _LONG = struct.Struct("!i"), struct.Struct("!Q")


class PipeEnd:
    """One end of a pair of stream sockets, which it takes over. `multiprocessing.connection.wait` takes it."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        self._arrived = bytearray()  # the beginning of a message
        self._body: bytearray | None = None  # of a message whose length is known
        self._filled = 0
        self._left: deque[memoryview] = deque()  # what did not leave with the call
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None
        self._sending = False
        _ends.add(self)

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    # -- sending

    def send(self, pieces: Sequence[Any]) -> None:
        """Sends a message. To an end that nobody holds any more it goes nowhere."""
        message = [memoryview(piece).cast("B") for piece in pieces]
        length = sum(map(len, message))
        message.insert(0, memoryview(_SHORT.pack(length) if length <= LONG else _SHORT.pack(-1) + _LONG.pack(length)))
        with self._lock:
            try:
                left = message if self._sending else self._send_now(message)
            except OSError:
                return
            if left:
                self._left.append(memoryview(b"".join(left)))  # a copy: the arrays are the caller's after this
                if not self._sending:
                    self._sending = True
                    self._sender = threading.Thread(target=self._send_rest, name="pycaffe-sender", daemon=True)
                    self._sender.start()

    def _send_now(self, message: list[memoryview]) -> list[memoryview]:
        """Sends what the pipe takes; what it does not."""
        while message:
            try:
                gathers = hasattr(self._socket, "sendmsg")  # not on Windows
                sent = self._socket.sendmsg(message) if gathers else self._socket.send(message[0])
            except BlockingIOError:
                return message
            while message and sent >= len(message[0]):
                sent -= len(message.pop(0))
            if message:
                message[0] = message[0][sent:]
        return []

    def _send_rest(self) -> None:
        writable = selectors.DefaultSelector()
        try:
            writable.register(self._socket, selectors.EVENT_WRITE)
            self._send_until_done(writable)
        except (OSError, ValueError):  # the worker is dead, or this end was closed
            with self._lock:
                self._left.clear()
                self._sending = False
        finally:
            writable.close()

    def _send_until_done(self, writable: selectors.BaseSelector) -> None:
        while True:
            with self._lock:
                if not self._left:
                    self._sending = False
                    return
                rest = self._left[0]
            while rest:
                writable.select()
                rest = rest[self._socket.send(rest) :]
            with self._lock:
                self._left.popleft()

    # -- receiving

    def receive(self) -> tuple[list[bytearray], bool]:
        """The messages that have arrived, and whether the pipe has ended."""
        messages: list[bytearray] = []
        try:
            while self._read(messages):
                pass
        except BlockingIOError:
            return messages, False
        except (OSError, OverflowError, MemoryError, ValueError):  # the last three: a header that makes no sense
            return messages, True
        return messages, True

    def _read(self, messages: list[bytearray]) -> int:
        """One read; its bytes, 0 at the end of the pipe. What is large goes straight to its place."""
        if self._body is not None:
            count = self._socket.recv_into(memoryview(self._body)[self._filled :])
            self._filled += count
            if self._filled == len(self._body):
                messages.append(self._body)
                self._body, self._filled = None, 0
            return count
        data = self._socket.recv(READ)
        self._arrived += data
        while self._body is None and (header := self._header()):
            used, length = header
            if len(self._arrived) - used < length:
                self._body = bytearray(length)
                self._filled = len(self._arrived) - used
                self._body[: self._filled] = self._arrived[used:]
                self._arrived.clear()
            else:
                messages.append(self._arrived[used : used + length])
                del self._arrived[: used + length]
        return len(data)

    def _header(self) -> tuple[int, int] | None:
        """The bytes of a header and the length in it, if it is there."""
        if len(self._arrived) < _SHORT.size:
            return None
        (length,) = _SHORT.unpack_from(self._arrived)
        if length < -1:
            raise ValueError(f"a message of {length} bytes")
        if length != -1:
            return _SHORT.size, length
        if len(self._arrived) < _SHORT.size + _LONG.size:
            return None
        return _SHORT.size + _LONG.size, _LONG.unpack_from(self._arrived, _SHORT.size)[0]

    # -- the end

    def close(self) -> None:
        """Closes this end, at which the worker ends itself. Repeatable."""
        _ends.discard(self)
        if self._socket.fileno() < 0:
            return
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that sends
        except OSError:
            pass
        if self._sender is not None:
            self._sender.join()
        self._socket.close()

    def _close_in_child(self) -> None:
        self._socket.close()


_ends: weakref.WeakSet[PipeEnd] = weakref.WeakSet()


def _close_in_child() -> None:
    """A process that the user forks must not hold these: the workers would not see the end of their pool."""
    for end in list(_ends):
        end._close_in_child()
    _ends.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
