from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer

TEXT = (
    'layer {{ name: "l" type: "SigmoidCrossEntropyLoss" bottom: "b0" bottom: "b1" top: "t" loss_param {{ {param} }} }}'
)


@pytest.mark.parametrize(
    ("param", "ignore", "divisor"),
    [
        ("", None, 3),
        ("ignore_label: 1", 1, 3),
        ("ignore_label: 1 normalization: VALID", 1, None),
        ("normalization: VALID", None, 120),
        ("ignore_label: 1 normalization: FULL", 1, 120),
        ("normalization: BATCH_SIZE", None, 3),
        ("normalization: NONE", None, 1),
        ("ignore_label: 1 normalize: true", 1, None),
        ("normalize: false", None, 3),
    ],
)
def test_normalization(param: str, ignore: int | None, divisor: int | None) -> None:
    generator = np.random.default_rng(6)
    logits, targets = generator.standard_normal((3, 5, 2, 4)), generator.integers(0, 3, (3, 10, 4)) / 2

    def expect(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        total, count = 0.0, 0
        for x, t in zip(logits.reshape(-1).tolist(), targets.reshape(-1).tolist()):
            if int(t) != ignore:  # 0.5 is cut to 0
                s = 1 / (1 + math.exp(-x))
                total -= t * math.log(s) + (1 - t) * math.log(1 - s)
                count += 1
        return np.asarray(total / (divisor or count))

    check_layer(TEXT.format(param=param), [logits, targets], expect=expect)


def test_never_overflows_and_is_zero_where_all_are_ignored() -> None:
    check_layer(
        TEXT.format(param=""),
        [[[200, -200, 200, -200]], [[1, 0, 0, 1]]],
        expect=lambda *_: np.asarray(400.0),
        gradient=False,
    )
    param = "ignore_label: -1 normalization: VALID"
    net = check_layer(TEXT.format(param=param), [[[3, 4]], [[-1, -1]]], expect=lambda *_: np.asarray(0.0))
    net.backward()
    assert not net.blobs["b0"].diff.any()


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match="SIGMOID_CROSS_ENTROPY_LOSS layer inputs must have the same count"):
        build(TEXT.format(param=""), (3, 5), (3, 4))
    with pytest.raises(LayerError, match="SigmoidCrossEntropyLoss Layer cannot backpropagate to label inputs"):
        build(TEXT.format(param=""), (3, 5), (3, 5)).layers[-1].backward([], [], [], [], [True, True])
