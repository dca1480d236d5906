"""A worker process: reads batches from its pipe, answers each.

    reader thread   pipe → inbox. Sees the end of the pipe at once, even during a long forward, and ends the process: a
                    worker never outlives its parent. It also keeps the pipe empty, so that the parent's send
                    never waits for a worker whose own send waits for the parent.
    main thread     inbox → Runner → pipe.

Nothing heavy is imported at module level: a process that cannot start should say why, through its pipe.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
from multiprocessing.connection import Connection

__all__ = ["main"]


def main(connection: Connection) -> None:
    """The life of a worker."""
    _ignore_interrupts()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    from pycaffe.workers.messages import BatchDone, Failed, Ready, picklable_error

    try:
        from pycaffe.workers.runner import Runner

        runner = Runner(pickle.loads(inbox.get()))
    except (
        Exception,
        SystemExit,
    ) as error:  # unpickling `preprocess` may import a user's module, which may do anything
        _send(connection, Failed(picklable_error(error)))
        return
    _send(connection, Ready())
    while True:
        _send(connection, BatchDone(runner.run(pickle.loads(inbox.get()))))


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group, but only the parent decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by process.py until here


def _read(connection: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        # No clean-up: the main thread may be deep inside a library, and nobody is left to hear of it.
        os._exit(0)


def _send(connection: Connection, message: object) -> None:
    try:
        connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    except OSError:  # the parent is gone
        os._exit(0)
