"""The worker's own side: reads batches from its pipe, answers each.

    reader thread   pipe → inbox, as bytes. Sees the end of the pipe at once, even during a long forward, and ends the
                    process: a worker never outlives its parent. It also keeps the pipe empty, so that the parent's
                    send never waits for a worker whose own send waits for the parent.
    main thread     inbox → unpickle → Runner → pickle → pipe.

On a GPU a third thread takes over the first half of the main thread's work, so that the device has its next batch
before it has finished the present one. Which of the two batches a death is due to can then not be told; see
`PoolState.died`.

    preparing       inbox → unpickle → Runner.prepare: preprocessing, begin of the copy to the device
    main thread     Runner.finish: forward, postprocessing → pickle → pipe

Nothing heavy is imported at module level: a process that cannot start should say why, through its pipe.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycaffe.workers.messages import Unreadable
    from pycaffe.workers.runner import Prepared, Runner
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

    def prepare() -> Prepared | Unreadable:
        try:
            batch = transport.unpack(inbox.get())
        except (Exception, SystemExit) as error:  # a user's object: it may do anything while it is unpickled
            return Unreadable(picklable_error(error))
        if runner.overlaps:  # the pool asks about the batch that the main thread is at
            return runner.prepare(batch.numbers, batch.values)
        return runner.prepare(batch.numbers, batch.values, tell)

    take = _ahead(prepare) if runner.overlaps else prepare
    _send(connection, transport.pack(Ready(os.getpid(), runner.activations)))
    while True:
        prepared = take()
        done = prepared if isinstance(prepared, Unreadable) else runner.finish(prepared, tell)
        try:
            answer = transport.pack(done)
        except (Exception, SystemExit) as error:  # as above; from `postprocess`
            answer = transport.pack(Unreadable(picklable_error(error)))
        _send(connection, answer)


def _ahead(prepare: Callable[[], Any]) -> Callable[[], Any]:
    """The same, done in a thread before it is asked for."""
    ready: queue.Queue[Any] = queue.Queue(1)

    def work() -> None:
        try:
            while True:
                ready.put(prepare())
        except BaseException:  # the main thread would wait for ever
            traceback.print_exc()
            os._exit(1)

    threading.Thread(target=work, name="pycaffe-preparing", daemon=True).start()
    return ready.get


def ignore_interrupts() -> None:
    """Ctrl-C and a batch system's SIGTERM reach the whole process group; only the parent decides what they mean."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
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
