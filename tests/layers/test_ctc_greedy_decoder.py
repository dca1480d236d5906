"""CTCGreedyDecoder in its four forms, by hand and against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build
from tests.layers.paths import reading

PATHS = np.array([[1, 0, 2], [1, 3, 2], [3, 3, 0], [1, 0, 0], [2, 0, 3]])  # (T, N)
INDICATORS = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]])


def scores(paths: np.ndarray, classes: int = 4) -> np.ndarray:
    x = np.random.default_rng(1).random((*paths.shape, classes)) / 2
    np.put_along_axis(x, paths[..., None], 0.75 + x.max() / 4, axis=2)
    return x.astype(np.float32)


def run(text: str, *bottoms: np.ndarray) -> list[np.ndarray]:
    net = build(text, *(b.shape for b in bottoms))
    for i, bottom in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = bottom
    net.forward()
    return [net.blobs[name].data.copy() for name in net.top_names["l"]]


def layer(bottoms: int, tops: int, param: str = "", name: str = "CTCGreedyDecoder") -> str:
    names = " ".join([f'bottom: "b{i}"' for i in range(bottoms)] + [f'top: "t{i}"' for i in range(tops)])
    return f'layer {{ name: "l" type: "{name}" {names} ctc_decoder_param {{ {param} }} }}'


def expected(ends: list[int], blank: int, merge: bool = True) -> np.ndarray:
    rows = np.full((3, 5), -1.0)
    for n, end in enumerate(ends):
        labels = reading(PATHS[:end, n], blank, merge)
        rows[n, : len(labels)] = labels
    return rows


@pytest.mark.parametrize(
    "param, blank, merge", [("", 0, True), ("blank_index: -1 ctc_merge_repeated: false", 3, False)]
)
def test_scores_alone(param: str, blank: int, merge: bool) -> None:
    (labels,) = run(layer(1, 1, param), scores(PATHS))
    np.testing.assert_array_equal(labels, expected([5, 5, 5], blank, merge)[:, :, None, None])


@pytest.mark.parametrize("name", ["CTCGreedyDecoder", "CtcGreedyDecoder"])
def test_indicators_and_score(name: str) -> None:
    x = scores(PATHS)
    labels, score = run(layer(2, 2, name=name), x, INDICATORS)
    np.testing.assert_array_equal(labels, expected([5, 3, 5], 3).T[:, :, None, None])
    assert labels[:, 0, 0, 0].tolist() == [1, 1, 2, -1, -1]  # 1 1 - 1 2, with class 3 as the blank
    best = x.max(2)
    np.testing.assert_allclose(score.ravel(), [-best[:, 0].sum(), -best[:3, 1].sum(), -best[:, 2].sum()], rtol=1e-6)


@pytest.mark.parametrize("tops", [1, 2, 3])
def test_accuracy(tops: int) -> None:
    truth = np.full((5, 3), -1)
    truth[:3, 0], truth[:1, 1], truth[:4, 2] = [1, 1, 2], [2], [2, 0, 1, 1]
    found = run(layer(3, tops), scores(PATHS), INDICATORS, truth)
    np.testing.assert_array_equal(found[0], expected([5, 3, 5], 3).T[:, :, None, None])
    if tops > 1:  # read 1 1 2, 0 and 2 0
        assert found[-1].shape == (1, 1, 1, 1)
        assert float(found[-1].squeeze()) == pytest.approx(1 - (0 + 1 + 2 / 4) / 3)


def test_labels_alone() -> None:
    truth = np.array([[1, 3, 1, 2], [3, 0, 0, 0], [2, 1, -1, 5]])
    (top,) = run(layer(2, 1), scores(PATHS), truth)  # read 1 3 1 2, 3 and 2 3
    assert top.shape == (1, 2, 1, 1)
    np.testing.assert_allclose(top.ravel(), [1 - 0.5 / 3, 2 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    "text, shapes, error, message",
    [
        (layer(1, 2), ((5, 3, 4),), LayerError, "Only 1 output blobs allowed"),
        (layer(2, 3), ((5, 3, 4), (5, 3)), LayerError, "Only 2 output blobs allowed"),
        (layer(1, 1, "blank_index: 4"), ((5, 3, 4),), LayerError, "blank_index must be a class"),
        (layer(2, 1), ((5, 3, 4), (4, 2)), ShapeError, "expected sequence indicators or labels"),
        (layer(3, 1), ((5, 3, 4), (5, 3), (3, 5)), ShapeError, r"labels of \(5, 3\)"),
        (layer(1, 1), ((5, 3),), ShapeError, "Scores must be"),
    ],
)
def test_bad_nets(text: str, shapes: tuple[tuple[int, ...], ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(text, *shapes)
