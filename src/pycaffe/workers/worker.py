"""The worker's own side: reads batches from its pipe, answers each.

    reader thread   pipe → inbox, as bytes. Sees the end of the pipe at once, even during a long forward, and ends the
                    process: a worker never outlives its parent. It also keeps the pipe empty, so that the parent's
                    send never waits for a worker whose own send waits for the parent.
    main thread     inbox → unpickle → Runner → pickle → pipe.

Nothing heavy is imported at module level: a process that cannot start should say why, through its pipe.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycaffe.workers.runner import Runner
    from pycaffe.workers.transport import Transport

__all__ = ["ignore_interrupts", "main", "serve"]

Inbox = queue.SimpleQueue[bytes]


def main(connection: Connection, memory: int | None = None) -> None:
    """The life of a spawned worker: its first message is the Settings. `memory` is shared, as of `memory_file`."""
    ignore_interrupts()
    inbox = _start_reader(connection)
    from pycaffe.workers.messages import Failed, picklable_error
    from pycaffe.workers.transport import SharedMemory, Transport

    transport = Transport(SharedMemory(memory, 1) if memory is not None else None)
    try:
        from pycaffe.workers.runner import Runner

        settings = transport.unpack(inbox.get())
        runner = Runner(settings)
    except (Exception, SystemExit) as error:  # unpickling a function may import a user's module, which may do anything
        _send(connection, transport.pack(Failed(picklable_error(error))))
        return
    _serve(connection, inbox, runner, transport, settings.tell_steps)


def serve(connection: Connection, runner: Runner, transport: Transport, tell_steps: bool = False) -> None:
    """The life of a worker whose net is loaded already. Does not return: it ends with its pipe.

    Args:
        connection: the worker's end of the pipe.
        runner: the net.
        transport: the worker's side of it.
        tell_steps: whether to tell which items it is at.
    """
    ignore_interrupts()
    _serve(connection, _start_reader(connection), runner, transport, tell_steps)


def _serve(connection: Connection, inbox: Inbox, runner: Runner, transport: Transport, tell_steps: bool) -> None:
    from pycaffe.workers.messages import Ready, Step, Unreadable, picklable_error

    def tell(numbers: tuple[int, ...]) -> None:
        if tell_steps:
            _send(connection, transport.pack(Step(numbers)))

    _send(connection, transport.pack(Ready(os.getpid(), runner.activations)))
    while True:
        try:
            batch = transport.unpack(inbox.get())
        except (Exception, SystemExit) as error:  # a user's object: it may do anything while it is unpickled
            answer = transport.pack(Unreadable(picklable_error(error)))
        else:
            done = runner.run(batch.numbers, batch.values, tell)
            try:
                answer = transport.pack(done)
            except (Exception, SystemExit) as error:  # as above; from `postprocess`
                answer = transport.pack(Unreadable(picklable_error(error)))
        _send(connection, answer)


def ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group, but only the parent decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the parent until here


def _start_reader(connection: Connection) -> Inbox:
    inbox: Inbox = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    return inbox


def _read(connection: Connection, inbox: Inbox) -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        # No clean-up: the main thread may be deep inside a library, and nobody is left to hear of it.
        os._exit(0)


def _send(connection: Connection, pieces: list[Any]) -> None:
    try:
        connection.send_bytes(b"".join(pieces))
    except OSError:  # the parent is gone
        os._exit(0)
