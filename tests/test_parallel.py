from __future__ import annotations

from collections.abc import Iterator

import pytest

import caffe
from pycaffe import parallel


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    parallel.set_solver_count(1)
    parallel.set_solver_rank(0)
    parallel.set_multiprocess(False)


def test_a_process_trains_alone_until_it_is_told_otherwise() -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), parallel.multiprocess()) == (1, 0, False)
    assert parallel.root_solver()


def test_what_scripts_set_is_what_the_readers_see() -> None:
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (parallel.solver_count(), parallel.solver_rank(), parallel.multiprocess()) == (4, 3, True)
    assert not parallel.root_solver()


def test_counts_and_ranks_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="solver_count must be at least 1, got 0"):
        caffe.set_solver_count(0)
    with pytest.raises(ValueError, match="solver_rank must not be negative, got -1"):
        caffe.set_solver_rank(-1)
