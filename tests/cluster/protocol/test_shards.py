"""Parameters in pieces, pieces on servers."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.cluster.protocol.shards import buckets_of, cut_into_pieces, pieces_of_server
from pycaffe.errors import SolverError

LENET = [500, 20, 25_000, 50, 400_000, 500, 5_000, 10]


@pytest.mark.parametrize("servers", [1, 2, 3, 5])
def test_every_element_is_in_one_piece(servers: int) -> None:
    pieces = cut_into_pieces(LENET, servers)
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    for parameter, size in enumerate(LENET):
        ends = [(piece.start, piece.stop) for piece in pieces if piece.parameter == parameter]
        assert ends[0][0] == 0
        assert ends[-1][1] == size
        assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]


@pytest.mark.parametrize("servers", [2, 3, 5])
def test_servers_have_even_loads(servers: int) -> None:
    pieces = cut_into_pieces(LENET, servers)
    loads = [sum(piece.size for piece in pieces_of_server(pieces, server)) for server in range(servers)]
    assert sum(loads) == sum(LENET)
    assert max(loads) - min(loads) <= max(size for size in LENET if size < servers * 1024)


def test_random_nets_have_even_loads() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        sizes, servers = [int(size) for size in 10 ** rng.uniform(0, 6, 20)], int(rng.integers(1, 9))
        small = max((size for size in sizes if size < servers * 1024), default=0)
        pieces = cut_into_pieces(sizes, servers)
        loads = [sum(piece.size for piece in pieces_of_server(pieces, server)) for server in range(servers)]
        assert max(loads) - min(loads) <= small + len(sizes)
        assert sum(loads) == sum(sizes)


def test_a_large_tensor_is_on_all_servers_and_a_small_one_on_one() -> None:
    pieces = cut_into_pieces([20_001, 10], 2)
    assert [(piece.parameter, piece.start, piece.stop) for piece in pieces] == [
        (0, 0, 10_001), (0, 10_001, 20_001), (1, 0, 10),
    ]  # fmt: skip
    assert pieces[2].server == pieces[1].server, "the server that has less"


def test_buckets_are_whole_layers_from_the_last_to_the_first() -> None:
    pieces = cut_into_pieces(LENET, 2)
    buckets = buckets_of(pieces, [0, 0, 2, 2, 4, 4, 6, 6], smallest=5_000)
    layers = [sorted({piece.parameter // 2 for piece in bucket}) for bucket in buckets]
    assert layers == [[3], [2], [1], [0]]
    assert sorted(piece.index for bucket in buckets for piece in bucket) == list(range(len(pieces)))
    assert len(buckets_of(pieces, [0, 0, 2, 2, 4, 4, 6, 6], smallest=10**9)) == 1


def test_no_servers_and_too_many() -> None:
    with pytest.raises(SolverError, match=r"at least one server; got servers=0"):
        cut_into_pieces([10], 0)
    with pytest.raises(SolverError, match=r"3 servers are too many for 2 parameters of 30 elements: 1 would have"):
        cut_into_pieces([10, 20], 3)
