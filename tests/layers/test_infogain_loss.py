from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ProtoError, ShapeError
from pycaffe.proto.caffemodel import write_blob
from tests.layers.case import assert_close, build, check_layer

TEXT = 'layer {{ name: "l" type: "InfogainLoss" bottom: "b0" bottom: "b1" {matrix} top: "loss" {more} }}'
THIRD = 'bottom: "b2"'


def softmax(scores: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def loss(
    scores: np.ndarray, labels: np.ndarray, matrix: np.ndarray, axis: int, ignore: int | None, divisor: int | None
) -> np.ndarray:
    classes = scores.shape[axis]
    gains = matrix.reshape(classes, classes)
    total, count = 0.0, 0
    rows = np.moveaxis(softmax(scores, axis), axis, -1).reshape(-1, classes)
    for row, label in zip(rows, labels.reshape(-1).astype(int)):
        if label == ignore:
            continue
        count += 1
        for k in range(classes):
            total -= gains[label, k] * np.log(max(row[k], 1e-20))
    return np.asarray(total / (divisor or max(count, 1)))


def example(shape: tuple[int, ...], label_shape: tuple[int, ...], axis: int) -> list[np.ndarray]:
    generator = np.random.default_rng(9)
    classes = shape[axis]
    matrix = generator.uniform(-0.5, 1, (1, 1, classes, classes))
    return [generator.standard_normal(shape), generator.integers(0, classes, label_shape), matrix]


@pytest.mark.parametrize(
    ("more", "axis", "ignore", "divisor", "shape", "label_shape"),
    [
        ("", 1, None, None, (6, 5), (6,)),
        ("infogain_loss_param { axis: -1 }", 3, None, None, (3, 2, 4, 5), (3, 2, 4)),
        ("loss_param { ignore_label: 2 }", 1, 2, None, (3, 5, 2, 4), (3, 2, 4)),
        ("loss_param { ignore_label: 2 normalization: FULL }", 1, 2, 24, (3, 5, 2, 4), (3, 1, 2, 4)),
        ("loss_param { normalization: BATCH_SIZE }", 1, None, 3, (3, 5, 2, 4), (3, 2, 4)),
        ("loss_param { normalization: NONE }", 1, None, 1, (3, 5, 2, 4), (3, 2, 4)),
    ],
)
def test_weighs_all_classes(
    more: str,
    axis: int,
    ignore: int | None,
    divisor: int | None,
    shape: tuple[int, ...],
    label_shape: tuple[int, ...],
) -> None:
    check_layer(
        TEXT.format(matrix=THIRD, more=more),
        example(shape, label_shape, axis),
        expect=lambda s, t, h: loss(s, t, h, axis, ignore, divisor),
    )


def test_reads_the_matrix_from_a_file_and_gives_the_softmax(tmp_path: Path) -> None:
    scores, labels, matrix = example((3, 5, 2), (3, 2), 1)
    write_blob(tmp_path / "H.binaryproto", matrix)
    more = f'top: "p" infogain_loss_param {{ source: "{tmp_path / "H.binaryproto"}" }}'
    check_layer(
        TEXT.format(matrix="", more=more),
        [scores, labels],
        expect=lambda s, t: [loss(s, t, matrix, 1, None, None), softmax(s, 1)],
        gradient=False,
    )


def test_a_clipped_loss_keeps_its_gradient() -> None:
    matrix = np.asarray([[1, 2], [3, 4]])
    net = check_layer(
        TEXT.format(matrix=THIRD, more=""),
        [[[200, 0]], [1], matrix],
        expect=lambda *_: np.asarray(-4 * np.log(1e-20)),
        gradient=False,
    )
    net.backward()
    assert_close("diff", np.asarray([[7 - 3, 0 - 4]]), net.blobs["b0"].diff, rtol=1e-6, atol=0)
    assert not net.blobs["b1"].diff.any() and not net.blobs["b2"].diff.any()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="Infogain matrix source must be specified"):
        build(TEXT.format(matrix="", more=""), (2, 5), (2,))
    with pytest.raises(ProtoError, match=r"missing\.binaryproto"):
        source = f'infogain_loss_param {{ source: "{tmp_path / "missing.binaryproto"}" }}'
        build(TEXT.format(matrix="", more=source), (2, 5), (2,))
    with pytest.raises(LayerError, match=r'normalize is deprecated\. use "normalization"'):
        build(TEXT.format(matrix=THIRD, more="loss_param { normalize: true }"), (2, 5), (2,), (5, 5))
    with pytest.raises(ShapeError, match=r"\(20 vs. 25\) H must be 5x5"):
        build(TEXT.format(matrix=THIRD, more=""), (2, 5), (2,), (4, 5))
    with pytest.raises(ShapeError, match="infogain axis"):
        build(TEXT.format(matrix=THIRD, more=""), (2, 5, 3), (2,), (5, 5))
    net = build(TEXT.format(matrix=THIRD, more=""), (2, 5), (2,), (5, 5), engine="torch")
    net.blobs["b1"].data[...] = [0, 5]
    with pytest.raises(InputError, match="Label 5 is out of range"):
        net.forward()
    with pytest.raises(LayerError, match="InfogainLoss Layer cannot backpropagate to infogain inputs"):
        net.layers[-1].backward([], [], [], [], [True, False, True])
