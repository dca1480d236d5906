"""Copies that shard servers make for checkpoints, and runs that go on from them."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.cluster.protocol.messages import Stale
from tests.cluster.protocol.server_group import ServerGroup
from tests.cluster.protocol.test_shard_server import INFOS, TYPES, numbers, solver, values_of


def test_a_run_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    for solver_type in TYPES:
        param, values = solver(solver_type, stepvalue=[1, 3]), numbers(0)
        group = ServerGroup(param, values, infos=INFOS, interval=2)
        for clock in range(5):
            for rank in range(2):
                group.push(rank, clock, numbers(clock, rank))
        expected = values_of(group.pull(0, 5))
        parts = [group.copied[-2, server] for server in range(2)]
        assert [part.clocks for part in parts] == [(2, 2)] * 2
        group.restore(2, parts, (2, 2))
        for clock in range(2, 5):
            for rank in range(2):
                group.push(rank, clock, numbers(clock, rank))
        for value, want in zip(values_of(group.pull(1, 5)), expected):
            np.testing.assert_array_equal(value, want)


def test_sync_copies_by_the_interval_and_keeps_parts_until_they_are_released() -> None:
    group = ServerGroup(solver(max_iter=7), numbers(0), workers=1, infos=INFOS, interval=2)
    for clock in range(7):
        group.push(0, clock, numbers(clock))
    assert sorted({cut for cut, _ in group.copied}) == [-7, -6, -4, -2]
    assert [command.part.cut for command in group.servers[0].repeat()] == [-6, -7]
    group.servers[0].release(0, -7)
    group.servers[0].release(1, -6)
    assert [command.part.cut for command in group.servers[0].repeat()] == [-7]


@pytest.mark.parametrize("mode", ["ssp 3", "async"])
def test_a_cut_holds_exactly_the_pushes_below_it(mode: str) -> None:
    param, values = solver(), numbers(0)
    group = ServerGroup(param, values, mode=mode, infos=INFOS)
    group.push(0, 0, numbers(1))
    group.push(0, 1, numbers(2), only=1)
    group.push(1, 0, numbers(3), only=0)
    assert [server.freeze(1, 1) for server in group.servers] == [(1, 1), (2, 0)]
    assert group.servers[0].freeze(1, 1) == (1, 1), "asked again"
    assert isinstance(group.pull(0, 1), list), "pulls go on"
    group.push(0, 2, numbers(4), only=1)  # newer than what was seen: it waits
    group.push(0, 1, numbers(2), only=0)
    for server in group.servers:
        server.cut(1, 1, (2, 1))
    group.obey()
    assert (1, 0) in group.copied, "server 0 had it all"
    assert (1, 1) not in group.copied
    group.push(1, 0, numbers(3), only=1)
    group.push(1, 1, numbers(5))
    group.push(0, 2, numbers(4), only=0)
    kept, _ = group.state(1)
    exact = ServerGroup(param, values, mode=mode, infos=INFOS)
    for server, order in ((0, [(0, 0, 1), (1, 0, 3), (0, 1, 2)]), (1, [(0, 0, 1), (0, 1, 2), (1, 0, 3)])):
        for rank, clock, key in order:
            exact.push(rank, clock, numbers(key), only=server)
    for ours, want in zip(kept, values_of(exact.pull(0, 0))):
        np.testing.assert_array_equal(ours, want)
    assert [server.freeze(1, 1) for server in group.servers] == [None, None], "that cut is over"
    for server, order in ((0, [(1, 1, 5), (0, 2, 4)]), (1, [(0, 2, 4), (1, 1, 5)])):
        for rank, clock, key in order:
            exact.push(rank, clock, numbers(key), only=server)
    for ours, want in zip(values_of(group.pull(0, 3)), values_of(exact.pull(0, 3))):
        np.testing.assert_array_equal(ours, want)  # what was held back is counted


def test_a_generation_ends_all_that_waits() -> None:
    group = ServerGroup(solver(), numbers(0), infos=INFOS, interval=1)
    for rank in range(2):
        group.push(rank, 0, numbers(rank))
    group.push(0, 1, numbers(2))
    assert group.pull(0, 2) is None
    group.servers[0].freeze(1, 1)
    group.restore(2, [group.copied[-1, server] for server in range(2)], (1, 1))
    assert group.pulled(0, 2) == Stale(2)
    assert isinstance(group.pull(1, 1), list)
    assert group.servers[0].repeat() == []
    before = group.servers[0].generation
    group.restore(1, [group.copied[-1, server] for server in range(2)], (0, 0))
    assert group.servers[0].generation == before, "an order that was late"
