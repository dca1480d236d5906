"""The coordinator, event by event; test_run_properties.py has all orders of them."""

from __future__ import annotations

from typing import Any

import pytest

from pycaffe.cluster.protocol.assignment import Assignment, CountedSteps
from pycaffe.cluster.protocol.commands import (
    Acknowledge,
    CopyAt,
    Fail,
    Fence,
    Finish,
    Freeze,
    RestoreServer,
    RunWorker,
    StartServer,
    StartWorker,
    StopWorker,
    Taken,
)
from pycaffe.cluster.protocol.coordinator import Coordinator
from pycaffe.cluster.protocol.messages import Checkpoint, parse_mode
from pycaffe.cluster.protocol.run_state import RunConfig
from pycaffe.errors import SolverError


def initial(workers: int = 2, iteration: int = 0) -> Checkpoint:
    return Checkpoint(0, iteration, iteration, (0,) * workers, Assignment(workers), ("part 0", "part 1"))


def new(mode: str = "sync", workers: int = 2, begin: Checkpoint | None = None, **options: Any) -> Coordinator:
    name, *staleness = mode.split()
    config = RunConfig(workers, 2, parse_mode(name, *map(int, staleness)), **{"max_iter": 10, **options})
    coordinator = Coordinator(config, begin or initial(workers))
    coordinator.start()
    return coordinator


def running(mode: str = "sync", workers: int = 2, **options: Any) -> Coordinator:
    """Servers are incarnations 1 and 2, workers 3 and 4 and so on."""
    coordinator = new(mode, workers, **options)
    for server in range(2):
        coordinator.server_ready(server, 1 + server)
        coordinator.restored(server, 1)
    for incarnation in coordinator.incarnations:
        coordinator.worker_ready(incarnation)
    coordinator.take()
    return coordinator


def cut(coordinator: Coordinator, seen: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Answers what a cut asks for; returns its clocks."""
    (first, second) = [command for command in coordinator.take() if isinstance(command, Freeze)]
    for command in (first, second):
        coordinator.frozen(command.server, command.generation, command.cut, seen[command.server])
    copies = [command for command in coordinator.take() if isinstance(command, CopyAt)]
    assert [command.server for command in copies] == [0, 1]
    for command in copies:
        coordinator.part_copied(
            command.server, command.generation, command.cut, command.clocks, f"copy {command.server}"
        )
    return copies[0].clocks


def test_a_run_begins() -> None:
    coordinator = new()
    assert coordinator.take() == [StartServer(0, 1), StartServer(1, 2), StartWorker(3, 0), StartWorker(4, 1)]
    coordinator.server_ready(0, 1)
    assert coordinator.take() == [RestoreServer(0, 1, 1, (3, 4), 0, (0, 0), "part 0")]
    coordinator.worker_ready(3)
    coordinator.restored(0, 1)
    assert coordinator.take() == [], "a server is missing"
    coordinator.server_ready(1, 2)
    coordinator.restored(1, 1)
    _, run = coordinator.take()
    assert run == RunWorker(3, 1, 0, 0, 0, 10, Assignment(2))
    coordinator.worker_ready(4)
    assert coordinator.take() == [RunWorker(4, 1, 1, 0, 0, 10, Assignment(2))]


def test_a_tick_commands_again_what_was_not_answered() -> None:
    coordinator = running()
    coordinator.progress(3, 1, 0)
    coordinator.tick()
    assert coordinator.take() == [RunWorker(4, 1, 1, 0, 0, 10, Assignment(2))]
    coordinator.progress(4, 1, 0)
    coordinator.tick()
    assert coordinator.take() == []


def test_a_dead_workers_successor_begins_where_all_pieces_can_once_all_servers_have_heard() -> None:
    coordinator = running()
    coordinator.worker_died(4)
    assert coordinator.take() == [StartWorker(5, 1), Fence(0, 1, 1, 1, 5), Fence(1, 2, 1, 1, 5)]
    coordinator.worker_ready(5)
    coordinator.fenced(1, 1, 1, 5, 7)
    coordinator.fenced(1, 1, 1, 5, 9)  # the answer to a repeat counts what the successor did already
    assert coordinator.take() == []
    coordinator.fenced(0, 1, 1, 5, 6)
    assert coordinator.take() == [RunWorker(5, 1, 1, 0, 6, 10, Assignment(2))]
    coordinator.worker_died(4)
    assert coordinator.take() == [], "that one is buried"
    assert coordinator.restarts == 1


def test_a_dead_server_takes_all_back_to_the_last_checkpoint() -> None:
    coordinator = running(checkpoint_interval=3)
    for server in range(2):
        coordinator.part_copied(server, 1, -3, (3, 3), f"copy {server}")
    acknowledged, _, taken = coordinator.take()
    assert acknowledged == Acknowledge(0, 1, 1, -3)
    counted = (CountedSteps(1, Assignment(2), (0, 0), (3, 3)),)
    checkpoint = Checkpoint(1, 3, 0, (3, 3), Assignment(2), ("copy 0", "copy 1"), counted)
    assert taken == Taken(checkpoint)
    coordinator.part_copied(0, 1, -6, (6, 6), "half of one")
    coordinator.take()
    coordinator.server_died(1, 2)
    assert coordinator.take() == [StartServer(1, 5), RestoreServer(0, 1, 2, (3, 4), 0, (3, 3), "copy 0")]
    coordinator.part_copied(1, 1, -6, (6, 6), "too late")
    coordinator.server_ready(1, 5)
    assert coordinator.take() == [RestoreServer(1, 5, 2, (3, 4), 0, (3, 3), "copy 1")]
    coordinator.restored(0, 2)
    coordinator.restored(1, 2)
    assert [(command.incarnation, command.clock) for command in coordinator.take()] == [(3, 3), (4, 3)]  # type: ignore[union-attr]
    assert coordinator.checkpoint == checkpoint
    for server in range(2):
        coordinator.part_copied(server, 2, -6, (6, 6), f"copy {server}")
    assert coordinator.checkpoint.counted == (*counted, CountedSteps(2, Assignment(2), (3, 3), (6, 6)))


def test_sync_ends_with_the_servers_last_copy() -> None:
    coordinator = running()
    for server in (1, 0):
        coordinator.part_copied(server, 1, -10, (10, 10), f"copy {server}")
    *_, taken, finish = coordinator.take()
    assert isinstance(taken, Taken)
    assert isinstance(finish, Finish)
    assert finish.checkpoint.iteration == 10
    assert finish.checkpoint.parts == ("copy 0", "copy 1")
    coordinator.worker_died(3)
    coordinator.tick()
    assert coordinator.take() == []


def test_in_sync_a_cut_is_a_version() -> None:
    coordinator = running()
    coordinator.checkpoint_now()
    assert cut(coordinator, [(3, 2), (4, 3)]) == (4, 4)
    *_, taken = coordinator.take()
    assert isinstance(taken, Taken)
    assert taken.checkpoint.iteration == 4


def test_async_cuts_where_the_servers_are_and_ends_by_the_sum_of_all_steps() -> None:
    coordinator = running("async", checkpoint_interval=5)
    coordinator.progress(3, 1, 9)
    assert coordinator.take() == []
    coordinator.progress(4, 1, 1)  # 10 pushes of two workers: iteration 5
    assert cut(coordinator, [(9, 1), (8, 2)]) == (9, 2)
    assert coordinator.checkpoint.iteration == 5
    coordinator.take()
    coordinator.progress(3, 1, 18)
    assert coordinator.take() == []
    coordinator.progress(4, 1, 2)
    assert cut(coordinator, [(19, 2), (18, 2)]) == (19, 2)
    *_, finish = coordinator.take()
    assert isinstance(finish, Finish)
    assert finish.checkpoint.iteration == 10


def test_a_worker_joins_at_a_checkpoint() -> None:
    coordinator = running("ssp 2", max_workers=3)
    coordinator.join()
    assert coordinator.take() == [StartWorker(5, 2)]
    coordinator.join()
    assert coordinator.take() == [], "three are the most"
    coordinator.worker_ready(5)
    assert cut(coordinator, [(3, 1), (2, 2)]) == (3, 2)
    restores = [command for command in coordinator.take() if isinstance(command, RestoreServer)]
    assert [(command.incarnations, command.base, command.clocks) for command in restores] == [
        ((3, 4, 5), 2, (0,) * 3)
    ] * 2
    for server in range(2):
        coordinator.restored(server, 2)
    runs = [command for command in coordinator.take() if isinstance(command, RunWorker)]
    assert [(run.rank, run.end) for run in runs] == [(0, 8), (1, 8), (2, 8)]
    # Of two workers' batches 0, 2, 4 and 1, 3 are read.
    assert {run.assignment for run in runs} == {Assignment(3, first=5)}


def test_a_worker_leaves_at_a_checkpoint_and_the_last_take_its_place() -> None:
    coordinator = running("sync", workers=3, min_workers=2)
    coordinator.leave(0)
    coordinator.leave()
    assert cut(coordinator, [(2, 2, 2), (2, 2, 1)]) == (2, 2, 2)
    commands = coordinator.take()
    assert StopWorker(3) in commands
    assert StopWorker(5) not in commands, "two are the least"
    assert coordinator.incarnations == (4, 5)
    with pytest.raises(SolverError, match="No worker has rank 2; there are 2"):
        coordinator.leave(2)


def test_where_there_is_no_room_the_run_goes_on_with_fewer() -> None:
    coordinator = running("sync", min_workers=1)
    coordinator.worker_died(3)
    coordinator.worker_cannot_start(5)
    assert coordinator.incarnations == (4,)
    assert coordinator.generation == 2
    coordinator.take()
    coordinator.worker_died(4)
    coordinator.worker_cannot_start(6)
    coordinator.take()
    coordinator.tick()
    assert StartWorker(7, 0) in coordinator.take(), "one is the least: it is tried again"


def test_stop_ends_with_a_checkpoint() -> None:
    coordinator = running("ssp 2")
    coordinator.stop()
    assert cut(coordinator, [(2, 1), (1, 1)]) == (2, 1)
    *_, finish = coordinator.take()
    assert isinstance(finish, Finish)
    assert finish.checkpoint.iteration == 1


def test_deaths_without_end_end_the_run() -> None:
    coordinator = running(max_deaths=2)
    for incarnation in (3, 5, 6):
        coordinator.worker_died(incarnation)
    *_, fail = coordinator.take()
    assert isinstance(fail, Fail)
    assert str(fail.error) == "3 processes died with no step in between, at last the worker of rank 0."
    again = running(max_deaths=2)
    for incarnation, iteration in ((3, 1), (5, 2), (6, 3)):
        again.worker_died(incarnation)
        again.progress(4, 1, 2 * iteration)
    assert not again.finished


def test_an_error_ends_the_run_once() -> None:
    coordinator = running()
    error = SolverError("the net is wrong")
    coordinator.fail(error)
    coordinator.fail(error)
    assert coordinator.take() == [Fail(error)]


def test_a_run_that_is_over_does_not_begin() -> None:
    begin = initial(iteration=10)
    assert new(begin=begin).take() == [Finish(begin)]


def test_a_snapshot_of_other_workers_is_dealt_out_anew() -> None:
    coordinator = new(workers=3, begin=initial(workers=1, iteration=4))
    coordinator.server_ready(0, 1)
    restore = coordinator.take()[-1]
    assert isinstance(restore, RestoreServer)
    assert (restore.base, restore.clocks) == (4, (0, 0, 0))


@pytest.mark.parametrize("bounds", [{"min_workers": 3}, {"max_workers": 1}, {"min_workers": 0}])
def test_bounds_of_workers(bounds: dict[str, int]) -> None:
    with pytest.raises(SolverError, match="min_workers, workers and max_workers should ascend from 1"):
        new(**bounds)
