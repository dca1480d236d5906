"""Whole parameters to parts and back."""

from __future__ import annotations

import numpy as np

from pycaffe.cluster.protocol.checkpoint_parts import join_parts, split_into_parts
from pycaffe.cluster.protocol.shards import cut_into_pieces


def test_there_and_back() -> None:
    sizes = [20_000, 7, 9_001]
    pieces = cut_into_pieces(sizes, 2)
    values = [np.arange(size, dtype=np.float32) for size in sizes]
    histories = [[value + 1 for value in values], [value * 2 for value in values]]
    rates = {"current_step": 3, "minimum_loss": None, "iter_last_event": None}
    parts = split_into_parts(values, histories, pieces, iteration=9, workers=3, rates=rates)
    assert [(part.server, part.clocks, part.rates) for part in parts] == [(0, (0,) * 3, rates), (1, (0,) * 3, rates)]
    assert {state.steps for part in parts for state in part.pieces.values()} == {9}
    got_values, got_histories = join_parts(parts[::-1], pieces, sizes)
    for got, want in zip((got_values, *got_histories), (values, *histories)):
        for array, expected in zip(got, want):
            np.testing.assert_array_equal(array, expected)
