from __future__ import annotations

import random

from pycaffe.workers.schedule import Schedule, Task


def schedule(batch_size: int = 2, retries: int = 1, workers: int = 2, items: int = 0) -> Schedule:
    made = Schedule(batch_size, retries)
    for worker in range(workers):
        made.start(worker)
    for number in range(items):
        made.add(Task(number, number, f"item {number}", b""))
    return made


def numbers(orders: list[tuple[int, list[Task]]]) -> list[tuple[int, list[int]]]:
    return [(worker, [task.number for task in batch]) for worker, batch in orders]


def test_each_worker_gets_a_batch_before_any_gets_a_second() -> None:
    assert numbers(schedule(items=9).assign()) == [(0, [0, 1]), (1, [2, 3]), (0, [4, 5]), (1, [6, 7])]


def test_an_idle_worker_takes_its_share_of_a_small_rest_and_a_busy_one_nothing() -> None:
    books = schedule(batch_size=8, items=6)
    assert numbers(books.assign()) == [(0, [0, 1, 2]), (1, [3, 4])]
    books.finished(1)
    assert numbers(books.assign()) == [(1, [5])]


def test_no_worker_no_orders() -> None:
    assert schedule(workers=0, items=3).assign() == []


def test_room_is_for_what_workers_can_hold_and_shrinks_with_what_is_unfinished() -> None:
    books = schedule(batch_size=3, items=5)
    assert books.room(workers=2) == 2 * 2 * 3 - 5
    books.assign()
    assert books.room(workers=2) == 7
    done = books.finished(0)
    assert books.room(workers=2) == 7 + len(done)


def test_answers_come_oldest_first() -> None:
    books = schedule(batch_size=1, workers=1, items=3)
    books.assign()
    assert [task.number for task in books.running(0)] == [0]
    assert [task.number for task in books.finished(0)] == [0]
    assert [task.number for task in books.running(0)] == [1]
    assert numbers(books.assign()) == [(0, [2])]


def test_items_of_a_batch_whose_worker_died_run_alone_and_those_behind_it_as_if_nothing_had_happened() -> None:
    books = schedule(batch_size=2, workers=1, items=6)
    assert numbers(books.assign()) == [(0, [0, 1]), (0, [2, 3])]
    assert books.died(0) == []
    assert books.unfinished == 6
    books.start(0)
    assert numbers(books.assign()) == [(0, [0]), (0, [1])]
    assert [task.attempts for task in books.finished(0)] == [1]
    books.finished(0)
    assert numbers(books.assign()) == [(0, [2, 3]), (0, [4, 5])]


def test_only_deaths_alone_count_and_the_last_one_gives_the_item_up() -> None:
    books = schedule(batch_size=2, retries=2, workers=1, items=2)
    books.assign()
    books.died(0)
    for _ in range(2):
        books.start(0)
        assert numbers(books.assign())[0] == (0, [0])
        assert books.died(0) == []
    books.start(0)
    assert numbers(books.assign())[0] == (0, [0])
    (given_up,) = books.died(0)
    assert (given_up.number, given_up.deaths) == (0, 3)
    assert books.unfinished == 1
    books.start(0)
    assert numbers(books.assign()) == [(0, [1])]


def test_an_idle_worker_that_dies_costs_nothing() -> None:
    books = schedule(workers=1)
    assert books.died(0) == []
    assert books.died(1) == [], "a worker that was never ready"
    assert books.unfinished == 0


def test_abandoned_items_are_dropped_and_those_that_run_are_answered_but_never_repeated() -> None:
    books = schedule(batch_size=1, workers=2, items=9)
    books.assign()
    books.abandon()
    assert books.unfinished == 4
    books.finished(0)
    books.died(1)
    assert books.unfinished == 1
    books.start(1)
    assert books.assign() == []


def test_whatever_dies_each_item_ends_once() -> None:
    chance = random.Random(5)
    for batch_size in (1, 3, 8):
        books = schedule(batch_size=batch_size, retries=2, workers=3, items=200)
        ended: list[int] = []
        sent: list[int] = []
        for _ in range(20_000):
            sent += [task.number for _, batch in books.assign() for task in batch]
            worker = chance.randrange(3)
            if chance.random() < 0.2:
                ended += [task.number for task in books.died(worker)]
                books.start(worker)
            elif books.running(worker):
                ended += [task.number for task in books.finished(worker)]
        assert sorted(ended) == list(range(200))
        assert books.unfinished == 0
        assert len(sent) < 200 * 4
