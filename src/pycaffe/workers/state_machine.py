"""The state of a pool: events in, commands out. No process, no pipe, no thread, no clock: times are handed in.

An item, from `add` to exactly one Deliver:

    add ─→ waiting ──SendBatch──→ in a worker's queue ──answered──→ Deliver
              ▲                      │ died
              ├── behind the batch that ran: unharmed, first in line again
              ├── of the batch that ran: again as it was, then in halves, at last alone (batches.py)
              └── alone, and out of attempts ──────────────────────→ Deliver(WorkerDied)
    The item that runs past `item_timeout` ─→ KillWorker, Deliver(ItemTimeout); the others are unharmed.

The states of a worker, and how they change, are in worker_state.py. The oldest batch of a worker is the one that runs;
what stands behind it only saves the worker a wait for the pipe. A worker on a GPU prepares that one meanwhile: where it
dies, both are suspects, and a suspect has such a worker to itself.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from pycaffe.errors import ItemTimeout, WorkerDied
from pycaffe.workers.batch_size import choose_batch_size
from pycaffe.workers.batches import Batch, Item, Line
from pycaffe.workers.commands import (
    Broken,
    Command,
    Deliver,
    KillWorker,
    RetireWorker,
    SendBatch,
    StartWorker,
)
from pycaffe.workers.messages import ItemDone, Timing
from pycaffe.workers.worker_state import WorkerState

__all__ = ["PoolState"]

RATE_SECONDS = 5.0  # items a second are those of the last seconds


class PoolState:
    """The books of a pool. Each event adds commands, which `take` hands over in the order to carry them out.

    Args:
        devices: one for each worker.
        batch_size: at most so many items go together; None finds a size by trying.
        max_wait: an item waits so many seconds for others to fill a batch with.
        retries: an item is given up after `retries` + 1 deaths alone.
        item_timeout: seconds that one item may take in a worker; None for any.
        max_items_per_worker: a worker is replaced after so many items; None for never.
        depth: batches that a worker holds: one that runs, and those that wait in its pipe.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        batch_size: int | None = None,
        max_wait: float = 0.0,
        retries: int = 2,
        item_timeout: float | None = None,
        max_items_per_worker: int | None = None,
        depth: int = 2,
    ) -> None:
        self.workers = [WorkerState(number, device) for number, device in enumerate(devices)]
        self.retries = retries
        self.item_timeout = item_timeout
        self.max_items_per_worker = max_items_per_worker
        self.depth = depth
        self.batch_size = batch_size or 1
        self.unfinished = 0
        """Items that were added and neither delivered nor dropped."""
        self.batch_sizes: Counter[int] = Counter()
        """How many batches of each size were sent."""
        self._settled = batch_size is not None
        self._trials: dict[int, list[float]] = {}
        self._activations = 0
        self._line = Line(max_wait)
        self._next_number = 0
        self._deaths_at_start = 0
        self._delivered = 0
        self._history: deque[tuple[float, int]] = deque()
        self._commands: list[Command] = []

    def take(self) -> list[Command]:
        """The commands since the last call."""
        commands, self._commands = self._commands, []
        return commands

    # -- events from users

    def start(self) -> None:
        """Begins: starts all workers."""
        for worker in self.workers:
            self._start(worker)

    def add(self, values: Iterable[Any], owner: object, now: float, *, index: int = 0, more: bool = True) -> None:
        """Items to run, the first of which is the owner's `index`-th. Unless `more` come, they wait for no others."""
        number = self._next_number
        items = [Item(number + place, index + place, value, owner, now) for place, value in enumerate(values)]
        self._next_number += len(items)
        self.unfinished += len(items)
        self._line.add(items)
        if not more:
            self._line.hurry()
        self._assign(now)

    def hurry(self, now: float) -> None:
        """No more items come for now: those that wait do not wait for others."""
        self._line.hurry()
        self._assign(now)

    def abandon(self, owner: object) -> None:
        """Nobody waits for an owner's items any more: those that run are not repeated, the rest is dropped."""
        self.unfinished -= self._line.abandon(owner)
        for worker in self.workers:
            for batch in worker.queue:
                for item in batch.items:
                    item.abandoned |= item.owner is owner

    # -- events from workers

    def ready(self, number: int, pid: int | None, activations: int, now: float) -> None:
        """A worker has loaded the net, whose blobs take so many bytes for one item."""
        worker = self.workers[number]
        if worker.state == "draining":
            return
        self._deaths_at_start = 0
        self._activations = activations
        worker.pid = pid
        worker.change("ready")
        self._assign(now)

    def failed(self, error: BaseException) -> None:
        """A worker cannot load the net: none can."""
        self._commands.append(Broken(error))

    def stepped(self, number: int, items: tuple[int, ...] | None, now: float) -> None:
        """A worker begins with these items of its oldest batch."""
        worker = self.workers[number]
        worker.step, worker.step_since = items, now

    def answered(self, number: int, answers: Iterable[ItemDone], timing: Timing, now: float) -> None:
        """A worker has run its oldest batch."""
        worker = self.workers[number]
        if not worker.queue:  # it was killed while its answer was on the way, and its items are elsewhere
            return
        items = {item.number: item for item in worker.queue[0].items}
        self._remove(worker, worker.queue[0], now)
        deliveries = []
        for answered, outputs, error, seconds in answers:
            item = items[answered]
            deliveries.append(Deliver(item, outputs, error, item.deaths + 1, number, seconds))
        self._deliver(deliveries, now)
        worker.items += len(items)
        worker.batch_limit = min(worker.batch_limit, timing.batch_limit)
        self._learn(worker, timing)
        self._retire_if_worn(worker)
        self._assign(now)

    def unsent(self, number: int, items: list[Item], error: BaseException, now: float) -> None:
        """A batch of SendBatch does not pickle: each item by itself."""
        worker = self.workers[number]
        batch = next(batch for batch in worker.queue if batch.items is items)
        self._remove(worker, batch, now)
        self._each_alone(batch, worker, error, now)

    def refused(self, number: int, error: BaseException, now: float) -> None:
        """A worker's oldest batch does not unpickle there, or its answer does not pickle: each item by itself."""
        worker = self.workers[number]
        if worker.queue:
            batch = worker.queue[0]
            self._remove(worker, batch, now)
            self._each_alone(batch, worker, error, now)

    def died(self, number: int, pid: int | None, cause: str, now: float) -> None:
        """A worker is gone; what it died of: "SIGKILL", "exit status 1"."""
        worker = self.workers[number]
        at_start = worker.state == "starting"
        queue, worker.queue = list(worker.queue), deque()
        worker.change("died")
        if worker.overlaps and len(queue) > 1:
            for batch in queue:  # it was at two of them; each shows by itself whether it does that
                batch.deaths = max(batch.deaths, 1)
            self._again(queue)
        elif queue:
            self._again(queue[1:])
            self._blame(queue[0], worker, pid, cause, now)
        if at_start:
            self._deaths_at_start += 1
            if self._deaths_at_start >= (self.retries + 1) * len(self.workers):
                self._commands.append(Broken(_worker_died(worker, pid, cause, "loading the net")))
                return
        self._start(worker)
        self._assign(now)

    def ticked(self, now: float) -> None:
        """Time has passed."""
        if self.item_timeout is not None:
            for worker in self.workers:
                if worker.state == "busy" and now >= self._deadline(worker):
                    self._time_is_up(worker, now)
        self._assign(now)

    # -- questions

    @property
    def capacity(self) -> int:
        """Items that keep all workers at work, with a batch more for each while answers are on the way."""
        return len(self.workers) * (self.depth + 1) * self.batch_size

    def next_time(self) -> float:
        """When `ticked` is due; infinity if nothing waits for a time."""
        times = [self._line.due()] if any(worker.state == "idle" for worker in self.workers) else []
        if self.item_timeout is not None:
            times += [self._deadline(worker) for worker in self.workers if worker.state == "busy"]
        return min(times, default=float("inf"))

    def waiting(self) -> int:
        """Items that no worker has."""
        return len(self._line)

    def rate(self, now: float) -> float:
        """Items delivered a second, over the last seconds."""
        self._forget(now)
        if not self._history:
            return 0.0
        since, before = self._history[0]
        return (self._delivered - before) / max(now - since, 1e-3)

    # -- inside

    def _start(self, worker: WorkerState) -> None:
        worker.change("started")
        worker.taken, worker.pid, worker.step = 0, None, None
        worker.restarts += 1
        self._commands.append(StartWorker(worker.number, worker.device))

    def _assign(self, now: float) -> None:
        """Gives batches to all that can take one, idle workers first."""
        if not len(self._line):
            return
        live = [worker for worker in self.workers if worker.state in ("idle", "busy")]
        for length in range(self.depth):
            for worker in live:
                if len(worker.queue) != length or (worker.overlaps and length and worker.queue[0].suspect):
                    continue
                most = min(self.batch_size, worker.batch_limit)
                if self.max_items_per_worker is not None:
                    most = min(most, self.max_items_per_worker - worker.taken)
                if most > 0:
                    batch = self._line.take(most, idle=not length, workers=len(live), now=now, apart=worker.overlaps)
                    if batch is not None:
                        self._send(worker, batch, now)

    def _send(self, worker: WorkerState, batch: Batch, now: float) -> None:
        if not worker.queue:
            worker.step, worker.step_since = None, now
        worker.queue.append(batch)
        worker.taken += len(batch.items)
        worker.change("sent")
        self.batch_sizes[len(batch.items)] += 1
        self._commands.append(SendBatch(worker.number, batch.items))

    def _remove(self, worker: WorkerState, batch: Batch, now: float) -> None:
        if batch is worker.queue[0]:
            worker.step, worker.step_since = None, now
        worker.queue.remove(batch)
        worker.change("answered" if worker.queue else "emptied")

    def _each_alone(self, batch: Batch, worker: WorkerState, error: BaseException, now: float) -> None:
        if len(batch.items) > 1:
            self._again(batch.singles())
        else:
            item = batch.items[0]
            self._deliver([Deliver(item, None, error, item.deaths + 1, worker.number, 0.0)], now)
        self._retire_if_worn(worker)
        self._assign(now)

    def _retire_if_worn(self, worker: WorkerState) -> None:
        worn = self.max_items_per_worker is not None and worker.taken >= self.max_items_per_worker
        if worn and not worker.queue:
            worker.change("retired")
            self._commands.append(RetireWorker(worker.number))

    def _blame(self, batch: Batch, worker: WorkerState, pid: int | None, cause: str, now: float) -> None:
        """What becomes of the batch that ran when its worker died."""
        if len(batch.items) > 1:
            batch.deaths += 1
            self._again([batch] if batch.deaths == 1 else batch.split())
            return
        item = batch.items[0]
        item.deaths += 1
        if item.deaths <= self.retries:
            self._again([batch])
            return
        what = f"running this item alone (attempt {item.deaths} of {item.deaths})"
        error = _worker_died(worker, pid, cause, what)
        self._deliver([Deliver(item, None, error, item.deaths, worker.number, 0.0)], now)

    def _deadline(self, worker: WorkerState) -> float:
        return worker.step_since + (self.item_timeout or 0.0) * len(worker.step_items())

    def _time_is_up(self, worker: WorkerState, now: float) -> None:
        """Kills a worker. If it was at several items, each has to show alone whether it is the slow one."""
        batch, *behind = worker.queue
        guilty = worker.step_items()
        worker.queue.clear()
        worker.change("retired")
        self._commands.append(KillWorker(worker.number))
        self._again(behind)
        if len(guilty) > 1:
            self._again(batch.singles())
            return
        self._again([Batch([item for item in batch.items if item is not guilty[0]], batch.deaths)])
        error = ItemTimeout(
            f"Worker {worker.number} (pid {worker.pid}) took longer than {self.item_timeout!r} s for it."
        )
        seconds = now - worker.step_since
        self._deliver([Deliver(guilty[0], None, error, guilty[0].deaths + 1, worker.number, seconds)], now)

    def _again(self, batches: list[Batch]) -> None:
        self.unfinished -= sum(item.abandoned for batch in batches for item in batch.items)
        self._line.again(batches)

    def _deliver(self, commands: list[Deliver], now: float) -> None:
        self.unfinished -= len(commands)
        self._forget(now)
        if not self._history or now - self._history[-1][0] > 0.1:
            self._history.append((now, self._delivered))
        self._delivered += len(commands)
        self._commands += [command for command in commands if not command.item.abandoned]

    def _forget(self, now: float) -> None:
        while self._history and now - self._history[0][0] > RATE_SECONDS:
            self._history.popleft()

    def _learn(self, worker: WorkerState, timing: Timing) -> None:
        """Tries batch sizes until the best is known."""
        if self._settled or not timing.extent:
            return
        if timing.extent not in worker.extents:  # its first one makes sessions and buffers, and takes twice as long
            worker.extents.add(timing.extent)
            return
        self._trials.setdefault(timing.extent, []).append(timing.seconds)
        largest = min(worker.batch_limit for worker in self.workers)
        self.batch_size, self._settled = choose_batch_size(self._trials, self._activations, largest)


def _worker_died(worker: WorkerState, pid: int | None, cause: str, what: str) -> WorkerDied:
    hint = " Often the kernel's out-of-memory killer: lower batch_size if this repeats." if cause == "SIGKILL" else ""
    return WorkerDied(f"Worker {worker.number} (pid {pid}, {worker.device}) died with {cause} while {what}.{hint}")
