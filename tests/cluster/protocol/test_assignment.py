"""Every batch once, whoever comes and goes."""

from __future__ import annotations

import random

from pycaffe.cluster.protocol.assignment import Assignment, CountedSteps


def test_the_batches_of_a_step_follow_each_other() -> None:
    assert [Assignment(3).batches(rank, 0) for rank in range(3)] == [[0], [1], [2]]
    assert [Assignment(3).batches(rank, 2) for rank in range(3)] == [[6], [7], [8]]


def test_iter_size_reads_as_one_process_with_the_joined_batch_does() -> None:
    assignment = Assignment(2, iter_size=3)
    assert [assignment.batches(rank, 0) for rank in range(2)] == [[0, 2, 4], [1, 3, 5]]
    assert assignment.batches(1, 1) == [7, 9, 11]


def test_those_who_stay_take_what_is_left() -> None:
    # Of 0 .. 8 rank 0 has read 0, 3, 6; rank 1 has read 1; rank 2 nothing.
    after = Assignment(3).after((3, 1, 0), 2)
    assert after == Assignment(2, first=2, done=(3, 6))
    assert [after.batches(rank, clock)[0] for clock in range(4) for rank in range(2)] == [2, 4, 5, 7, 8, 9, 10, 11]


def test_nothing_is_read_twice_or_left_out() -> None:
    rng = random.Random(4)
    for _ in range(200):
        workers, iter_size = rng.randint(1, 4), rng.randint(1, 2)
        assignment, read = Assignment(workers, iter_size), set()
        for _ in range(5):
            clocks = [rng.randint(0, 4) for _ in range(assignment.workers)]
            for rank, clock in enumerate(clocks):
                for step in range(clock):
                    batches = set(assignment.batches(rank, step))
                    assert len(batches) == iter_size
                    assert not batches & read
                    read |= batches
            assignment = assignment.after(clocks, rng.randint(1, 4))
            assert read == {*range(assignment.first), *assignment.done}
            assert all(batch > assignment.first for batch in assignment.done)


def test_a_long_run_is_no_long_list() -> None:
    after = Assignment(8).after((1_000_000,) * 7 + (1_000_002,), 4)
    assert after == Assignment(4, first=8_000_000, done=(8_000_007, 8_000_015))


def test_counted_steps_know_their_batches() -> None:
    steps = CountedSteps(1, Assignment(2, iter_size=2, first=1, done=(3,)), (0, 1), (2, 2))
    assert steps.batches() == [1, 4, 6, 8, 7, 9]
