"""The simulation where the answer can be worked out by hand."""

from __future__ import annotations

import pytest
from cluster_simulation import Bucket, Cluster, Compression, MessageCosts, Straggling, Workload, simulate

ONE = Workload("one", 10, (Bucket(1e6, 0.1, 0.2),))
FREE = Cluster(1e15, latency=0.0, message_seconds=0.0, update_seconds_per_byte=0.0)


@pytest.mark.parametrize("mode", ["sync", "ssp", "async", "allreduce"])
def test_a_free_network_costs_nothing(mode: str) -> None:
    outcome = simulate(ONE, FREE, 4, servers=2, mode=mode)
    assert outcome.efficiency == pytest.approx(1.0)
    assert outcome.images_per_second == pytest.approx(4 * 10 / 0.3)


def test_one_server_apart_serves_one_after_the_other() -> None:
    # 1 MB at 10 MB/s is 0.1 s. Four answers one after the other: 0.4 s; the last worker then computes and pushes.
    cluster = Cluster(10e6, 0.0, 0.0, 0.0, servers_apart=True)
    outcome = simulate(ONE, cluster, 4, mode="sync")
    assert 10 * 4 / outcome.images_per_second == pytest.approx(0.4 + 0.3 + 0.1, rel=0.02)


def test_as_many_servers_as_workers_share_the_load() -> None:
    # All send to the first server first: the last has its three quarters of 1 MB after 0.1 s. Then it answers.
    outcome = simulate(ONE, Cluster(10e6, 0.0, 0.0, 0.0), 4, servers=4, mode="sync")
    assert 10 * 4 / outcome.images_per_second == pytest.approx(0.3 + 0.1 + 0.075, rel=0.02)


def test_every_bucket_is_on_all_servers() -> None:
    # Of each bucket half is with the other worker's server: 0.05 s. The upper one's travels beside the backward below.
    # Were the upper bucket on one server and the lower on the other, the last pushes would take 0.1 s.
    load = Workload("two", 10, (Bucket(1e6, 0.1, 0.2), Bucket(1e6, 0.1, 0.2)))
    outcome = simulate(load, Cluster(10e6, 0.0, 0.0, 0.0), 2, servers=2, mode="sync")
    assert 10 * 2 / outcome.images_per_second == pytest.approx(0.6 + 0.05 + 0.05, rel=0.02)


def test_a_small_layer_is_on_one_server() -> None:
    # Two layers of half the bytes, each too small to be cut: as one server for each.
    small = Workload("small", 10, (Bucket(8000.0, 0.1, 0.2, 2, (4000.0, 4000.0)),))
    outcome = simulate(small, Cluster(8e4, 0.0, 0.0, 0.0), 2, servers=2, mode="sync")
    assert 10 * 2 / outcome.images_per_second == pytest.approx(0.3 + 0.05 + 0.05, rel=0.02)


def test_a_ring_moves_each_byte_twice() -> None:
    # 2 * 3 steps of a quarter of 1 MB, at 10 MB/s, each with 1 ms of latency.
    outcome = simulate(ONE, Cluster(10e6, 0.001, 0.0, 0.0), 4, mode="allreduce")
    assert 10 * 4 / outcome.images_per_second == pytest.approx(0.3 + 6 * (0.025 + 0.001))
    assert outcome.bytes_per_step == pytest.approx(2 * 2 * 0.75 * 1e6)


def test_a_tree_moves_all_bytes_at_each_level() -> None:
    outcome = simulate(ONE, Cluster(10e6, 0.001, 0.0, 0.0), 4, mode="tree")
    assert 10 * 4 / outcome.images_per_second == pytest.approx(0.3 + 2 * 2 * (0.1 + 0.001))


def test_a_ring_waits_for_each_blob_and_two_trees_wait_less() -> None:
    # 64 workers: a ring has 2 * 63 steps of 1 ms, two trees 2 * 6, for each of four blobs; nearly no bytes.
    load = Workload("blobs", 10, (Bucket(4.0, 0.1, 0.2, blobs=4),))
    for trees, steps in ((False, 2 * 63), (True, 2 * 6)):
        outcome = simulate(load, Cluster(10e6, 0.001, 0.0, 0.0, trees=trees), 64, mode="allreduce")
        assert 10 * 64 / outcome.images_per_second == pytest.approx(0.3 + 4 * steps * 0.001, rel=1e-3)


def test_what_travels_beside_the_backward_pass_costs_nothing() -> None:
    # The upper bucket's megabyte needs 0.1 s, while the lower bucket computes for 0.2 s and has next to no bytes.
    overlapped = Workload("two", 10, (Bucket(1.0, 0.1, 0.2), Bucket(1e6, 0.1, 0.2)))
    outcome = simulate(overlapped, Cluster(10e6, 0.0, 0.0, 0.0), 2, mode="allreduce")
    assert outcome.efficiency == pytest.approx(1.0, rel=1e-3)


def test_compression_divides_the_bytes_and_costs_time() -> None:
    half = Compression("fp16", 0.5, 0.5, seconds_per_byte=1e-7)
    outcome = simulate(ONE, Cluster(10e6, 0.0, 0.0, 0.0), 2, servers=2, mode="sync", compression=half)
    assert outcome.bytes_per_step == 1e6
    # What is packed first is on its way while the rest is packed.
    assert 10 * 2 / outcome.images_per_second == pytest.approx(0.3 + 0.1 + 0.025 + 0.025, rel=0.02)


def test_a_server_takes_one_message_after_the_other() -> None:
    cluster = Cluster(1e15, 0.0, message_seconds=0.05, update_seconds_per_byte=0.0)
    outcome = simulate(ONE, cluster, 4, servers=1, mode="sync")
    assert 10 * 4 / outcome.images_per_second == pytest.approx(0.3 + 4 * 0.05)


def test_cores_are_shared() -> None:
    outcome = simulate(ONE, Cluster(1e15, 0.0, 0.0, 0.0, cores=2, together=True), 4, mode="sync")
    assert outcome.efficiency == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("mode", "staleness", "lead"), [("sync", 0, 1), ("ssp", 3, 4)])
def test_nobody_is_further_ahead_than_the_rule_allows(mode: str, staleness: int, lead: int) -> None:
    cluster = Cluster(1e9, straggling=Straggling(slow_workers=1, slow_factor=5))
    outcome = simulate(ONE, cluster, 4, servers=2, mode=mode, staleness=staleness, steps=40)
    assert outcome.lead == lead


def test_async_waits_for_nobody() -> None:
    cluster = Cluster(1e15, straggling=Straggling(slow_workers=1, slow_factor=5))
    outcome = simulate(ONE, cluster, 4, servers=2, mode="async", steps=40)
    assert outcome.efficiency == pytest.approx((3 + 1 / 5) / 4, rel=0.05)


def test_ssp_and_async_gain_where_steps_are_slow_at_random() -> None:
    cluster = Cluster(1e15, straggling=Straggling(probability=0.2, factor=5))
    sync, ssp, free = (
        simulate(ONE, cluster, 4, mode=mode, staleness=4, steps=400).images_per_second
        for mode in ("sync", "ssp", "async")
    )
    assert ssp / sync > 1.3
    assert free / sync > 1.6


def test_the_same_seed_gives_the_same_run() -> None:
    cluster = Cluster(1e8, straggling=Straggling(spread=0.2))
    assert simulate(ONE, cluster, 3, seed=5) == simulate(ONE, cluster, 3, seed=5)
    assert simulate(ONE, cluster, 3, seed=5) != simulate(ONE, cluster, 3, seed=6)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="Unknown mode 'bsp'"):
        simulate(ONE, FREE, 2, mode="bsp")


def test_several_threads_go_as_their_slowest() -> None:
    # Packing takes 0.15 s, at two thirds of a core; so long the two threads of the backward below have half their pace.
    pack = Compression("pack", seconds_per_byte=1e-7)
    load = Workload("two", 10, (Bucket(1.0, 0.0, 1.0), Bucket(1e6, 0.5, 0.5)))
    cluster = Cluster(1e15, 0.0, 0.0, 0.0, cores=2, threads=2)
    outcome = simulate(load, cluster, 1, compression=pack)
    assert 10 / outcome.images_per_second == pytest.approx(2.0 + 0.15 / 2, rel=0.01)


def test_messages_cost_processors() -> None:
    # Two workers' messages of 1 MB, each 0.06 s of the one core: 0.02 in the worker, the server and the store.
    costs = MessageCosts(((0.0, 0.0, 0.0, 0.0), (2e6, 0.04, 0.04, 0.04)))
    cluster = Cluster(1e15, 0.0, 0.0, 0.0, messages=costs, cores=1, together=True)
    outcome = simulate(ONE, cluster, 2)
    assert 10 * 2 / outcome.images_per_second == pytest.approx(2 * (0.3 + 0.06))
