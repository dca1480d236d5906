"""ChosenBatches alone; tests/layers/test_reader.py chooses batches of every reader."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycaffe.data.chosen_batches import ChosenBatches
from pycaffe.data.prefetch import Prefetcher
from pycaffe.errors import DataError
from tests.data.test_prefetch import Counter


@pytest.mark.parametrize("depth", [0, 3])
def test_only_the_chosen_numbers_are_made(depth: int) -> None:
    source = Counter()
    batches = Prefetcher(ChosenBatches(source, iter([0, 2, 3, 7]), 0), depth)
    assert [batches.next()[0][0] for _ in range(3)] == [0, 2, 3]
    assert batches.state() == {"position": 4, "source": {"number": 4}}
    assert batches.next()[0][0] == 7


def test_numbers_count_from_the_position() -> None:
    source = Counter()
    source.number = 100
    batches = ChosenBatches(source, iter([41, 44]), 40)
    np.testing.assert_equal([batches.make(batches.plan())[0][0] for _ in range(2)], [101, 104])


def test_a_bad_batch_is_passed_over_like_the_others() -> None:
    batches = Prefetcher(ChosenBatches(Counter(bad=(-2,)), itertools.count(1, 2), 0), 0)
    assert batches.next()[0][0] == 1
    with pytest.raises(DataError, match="cannot read 2"):
        batches.next()
    assert batches.state() == {"position": 3, "source": {"number": 3}}


def test_a_state_tells_the_place_and_not_the_choice() -> None:
    first = ChosenBatches(Counter(), itertools.count(0, 3), 0)
    for _ in range(2):
        first.plan()
    other = ChosenBatches(Counter(), itertools.count(5, 2), 0)
    other.restore(first.state())
    np.testing.assert_equal(other.make(other.plan())[0], [5])
