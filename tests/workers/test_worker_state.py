from __future__ import annotations

import pytest

from pycaffe.errors import PoolError
from pycaffe.workers.batches import Batch, Item
from pycaffe.workers.worker_state import TRANSITIONS, WorkerState


def test_the_life_of_a_worker() -> None:
    worker = WorkerState(3, "cpu")
    states = []
    for event in ("started", "ready", "sent", "sent", "answered", "emptied", "retired", "died", "started"):
        worker.change(event)  # type: ignore[arg-type]
        states.append(worker.state)
    assert states == ["starting", "idle", "busy", "busy", "busy", "idle", "draining", "dead", "starting"]


def test_a_worker_may_die_in_every_state_but_dead() -> None:
    assert {state for state, event in TRANSITIONS if event == "died"} == {"starting", "idle", "busy", "draining"}


@pytest.mark.parametrize(("state", "event"), [("dead", "died"), ("idle", "ready"), ("draining", "sent")])
def test_what_is_not_in_the_table_raises(state: str, event: str) -> None:
    with pytest.raises(PoolError, match=f"Worker 3 is '{state}', where '{event}' cannot happen"):
        WorkerState(3, "cpu", state=state).change(event)  # type: ignore[arg-type]


def test_the_items_it_works_on_are_those_it_told_or_its_oldest_batch() -> None:
    items = [Item(number, 0, None, "job", 0.0) for number in range(4)]
    worker = WorkerState(0, "cpu")
    assert worker.step_items() == []
    worker.queue.extend([Batch(items[:3]), Batch(items[3:])])
    assert worker.step_items() == items[:3]
    worker.step = (1,)
    assert worker.step_items() == [items[1]]
