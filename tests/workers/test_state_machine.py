from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pycaffe.errors import ItemTimeout, WorkerDied
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
from pycaffe.workers.state_machine import PoolState

NO_TIMING = Timing(0, 0.0, 64)


def pool(workers: int = 1, items: int = 0, **arguments: Any) -> PoolState:
    """A pool whose workers are idle, or busy with so many items."""
    state = PoolState(["cpu"] * workers, **{"batch_size": 2, "retries": 1, **arguments})
    state.start()
    state.add(range(items), "job", 0.0, more=False)
    for number in range(workers):
        state.ready(number, 100 + number, 0, 0.0)
    return state


def sent(commands: Iterable[Command]) -> list[tuple[int, list[int]]]:
    return [(c.worker, [item.number for item in c.items]) for c in commands if isinstance(c, SendBatch)]


def delivered(commands: Iterable[Command]) -> list[tuple[int, int]]:
    """(item, attempts)."""
    return [(c.item.number, c.attempts) for c in commands if isinstance(c, Deliver)]


def error_of(commands: Iterable[Command]) -> BaseException | None:
    (delivery,) = [c for c in commands if isinstance(c, Deliver)]
    return delivery.error


def answer(state: PoolState, worker: int, now: float = 0.0, timing: Timing = NO_TIMING) -> None:
    batch = state.workers[worker].queue[0]
    state.answered(worker, [ItemDone(item.number, "good", None, 0.1) for item in batch.items], timing, now)


def test_workers_start_at_the_beginning_each_on_its_device() -> None:
    state = PoolState(["cuda:0", "cuda:1"], batch_size=1)
    state.start()
    assert state.take() == [StartWorker(0, "cuda:0"), StartWorker(1, "cuda:1")]
    assert [worker.state for worker in state.workers] == ["starting", "starting"]


def test_each_worker_gets_a_batch_before_any_gets_a_second_and_items_wait_for_workers() -> None:
    state = PoolState(["cpu"] * 2, batch_size=2)
    state.start()
    state.add(range(9), "job", 0.0)
    state.ready(0, 1, 0, 0.0)
    state.ready(1, 2, 0, 0.0)
    assert sent(state.take()) == [(0, [0, 1]), (0, [2, 3]), (1, [4, 5]), (1, [6, 7])]
    assert state.waiting() == 1
    both = pool(workers=2)
    both.take()
    both.add(range(6), "job", 0.0)
    assert sent(both.take()) == [(0, [0, 1]), (1, [2, 3]), (0, [4, 5])]


def test_answers_are_delivered_with_what_the_worker_said_and_make_room() -> None:
    state = pool(items=6)
    state.take()
    state.answered(0, [ItemDone(1, None, ValueError("bad"), 0.2), ItemDone(0, "good", None, 0.1)], NO_TIMING, 1.0)
    bad, good, more = state.take()
    assert isinstance(bad, Deliver) and isinstance(good, Deliver)
    assert (bad.item.value, bad.outputs, str(bad.error), bad.seconds) == (1, None, "bad", 0.2)
    assert (good.outputs, good.error, good.attempts, good.worker) == ("good", None, 1, 0)
    assert sent([more]) == [(0, [4, 5])]
    assert state.unfinished == 4
    assert state.workers[0].items == 2


def test_items_go_to_whoever_asks_next_so_a_slow_device_gets_fewer_and_none_is_lost() -> None:
    state = pool(workers=2, items=61)
    done: dict[int, int] = {0: 0, 1: 0}
    for turn in range(200):
        for worker in (0, 1):
            if state.workers[worker].queue and (worker == 0 or turn % 4 == 0):  # 1 is four times slower
                done[worker] += len(state.workers[worker].queue[0].items)
                answer(state, worker)
    assert sorted(number for number, _ in delivered(state.take())) == list(range(61))
    assert done[0] > 2 * done[1] > 0


def test_few_items_wait_for_more_until_max_wait() -> None:
    state = pool(batch_size=4, max_wait=0.5)
    state.take()
    state.add(range(3), "job", 1.0)
    assert (sent(state.take()), state.next_time()) == ([], 1.5)
    state.ticked(1.5)
    assert sent(state.take()) == [(0, [0, 1, 2])]
    assert state.next_time() == float("inf")
    answer(state, 0)
    state.add(range(1), "job", 2.0)
    state.take()
    state.hurry(2.1)
    assert sent(state.take()) == [(0, [3])]


def test_what_stands_behind_a_batch_that_kills_is_unharmed_and_the_batch_runs_again_then_in_halves() -> None:
    state = pool(items=6, batch_size=4)
    log: list[list[int]] = []
    for _ in range(6):
        worker = state.workers[0]
        if any(item.number == 1 for item in worker.queue[0].items):
            log.append([item.number for item in worker.queue[0].items])
            state.died(0, 100, "SIGKILL", 0.0)
            state.ready(0, 101, 0, 0.0)
        else:
            answer(state, 0)
    assert log == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [1], [1]]
    while state.unfinished:
        answer(state, 0)
    assert sorted(delivered(state.take())) == [(0, 1), (1, 2), (2, 1), (3, 1), (4, 1), (5, 1)]


def test_an_item_alone_is_given_up_after_its_last_attempt() -> None:
    state = pool(items=1, retries=2)
    for _ in range(3):
        assert state.unfinished == 1
        state.died(0, 77, "SIGKILL", 0.0)
        state.ready(0, 78, 0, 0.0)
    error = error_of(state.take())
    assert isinstance(error, WorkerDied)
    assert str(error) == (
        "Worker 0 (pid 77, cpu) died with SIGKILL while running this item alone (attempt 3 of 3). "
        "Often the kernel's out-of-memory killer: lower batch_size if this repeats."
    )
    assert state.unfinished == 0
    assert state.workers[0].restarts == 3


def test_an_item_that_survives_a_later_attempt_tells_how_many_it_took() -> None:
    state = pool(items=1)
    state.died(0, 1, "exit status 3", 0.0)
    state.ready(0, 2, 0, 0.0)
    answer(state, 0)
    assert delivered(state.take()) == [(0, 2)]


def test_an_idle_worker_that_dies_is_replaced() -> None:
    state = pool()
    state.take()
    state.died(0, 1, "SIGKILL", 0.0)
    assert state.take() == [StartWorker(0, "cpu")]


def test_deaths_at_the_start_break_the_pool_after_so_many_without_a_success() -> None:
    state = PoolState(["cpu"] * 2, batch_size=1, retries=1)
    state.start()
    for _ in range(3):
        state.died(0, 9, "exit status 9", 0.0)
    state.ready(1, 10, 0, 0.0)
    state.died(1, 10, "SIGKILL", 0.0)  # not at its start
    assert not [c for c in state.take() if isinstance(c, Broken)]
    for _ in range(4):
        state.died(0, 9, "exit status 9", 0.0)
    (broken,) = [c for c in state.take() if isinstance(c, Broken)]
    assert str(broken.error) == "Worker 0 (pid 9, cpu) died with exit status 9 while loading the net."


def test_a_worker_that_cannot_load_the_net_breaks_the_pool() -> None:
    state = pool()
    state.take()
    error = ValueError("no net")
    state.failed(error)
    assert state.take() == [Broken(error)]


def test_an_item_alone_that_takes_too_long_costs_its_worker_and_nothing_else() -> None:
    state = pool(items=2, batch_size=1, item_timeout=3.0)
    state.take()
    assert state.next_time() == 3.0
    state.ticked(2.9)
    assert state.take() == []
    state.ticked(3.0)
    kill, timed_out = state.take()
    assert kill == KillWorker(0)
    error = error_of([timed_out])
    assert isinstance(error, ItemTimeout)
    assert str(error) == "Worker 0 (pid 100) took longer than 3.0 s for it."
    assert state.workers[0].state == "draining"
    state.answered(0, [ItemDone(0, "late", None, 3.1)], NO_TIMING, 3.1)  # its answer was on the way
    state.died(0, 100, "SIGKILL", 3.1)
    state.ready(0, 101, 0, 4.0)
    assert sent(state.take()) == [(0, [1])]
    answer(state, 0)
    assert delivered(state.take()) == [(1, 1)]


def test_a_batch_has_the_time_of_all_its_items_and_then_each_shows_alone_whether_it_is_slow() -> None:
    state = pool(items=2, item_timeout=3.0)
    state.take()
    assert state.next_time() == 6.0
    state.ticked(6.0)
    assert state.take() == [KillWorker(0)]
    state.died(0, 100, "SIGKILL", 6.0)
    state.ready(0, 101, 0, 6.0)
    assert sent(state.take()) == [(0, [0]), (0, [1])]
    answer(state, 0, 8.0)
    assert state.next_time() == 11.0, "its time begins when the one before it is done"
    state.ticked(11.0)
    assert [c.item.number for c in state.take() if isinstance(c, Deliver) and c.error] == [1]


def test_a_worker_that_tells_its_step_loses_only_the_item_that_hangs() -> None:
    state = pool(items=6, batch_size=4, item_timeout=3.0)
    state.take()
    state.stepped(0, (0,), 1.0)
    state.stepped(0, (1,), 2.0)
    assert state.next_time() == 5.0
    state.ticked(5.0)
    assert delivered(state.take()) == [(1, 1)]
    state.died(0, 100, "SIGKILL", 5.0)
    state.ready(0, 101, 0, 5.0)
    assert sent(state.take()) == [(0, [0, 2, 3])]
    state.stepped(0, (0, 2, 3), 6.0)  # the forward of all
    assert state.next_time() == 15.0


def test_a_worker_retires_after_so_many_items_and_takes_no_more_than_those() -> None:
    state = pool(items=7, batch_size=2, max_items_per_worker=3)
    assert sent(state.take()) == [(0, [0, 1]), (0, [2])]
    answer(state, 0)
    assert sent(state.take()) == []
    answer(state, 0)
    *_, retire = state.take()
    assert retire == RetireWorker(0)
    state.died(0, 100, "exit status 0", 0.0)
    assert state.take() == [StartWorker(0, "cpu")]
    state.ready(0, 101, 0, 0.0)
    assert sent(state.take()) == [(0, [3, 4]), (0, [5])]


def test_a_batch_that_does_not_pickle_is_sent_item_by_item_and_one_that_does_not_alone_is_an_error() -> None:
    state = pool(items=2)
    state.take()
    state.refused(0, TypeError("cannot pickle"), 0.0)
    assert sent(state.take()) == [(0, [0]), (0, [1])]
    answer(state, 0)
    state.take()
    state.refused(0, TypeError("cannot pickle"), 0.0)
    assert str(error_of(state.take())) == "cannot pickle"


def test_abandoned_items_are_dropped_and_those_that_run_are_answered_but_not_delivered_or_repeated() -> None:
    state = pool(workers=2, items=9, batch_size=1)
    state.add(["other"], "other job", 0.0)
    state.take()
    state.abandon("job")
    assert state.unfinished == 5
    answer(state, 0)
    state.died(1, 101, "SIGKILL", 0.0)
    assert sent(state.take()) == [(0, [9])]
    answer(state, 0)
    answer(state, 0)
    assert delivered(state.take()) == [(9, 1)]
    assert state.unfinished == 0


def test_a_batch_that_was_not_sent_is_taken_back_also_from_behind_another() -> None:
    state = pool(items=4)
    first, second = [command for command in state.take() if isinstance(command, SendBatch)]
    state.unsent(0, second.items, TypeError("cannot pickle"), 0.0)
    (alone,) = [command for command in state.take() if isinstance(command, SendBatch)]
    assert [item.number for item in alone.items] == [2]
    state.unsent(0, alone.items, TypeError("cannot pickle"), 0.0)
    assert str(error_of(state.take())) == "cannot pickle"
    state.unsent(0, first.items, TypeError("cannot pickle"), 0.0)
    assert [item.number for batch in state.workers[0].queue for item in batch.items] == [3, 0]


def test_a_device_that_ran_out_of_memory_takes_smaller_batches_also_after_a_restart() -> None:
    state = pool(workers=2, items=60, batch_size=8)
    state.take()
    answer(state, 0, timing=Timing(0, 0.0, 4))
    assert [len(numbers) for worker, numbers in sent(state.take()) if worker == 0] == [4]
    state.died(0, 100, "exit status 1", 0.0)
    state.ready(0, 110, 0, 0.0)
    # The batch of 8 that ran is made again, in parts that fit the device.
    assert [len(numbers) for worker, numbers in sent(state.take()) if worker == 0] == [4, 4]
    answer(state, 1)
    answer(state, 1)
    assert [len(numbers) for worker, numbers in sent(state.take()) if worker == 1] == [4, 8], "a part, then whole ones"


def test_the_batch_size_is_found_by_trying_and_settles() -> None:
    state = pool(batch_size=None)
    state.take()
    tried: list[int] = []
    for _ in range(120):
        state.add(range(16), "job", 0.0)
        while state.workers[0].queue:
            extent = len(state.workers[0].queue[0].items)
            tried.append(extent)
            seconds = 0.01 + (0.001 if extent <= 4 else 0.1)
            answer(state, 0, timing=Timing(extent, seconds, 64))
    assert state.batch_size == 4
    assert set(tried[-40:]) == {4}
    assert {1, 2, 4, 8} <= set(tried)


def test_the_first_forward_of_a_size_in_each_worker_is_no_trial() -> None:
    """However many workers there are: all have to make sessions and buffers for it."""
    state = pool(workers=6, batch_size=None)
    state.take()
    ran: set[tuple[int, int]] = set()
    for _ in range(60):
        state.add(range(6 * 64), "job", 0.0)
        for worker in state.workers:
            extent = len(worker.queue[0].items)
            seconds = 0.01 if (worker.number, extent) in ran else 9.0 * extent
            ran.add((worker.number, extent))
            answer(state, worker.number, timing=Timing(extent, seconds, 64))
    assert state.batch_size == 64


def test_counters() -> None:
    state = pool(items=8)
    answer(state, 0, now=1.0)
    answer(state, 0, now=2.0)
    assert state.rate(3.0) == pytest.approx(4 / 2.0)
    assert state.rate(60.0) == 0.0
    assert state.batch_sizes == {2: 4}
    assert state.capacity == 1 * 3 * 2
