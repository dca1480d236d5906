from __future__ import annotations

from collections.abc import Iterable

import pytest

from pycaffe.workers.batches import Batch, Item, Line

INFINITY = float("inf")


def items(numbers: Iterable[int], owner: str = "job", added: float = 0.0) -> list[Item]:
    return [Item(number, 0, f"value {number}", owner, added) for number in numbers]


def numbers(batch: Batch | None) -> list[int] | None:
    return None if batch is None else [item.number for item in batch.items]


def line(count: int, max_wait: float = 0.0) -> Line:
    made = Line(max_wait)
    made.add(items(range(count)))
    return made


def test_an_idle_worker_takes_its_share_of_a_small_rest_and_a_busy_one_nothing() -> None:
    waiting = line(6)
    assert numbers(waiting.take(8, idle=False, workers=2, now=0)) is None
    assert numbers(waiting.take(8, idle=True, workers=2, now=0)) == [0, 1, 2]
    assert numbers(waiting.take(2, idle=False, workers=2, now=0)) == [3, 4]
    assert len(waiting) == 1


def test_items_wait_for_others_but_no_longer_than_max_wait() -> None:
    waiting = line(3, max_wait=0.5)
    waiting.add(items([3], added=0.4))
    assert waiting.due() == 0.5
    assert waiting.take(8, idle=True, workers=1, now=0.4) is None
    assert numbers(waiting.take(8, idle=True, workers=1, now=0.5)) == [0, 1, 2, 3]
    assert waiting.due() == INFINITY


def test_a_whole_batch_waits_for_nothing() -> None:
    assert numbers(line(5, max_wait=9).take(4, idle=True, workers=1, now=0)) == [0, 1, 2, 3]


def test_hurried_items_wait_for_no_others_and_later_ones_do_again() -> None:
    waiting = line(2, max_wait=9)
    waiting.hurry()
    assert numbers(waiting.take(8, idle=True, workers=1, now=0)) == [0, 1]
    waiting.add(items([2], added=1))
    assert waiting.due() == 10


def test_batches_that_run_again_come_first_in_order_whole_and_without_abandoned_items() -> None:
    waiting = line(4)
    first, second = Batch(items([10, 11, 12]), 1), Batch(items([13]))
    first.items[1].abandoned = True
    waiting.again([first, second, Batch([])])
    assert len(waiting) == 4 + 3
    assert numbers(waiting.take(4, idle=False, workers=1, now=0)) == [10, 12]
    assert numbers(waiting.take(4, idle=False, workers=1, now=0)) == [13]
    assert numbers(waiting.take(4, idle=False, workers=1, now=0)) == [0, 1, 2, 3]


def test_a_batch_too_large_for_a_worker_goes_in_parts_with_its_deaths() -> None:
    waiting = line(0)
    waiting.again([Batch(items(range(5)), 1)])
    parts = [waiting.take(2, idle=True, workers=1, now=0) for _ in range(3)]
    assert [numbers(part) for part in parts] == [[0, 1], [2, 3], [4]]
    assert {part.deaths for part in parts if part is not None} == {1}


def test_the_items_of_one_owner_can_be_dropped() -> None:
    waiting = line(2)
    waiting.add(items([2, 3], owner="other"))
    waiting.again([Batch([*items([4]), *items([5], owner="other")]), Batch(items([6]))])
    assert waiting.abandon("job") == 4
    assert [numbers(waiting.take(9, idle=True, workers=1, now=0)) for _ in range(2)] == [[5], [2, 3]]


@pytest.mark.parametrize(("count", "halves"), [(5, [3, 2]), (2, [1, 1]), (1, [1])])
def test_halves_are_suspect(count: int, halves: list[int]) -> None:
    split = Batch(items(range(count))).split()
    assert [len(half.items) for half in split] == halves
    assert [half.deaths for half in split] == [1] * len(halves)
