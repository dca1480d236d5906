"""LabelsequenceAccuracy: only sequences that are right as a whole count."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build
from tests.layers.test_ctc_greedy_decoder import PATHS, run, scores


def layer(param: str = "") -> str:
    return (
        'layer { name: "l" type: "LabelsequenceAccuracy" bottom: "b0" bottom: "b1" top: "t0" '
        f"labelsequence_accuracy_param {{ {param} }} }}"
    )


@pytest.mark.parametrize(
    "param, labels, share",
    [
        ("", [[1, 3, 1, 2], [0, 3, 0, 0], [2, 0, 0, 3]], 1.0),
        ("", [[1, 3, 1, 2], [3, 3, 0, 0], [2, 0, 0, 1]], 1 / 3),
        ("blank_label: 3", [[1, 1, 2, 3], [0, 0, 3, 3], [2, 0, 3, 3]], 1.0),
    ],
)
def test_values(param: str, labels: list[list[int]], share: float) -> None:
    (accuracy,) = run(layer(param), scores(PATHS).transpose(1, 0, 2), np.array(labels))
    assert accuracy.shape == () and float(accuracy) == pytest.approx(share)


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match=r"The batch size shoule be equal. Expected scores \(N, T, C\)"):
        build(layer(), (5, 3, 4), (3, 4))
