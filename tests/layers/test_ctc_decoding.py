"""Decoding by the best path, by the most probable labels, and how far two sequences differ."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.layers._ctc_decoding import as_blob, best_path, collapse, edit_distance, most_probable, target_labels
from tests.layers.paths import labelling_probabilities, reading, softmax


@pytest.mark.parametrize("merge", [True, False])
def test_collapse(merge: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        path = rng.integers(0, 3, 8).tolist()
        assert tuple(collapse(path, 1, merge)) == reading(path, 1, merge)


def test_best_path_takes_the_first_of_equals() -> None:
    labels, scores = best_path(np.array([[1.0, 1, 0], [0, 2, 2], [0, 0, 3]]), 2)
    assert labels == [0, 1]
    assert scores.tolist() == [1, 2, 3]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("blank", [0, 2])
def test_most_probable_labels_are_those_of_all_paths(merge: bool, blank: int) -> None:
    rng = np.random.default_rng(5)
    differs = 0
    for sharpness in np.linspace(0.2, 3, 30):
        y = softmax(rng.normal(0, sharpness, (6, 3)))
        found, probability = most_probable(y, blank, merge)
        every = labelling_probabilities(y, blank, merge)
        assert probability == pytest.approx(max(every.values()), rel=1e-9)
        assert every[tuple(found)] == pytest.approx(probability, rel=1e-9)
        differs += found != best_path(y, blank, merge)[0]
    assert differs, "the best path is not always that of the best labels"


def test_a_search_that_does_not_end() -> None:
    with pytest.raises(InputError, match=r"of 60 steps are too unsure: \d+ prefixes are left"):
        most_probable(np.full((60, 50), 0.02), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0, 1e300])
def test_numbers_that_are_no_probabilities(value: float) -> None:
    y = np.full((7, 4), value)
    assert len(best_path(y, 0)[0]) <= 7
    with np.errstate(all="ignore"):
        try:
            assert len(most_probable(y, 0)[0]) <= 7
        except InputError as error:
            assert "too unsure" in str(error)


def test_edit_distance() -> None:
    assert edit_distance([], []) == 0
    assert edit_distance([1, 2, 3], []) == edit_distance([], [4, 5, 6]) == 3
    assert edit_distance([1, 2, 3, 4], [2, 3, 5]) == 2
    assert edit_distance([1, 2], [2, 1]) == 2


def test_labels_to_and_from_blobs() -> None:
    assert target_labels(np.array([3.0, 0.9, -1, 2])) == [3, 1]
    np.testing.assert_array_equal(as_blob([[1, 2], []], 3), [[1, 2, -1], [-1, -1, -1]])
