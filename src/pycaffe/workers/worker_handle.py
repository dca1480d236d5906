"""What a pool needs of a worker process and of what starts one, however it is made: forked from a zygote, or spawned.

    WorkerSource.start(number, device) ─→ WorkerHandle          at once, while the worker still loads its net
    WorkerHandle.send(message)         ─→ the worker's inbox
    WorkerHandle.receive()             ←─ Ready or Failed first; then one BatchDone for each RunBatch, in order
    WorkerHandle.waitables             ─→ multiprocessing.connection.wait, in the one thread that drives the pool

The worker's own side is `worker.serve(connection, runner)`: a forked child calls it with the Runner that its zygote
loaded, a spawned one loads its Runner first. Its reader thread only takes bytes from the pipe (`recv_bytes`); they are
unpickled in the main thread, so that what a user's object does there belongs to its batch. A transport has therefore
two halves on either side: message → bytes to send, and bytes received → message.

All calls come from the pool's driving thread. None of them waits for a worker: one that hangs, or that is stopped, or
that never reads its pipe must not hold up the others. (`end` and `cause_of_death` may, for a worker that is dead.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["WorkerHandle", "WorkerSource"]


class WorkerHandle(Protocol):
    """A worker, seen from its pool."""

    @property
    def pid(self) -> int | None:
        """The worker's process; None as long as that is not known (its zygote is loading the net)."""

    @property
    def waitables(self) -> Sequence[Any]:
        """For `multiprocessing.connection.wait`: becomes ready with an answer and with the worker's death."""

    def send(self, message: object) -> None:
        """Pickles a message at once, and sends it without waiting for a worker that does not read.

        To a worker that is dead it goes nowhere: `receive` tells the pool.

        Raises:
            Exception: whatever pickling a user's object raised. Nothing was sent.
        """

    def receive(self) -> tuple[list[Any], bool]:
        """The messages that are there already, and whether the worker is dead or dying: no more will come.

        A message that does not unpickle is there as `messages.Unreadable`, with the error. Answers that a worker sent
        before it died are among them.
        """

    def kill(self) -> None:
        """SIGKILL. `receive` tells of the death as of any other. Nothing happens if it is dead already."""

    def cause_of_death(self) -> str:
        """What a worker whose pipe ended died of: "SIGKILL", "exit status 1". Waits a second at most, then kills."""

    def ask_to_end(self) -> None:
        """Closes the pool's end of the pipe: the worker ends itself at once, even in the middle of a batch."""

    def end(self) -> None:
        """Makes sure that the process is gone, and frees all it held here: pipe, zombie, shared memory. Repeatable."""


class WorkerSource(Protocol):
    """Starts the workers of one pool."""

    def start(self, number: int, device: str) -> WorkerHandle:
        """A new worker on "cpu" or "cuda:N". Does not wait until it has loaded the net.

        Raises:
            OSError: the system gives no more processes or descriptors.
        """

    def close(self) -> None:
        """Frees what the source itself holds (a zygote). Its workers have been ended before. Repeatable."""
