from __future__ import annotations

import numpy as np

from pycaffe.engines.overwritten import OverwrittenValues

A, B = np.float32([1, 2]), np.float32([3, 4])


def test_what_a_layer_read_is_found_from_where_its_run_began() -> None:
    values = OverwrittenValues()
    values.keep(3, 0, A)
    for index, writer, want in [(3, 1, A), (5, -1, A), (5, 3, None), (2, 1, None), (5, 4, None)]:
        got = values.find(index, 0, writer)
        assert (got is None) if want is None else (got == want).all()
    assert values.find(3, 1, -1) is None


def test_values_are_copies() -> None:
    values, array = OverwrittenValues(), A.copy()
    values.keep(3, 0, array)
    array[...] = 0
    np.testing.assert_array_equal(values.find(3, 0, 1), A)


def test_the_latest_run_after_the_writer_counts() -> None:
    values = OverwrittenValues()
    values.keep(3, 0, A)
    values.keep(5, 0, B)
    np.testing.assert_array_equal(values.find(6, 0, 1), B)
    np.testing.assert_array_equal(values.find(4, 0, 1), A)


def test_a_run_that_makes_a_blob_anew_makes_later_values_out_of_date() -> None:
    values = OverwrittenValues()
    values.keep(3, 0, A)
    values.keep(5, 0, B)
    values.forget(4, [0, 7])
    np.testing.assert_array_equal(values.find(6, 0, 1), A)
    values.forget(1, [0])
    assert values.find(6, 0, 1) is None
