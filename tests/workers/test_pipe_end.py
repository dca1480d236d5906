from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

import pytest

from pycaffe.workers import pipe_end
from pycaffe.workers.pipe_end import PipeEnd

SECONDS = 60


@pytest.fixture
def ends() -> Iterator[tuple[PipeEnd, Connection]]:
    ours, theirs = socket.socketpair()
    end, worker = PipeEnd(ours), Connection(theirs.detach())
    yield end, worker
    end.close()
    if not worker.closed:
        worker.close()


def received(end: PipeEnd, count: int) -> list[bytes]:
    messages: list[bytes] = []
    while len(messages) < count:
        assert wait([end], SECONDS)
        got, ended = end.receive()
        assert not ended
        messages += map(bytes, got)
    return messages


def test_both_ways(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    end.send([b"one ", memoryview(b"two")])
    end.send([b""])
    assert worker.recv_bytes() == b"one two"
    assert worker.recv_bytes() == b""
    worker.send_bytes(b"answer")
    worker.send_bytes(b"")
    worker.send_bytes(b"another")
    assert received(end, 3) == [b"answer", b"", b"another"]
    assert end.receive() == ([], False)


def test_sending_never_waits_for_a_reader(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    data = [os.urandom(8 << 20), b"small", os.urandom(1 << 20), b"", os.urandom(100)]
    for message in data:
        end.send([message])
    assert [worker.recv_bytes() for _ in data] == data
    end.send([b"after"])
    assert worker.recv_bytes() == b"after"


def test_what_was_sent_is_what_it_was_at_that_moment(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    data = bytearray(b"a" * (4 << 20))
    end.send([data])
    data[:] = b"b" * len(data)
    assert worker.recv_bytes() == b"a" * len(data)


def test_a_message_in_pieces_is_not_waited_for(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    whole = struct.pack("!i", 10) + b"0123456789"
    for i in range(len(whole)):
        assert end.receive() == ([], False)
        os.write(worker.fileno(), whole[i : i + 1])
    assert received(end, 1) == [b"0123456789"]


def test_large_messages_from_a_worker(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    data = [os.urandom(size) for size in (5 << 20, 3, 1 << 20, (1 << 18) - 4, 1 << 18, 0, 17)]
    sender = threading.Thread(target=lambda: [worker.send_bytes(message) for message in data], daemon=True)
    sender.start()
    assert received(end, len(data)) == data
    sender.join(SECONDS)


def test_the_form_of_very_long_messages(ends: tuple[PipeEnd, Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 2 GB; here the limit is lower. `Connection` reads the form whatever the length is."""
    end, worker = ends
    monkeypatch.setattr(pipe_end, "LONG", 5)
    end.send([b"123456"])
    assert worker.recv_bytes() == b"123456"
    os.write(worker.fileno(), struct.pack("!iQ", -1, 4) + b"four" + struct.pack("!i", 1) + b"x")
    assert received(end, 2) == [b"four", b"x"]


def test_the_end_of_a_worker(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    worker.send_bytes(b"last")
    os.write(worker.fileno(), struct.pack("!i", 10) + b"half")
    worker.close()
    assert wait([end], SECONDS)
    messages, ended = end.receive()
    assert (list(map(bytes, messages)), ended) == ([b"last"], True)
    end.send([b"to nobody"])
    end.send([bytes(8 << 20)])


@pytest.mark.parametrize("header", [struct.pack("!i", -7), struct.pack("!iQ", -1, (1 << 64) - 1)])
def test_a_header_that_makes_no_sense_ends_the_pipe(ends: tuple[PipeEnd, Connection], header: bytes) -> None:
    end, worker = ends
    os.write(worker.fileno(), header + bytes(20))
    assert end.receive() == ([], True)


def test_closing_while_a_message_is_being_sent(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    end.send([bytes(64 << 20)])
    end.close()
    end.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pycaffe-sender"]
    with pytest.raises((EOFError, OSError)):
        worker.recv_bytes()


def test_a_worker_that_dies_while_it_is_sent_a_message(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    end.send([bytes(64 << 20)])
    (sender,) = (thread for thread in threading.enumerate() if thread.name == "pycaffe-sender")
    worker.close()
    sender.join(SECONDS)
    assert not sender.is_alive()
    end.send([b"to nobody"])


def test_children_that_the_user_forks_do_not_hold_the_pipe(ends: tuple[PipeEnd, Connection]) -> None:
    end, worker = ends
    until, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        os.read(until, 1)
        os._exit(0)
    try:
        end.close()
        assert worker.poll(SECONDS)
        with pytest.raises(EOFError):
            worker.recv_bytes()
    finally:
        os.close(release)
        os.close(until)
        os.waitpid(pid, 0)
