"""WarpCTCLoss: the three ways to tell it labels and lengths."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, ShapeError
from tests.layers.case import build, check_layer
from tests.layers.test_ctc_loss import INDICATORS, LABELS, check_gradient_of_the_sum, cost, run, scores


def layer(bottoms: int, param: str = "") -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "WarpCTCLoss" {names} top: "loss" ctc_loss_param {{ {param} }} }}'


@pytest.mark.parametrize("param, blank", [("", 0), ("blank_index: -1", 0), ("blank_index: 2", 2)])
def test_labels_alone(param: str, blank: int) -> None:
    rows = np.array([[1, 3, blank], [3, blank, 3]])

    def expect(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array((cost(x[:, 0], [1, 3], blank) + cost(x[:, 1], [3, 3], blank)) / 2)

    bottoms = [scores(5, 2, 4), rows]
    check_layer(layer(2, param), bottoms, expect=expect, lowers=False, gradient=False)
    check_gradient_of_the_sum(layer(2, param), *bottoms)


@pytest.mark.parametrize("param, blank, shift", [("", 0, 1), ("blank_index: -1", 0, 1), ("blank_index: 3", 3, 0)])
def test_indicators_and_labels(param: str, blank: int, shift: int) -> None:
    def expect(x: np.ndarray, indicators: np.ndarray, labels: np.ndarray) -> np.ndarray:
        first, second = ([label + shift for label in row] for row in ([1, 1, 2], [0, 2]))
        return np.array((cost(x[:, 0], first, blank) + cost(x[:3, 1], second, blank)) / 3)

    bottoms = [scores(5, 3, 4), INDICATORS, LABELS]
    check_layer(layer(3, param), bottoms, expect=expect, lowers=False, gradient=False)
    check_gradient_of_the_sum(layer(3, param), *bottoms)


def test_lengths_and_labels() -> None:
    def expect(x: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return np.array((cost(x[:4, 0], [3, 1], 0) + cost(x[:2, 1], [2], 0)) / 2)

    bottoms = [scores(5, 2, 4), np.array([4, 2]), np.array([2, 1]), np.array([[3, 2], [1, 9], [9, 9]])]
    check_layer(layer(4), bottoms, expect=expect, lowers=False, gradient=False)
    check_gradient_of_the_sum(layer(4), *bottoms)


def test_labels_that_do_not_fit_cost_nothing() -> None:
    x = scores(3, 2, 4)
    loss, gradient = run(layer(2), x, np.array([[1, 1, 0], [2, 2, 2]]))
    assert loss == pytest.approx(cost(x[:, 0], [1, 1], 0) / 2, rel=1e-5)
    assert not gradient[:, 1].any()


@pytest.mark.parametrize(
    "shapes", [((5, 2, 4), (3, 2)), ((5, 2, 4), (5, 2), (4, 2)), ((5, 2, 4), (2,), (3,), (4, 2)), ((5, 2), (2, 3))]
)
def test_bad_shapes(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ShapeError, match=r"Unsupported blobs shape|Scores must be"):
        build(layer(len(shapes)), *shapes)


@pytest.mark.parametrize(
    "bottoms, message",
    [
        ([np.array([[4, 0], [1, 0]])], "Label 4 of sequence 0"),
        ([np.array([3, 6]), np.array([1, 1]), np.ones((2, 2))], r"Sequence 1 must have 0 \.\. 5 steps. Got 6"),
        ([np.array([3, 3]), np.array([1, 3]), np.ones((2, 2))], r"Sequence 1 must have 0 \.\. 2 labels. Got 3"),
        ([np.ones((5, 2)), -np.ones((5, 2))], r"seq_len\[n\] <= 1 \(5 vs. 1\). Sequence 0 has no labels"),
        ([np.zeros((5, 2)), np.ones((5, 2))], "The label length must be smaller or equals the sequence length!"),
    ],
)
def test_bad_labels(bottoms: list[np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(layer(1 + len(bottoms)), scores(5, 2, 4), *bottoms)
