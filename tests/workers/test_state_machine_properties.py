"""Whatever happens, and in whatever order, the books of a pool keep their promises."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pycaffe.errors import WorkerDied
from pycaffe.workers.commands import Deliver, KillWorker, RetireWorker, SendBatch, StartWorker
from pycaffe.workers.messages import ItemDone, Timing
from pycaffe.workers.state_machine import PoolState

TIMEOUT = 5.0


class SimulatedWorkers(RuleBasedStateMachine):
    """Processes that take batches from their pipes, answer, refuse, hang and die as hypothesis likes."""

    @initialize(
        workers=st.integers(1, 3),
        batch_size=st.sampled_from([None, 1, 2, 5]),
        retries=st.integers(0, 2),
        worn_after=st.sampled_from([None, 1, 4]),
        max_wait=st.sampled_from([0.0, 2.0]),
        device=st.sampled_from(["cpu", "cuda:0"]),
    )
    def begin(
        self, workers: int, batch_size: int | None, retries: int, worn_after: int | None, max_wait: float, device: str
    ) -> None:
        self.retries = retries
        self.now = 0.0
        self.overlaps = device != "cpu"
        self.state = PoolState(
            [device] * workers,
            batch_size=batch_size,
            max_wait=max_wait,
            retries=10**6 if retries == 2 else retries,
            item_timeout=TIMEOUT,
            max_items_per_worker=worn_after,
        )
        self.retries = self.state.retries
        self.alive: dict[int, bool] = {}  # worker → whether it has said that it is ready
        self.doomed: set[int] = set()  # killed or let go, but not yet known to be dead
        self.pipes: dict[int, deque[list[int]]] = {}
        self.added: dict[int, str] = {}
        self.results: Counter[int] = Counter()
        self.alone: Counter[int] = Counter()  # deaths while an item ran alone
        self.abandoned: set[str] = set()
        self.job = "job 0"  # owners are told apart as objects
        self.state.start()
        self.obey()

    def obey(self) -> None:
        for command in self.state.take():
            if isinstance(command, StartWorker):
                assert command.worker not in self.alive
                self.alive[command.worker] = False
                self.pipes[command.worker] = deque()
            elif isinstance(command, SendBatch):
                assert self.alive[command.worker] and command.worker not in self.doomed
                assert command.items
                self.pipes[command.worker].append([item.number for item in command.items])
            elif isinstance(command, (KillWorker, RetireWorker)):
                if isinstance(command, RetireWorker):
                    assert not self.pipes[command.worker], "a worker is let go only when it has nothing to do"
                self.pipes[command.worker].clear()
                self.doomed.add(command.worker)
            else:
                assert isinstance(command, Deliver), command
                self.check_delivery(command)

    def check_delivery(self, command: Deliver) -> None:
        number = command.item.number
        self.results[number] += 1
        assert self.added[number] not in self.abandoned
        assert command.attempts <= self.retries + 1
        lost = isinstance(command.error, WorkerDied)
        assert command.attempts == self.alone[number] + (0 if lost else 1), "only deaths alone count"
        if lost:
            assert command.attempts == self.retries + 1

    def running(self) -> list[int]:
        return sorted(worker for worker, pipe in self.pipes.items() if pipe)

    # -- what users do

    @rule(count=st.integers(1, 9), more=st.booleans())
    def add(self, count: int, more: bool) -> None:
        before = len(self.added)
        for number in range(before, before + count):
            self.added[number] = self.job
        self.state.add(range(count), self.job, self.now, index=before, more=more)
        self.obey()

    @rule()
    def abandon(self) -> None:
        job, self.job = self.job, f"job {len(self.abandoned) + 1}"
        self.abandoned.add(job)
        self.state.abandon(job)
        self.obey()

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.state.ticked(self.now)
        self.obey()

    # -- what workers do

    @precondition(lambda self: not all(self.alive.values()))
    @rule(data=st.data())
    def get_ready(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(sorted(w for w, ready in self.alive.items() if not ready)))
        self.alive[worker] = True
        self.state.ready(worker, 1, 100, self.now)
        self.obey()

    @precondition(lambda self: self.running())
    @rule(data=st.data(), fails=st.booleans(), batch_limit=st.sampled_from([64, 64, 2]))
    def answer(self, data: Any, fails: bool, batch_limit: int) -> None:
        worker = data.draw(st.sampled_from(self.running()))
        numbers = self.pipes[worker].popleft()
        error = ValueError("bad") if fails else None
        answers = [ItemDone(number, None, error, 0.1) for number in reversed(numbers)]
        self.state.answered(worker, answers, Timing(len(numbers), 0.1, batch_limit), self.now)
        self.obey()

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def tell_step(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(self.running()))
        self.state.stepped(worker, (data.draw(st.sampled_from(self.pipes[worker][0])),), self.now)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def refuse(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(self.running()))
        self.pipes[worker].popleft()
        self.state.refused(worker, TypeError("does not pickle"), self.now)
        self.obey()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def die(self, data: Any) -> None:
        worker = data.draw(st.sampled_from(sorted(self.doomed or self.alive)))
        if not self.alive[worker] and worker not in self.doomed:
            return  # deaths at the start break the pool in the end; another test is about those
        self.bury(worker)

    def bury(self, worker: int) -> None:
        del self.alive[worker]
        self.doomed.discard(worker)
        pipe = self.pipes.pop(worker)
        if pipe and len(pipe[0]) == 1 and not (self.overlaps and len(pipe) > 1):
            self.alone[pipe[0][0]] += 1
        self.state.died(worker, 1, "SIGKILL", self.now)
        self.obey()

    # -- what always holds

    @invariant()
    def no_item_ends_twice(self) -> None:
        assert not self.results or max(self.results.values()) == 1

    @invariant()
    def no_item_is_in_two_places(self) -> None:
        sent = [number for pipe in self.pipes.values() for batch in pipe for number in batch]
        assert len(sent) == len(set(sent))
        assert not {number for number in sent if self.results[number]}
        books = [item.number for w in self.state.workers for batch in w.queue for item in batch.items]
        assert sorted(books) == sorted(sent)
        assert self.state.unfinished == len(sent) + self.state.waiting()

    @invariant()
    def suspects_have_a_worker_that_overlaps_to_themselves(self) -> None:
        for worker in self.state.workers:
            if self.overlaps and any(batch.suspect for batch in worker.queue):
                assert len(worker.queue) == 1

    @invariant()
    def no_worker_idles_while_items_wait_that_are_due(self) -> None:
        if any(worker.state == "idle" for worker in self.state.workers):
            assert self.state.next_time() > self.now or not self.state.waiting()

    def teardown(self) -> None:
        """From wherever it stands, the pool comes to an end, and each item that somebody waits for has its result."""
        self.state.hurry(self.now)
        self.obey()
        for _ in range(500):
            if not self.state.unfinished:
                break
            for worker in sorted(self.doomed):
                self.bury(worker)
            for worker in [w for w, ready in self.alive.items() if not ready]:
                self.alive[worker] = True
                self.state.ready(worker, 1, 100, self.now)
                self.obey()
            for worker in self.running():
                numbers = self.pipes[worker].popleft()
                answers = [ItemDone(number, "good", None, 0.1) for number in numbers]
                self.state.answered(worker, answers, Timing(0, 0.0, 64), self.now)
                self.obey()
        assert self.state.unfinished == 0
        for number, job in self.added.items():
            assert self.results[number] == 1 or job in self.abandoned
        for number in self.results:
            assert number in self.added


SimulatedWorkers.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None, derandomize=True)
TestSimulatedWorkers = SimulatedWorkers.TestCase
