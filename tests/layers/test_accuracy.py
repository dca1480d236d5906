from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer

TEXT = 'layer {{ name: "l" type: "Accuracy" bottom: "b0" bottom: "b1" top: "acc" {top} accuracy_param {{ {param} }} }}'
BOTH = 'top: "per"'


def by_loop(
    scores: np.ndarray, labels: np.ndarray, axis: int, top_k: int, ignore: int | None
) -> tuple[np.ndarray, np.ndarray]:
    classes = scores.shape[axis]
    rows = np.moveaxis(scores, axis, -1).reshape(-1, classes)
    hits, counts = np.zeros(classes), np.zeros(classes)
    for row, label in zip(rows, labels.reshape(-1).astype(int)):
        if label == ignore:
            continue
        counts[label] += 1
        hits[label] += sum(score >= row[label] for score in row) <= top_k
    return np.asarray(hits.sum() / max(counts.sum(), 1)), hits / np.maximum(counts, 1)


@pytest.mark.parametrize(
    ("shape", "label_shape", "axis", "top_k", "ignore"),
    [
        ((7, 5), (7,), 1, 1, None),
        ((7, 5), (7, 1), -1, 3, None),
        ((3, 5, 2, 4), (3, 2, 4), 1, 2, 1),
        ((3, 2, 4, 5), (3, 1, 2, 4), 3, 1, 0),
        ((5, 3), (3,), 0, 2, None),
    ],
)
def test_counts_as_a_loop_does(
    shape: tuple[int, ...], label_shape: tuple[int, ...], axis: int, top_k: int, ignore: int | None
) -> None:
    generator = np.random.default_rng(1)
    scores = np.round(generator.standard_normal(shape), 1)  # some ties
    labels = generator.integers(0, shape[axis], label_shape)
    param = f"axis: {axis} top_k: {top_k}" + (f" ignore_label: {ignore}" if ignore is not None else "")
    check_layer(
        TEXT.format(top=BOTH, param=param),
        [scores, labels],
        expect=lambda s, t: by_loop(s, t, axis, top_k, ignore),
        gradient=False,
    )


def test_a_tie_counts_against_the_prediction() -> None:
    scores, labels = [[1, 1, 0], [2, 1, 0]], [0, 0]
    for top_k, accuracy in ((1, 0.5), (2, 1.0)):
        text = TEXT.format(top="", param=f"top_k: {top_k}")
        check_layer(text, [scores, labels], expect=lambda *_, a=accuracy: np.asarray(a), gradient=False)


def test_is_zero_where_every_label_is_ignored() -> None:
    check_layer(
        TEXT.format(top=BOTH, param="ignore_label: 255"),
        [np.ones((2, 3)), [255, 255]],
        expect=lambda *_: [np.asarray(0.0), np.zeros(3)],
        gradient=False,
    )


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match="top_k must be less than or equal to the number of classes"):
        build(TEXT.format(top="", param="top_k: 6"), (2, 5), (2,))
    with pytest.raises(ShapeError, match=r"Number of labels must match number of predictions.*\(2, 5, 3, 4\)"):
        build(TEXT.format(top="", param=""), (2, 5, 3, 4), (2, 3, 3))


@pytest.mark.parametrize("engine", ["torch", None])
def test_a_label_outside_the_classes(engine: str | None) -> None:
    net = build(TEXT.format(top="", param="ignore_label: 9"), (2, 5), (2,), engine=engine)
    net.blobs["b1"].data[...] = [9, 5]
    with pytest.raises(
        InputError, match=r"Label 5 is out of range: labels must be in 0 .. 4, or be the ignore_label 9"
    ):
        net.forward()
    net.blobs["b1"].data[...], net.blobs["b0"].data[:, 0] = [9, 0], 1
    assert net.forward()["acc"] == 1


def test_has_no_backward() -> None:
    net = build(
        'layer { name: "i" type: "InnerProduct" bottom: "b0" top: "x" inner_product_param { num_output: 5 } }'
        'layer { name: "l" type: "Accuracy" bottom: "x" bottom: "b1" top: "acc" loss_weight: 1 }',
        (2, 3),
        (2,),
    )
    net.forward()
    with pytest.raises(LayerError, match="Not Implemented Yet"):
        net.backward()
