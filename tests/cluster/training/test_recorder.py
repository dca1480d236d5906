from __future__ import annotations

from typing import Any

import pytest

from pycaffe.cluster import Run
from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.messages import Checkpoint
from pycaffe.cluster.training.data_position import Place
from pycaffe.cluster.training.exchange import Traffic
from pycaffe.cluster.training.recorder import Recorder, first_batch
from pycaffe.cluster.training.worker_solver import StepReport


def report(rank: int, clock: int, loss: float, *, generation: int = 1, workers: int = 2, **more: Any) -> StepReport:
    batch = clock * workers + rank
    return StepReport(
        generation, rank, clock, clock + 1, loss, pulled_at=1.0, pushed_at=2.0, batches=(batch,),
        place=Place(batch + 1, {"data": batch + 1}), traffic=Traffic(10, 20, more.pop("refused", 0)), **more,
    )  # fmt: skip


@pytest.fixture
def progress() -> list[tuple[int, float]]:
    return []


@pytest.fixture
def recorder(progress: list[tuple[int, float]]) -> Recorder:
    found = Recorder(Run(iter=0), Place(), lambda iteration, loss: progress.append((iteration, loss)))
    found.begin(1, 2, 0)
    return found


def test_an_iteration_is_done_when_all_have_told_their_loss(
    recorder: Recorder, progress: list[tuple[int, float]]
) -> None:
    for rank, clock, loss in [(0, 0, 1.0), (0, 1, 3.0), (1, 0, 2.0), (1, 1, 5.0)]:
        recorder.add(report(rank, clock, loss, refused=int(rank == 1)))
    assert progress == [(1, 1.5), (2, 4.0)]
    recorder.finish(2)
    run = recorder.run
    assert (run.iter, run.losses, run.bytes_pushed, run.bytes_pulled) == (2, [1.5, 4.0], 40, 80)
    assert run.refused == {1: 2}
    assert [(e.kind, e.worker, e.clock, e.time, e.batches) for e in run.trace[:2]] == [
        ("pull", 0, 0, 1.0, ()), ("push", 0, 0, 2.0, (0,)),
    ]  # fmt: skip


def test_in_async_reports_are_counted_as_they_come(progress: list[tuple[int, float]]) -> None:
    recorder = Recorder(Run(iter=5), Place(), lambda *done: progress.append(done), by_arrival=True)
    recorder.begin(1, 2, 5)
    for clock, loss in enumerate([1.0, 2.0, 3.0, 4.0]):
        recorder.add(report(0, clock, loss))
    recorder.add(report(1, 0, 5.0))
    assert progress == [(6, 1.5), (7, 3.5)]
    recorder.finish(8)
    assert recorder.run.losses == [1.5, 3.5, 5.0]
    assert progress[2:] == [(8, 5.0)]  # at the end: one worker of the two never told


def test_what_a_new_generation_does_again_counts_once(recorder: Recorder, progress: list[tuple[int, float]]) -> None:
    for clock in range(3):
        recorder.add(report(0, clock, 1.0))
        recorder.add(report(1, clock, 1.0))
    recorder.begin(2, 1, 1)  # of one worker, from iteration 1
    recorder.add(report(1, 3, 9.0))  # late, of a step that is done again
    recorder.add(report(0, 1, 7.0, generation=2, workers=1))
    recorder.finish(2)
    assert recorder.run.losses == [1.0, 7.0]
    assert progress[-1] == (2, 7.0)


def test_places_are_kept_from_the_last_checkpoint_on(recorder: Recorder) -> None:
    for clock in range(4):
        recorder.add(report(0, clock, 1.0, run_state={"losses": clock} if clock % 2 else None))
        recorder.add(report(1, clock, 1.0))
    assert recorder.place_before(0) == Place()
    assert recorder.place_before(5) == Place(5, {"data": 5})
    assert recorder.run_state_at(1) is None
    assert recorder.run_state_at(3) == {"losses": 1}
    checkpoint = Checkpoint(1, 3, 0, (3, 3), Assignment(2), ())
    assert first_batch(checkpoint) == 6
    recorder.forget_before(checkpoint)
    assert recorder.place_before(100) == Place(8, {"data": 8})
    assert recorder.place_before(6) == Place(6, {"data": 6})
    assert recorder.run_state_at(3) == {"losses": 1}
    with pytest.raises(ValueError, match="max"):
        recorder.place_before(5)
