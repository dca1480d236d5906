from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer

TEXT = 'layer {{ name: "l" type: "HingeLoss" bottom: "b0" bottom: "b1" top: "loss" hinge_loss_param {{ {param} }} }}'


@pytest.mark.parametrize(("param", "power"), [("", 1), ("norm: L1", 1), ("norm: L2", 2)])
@pytest.mark.parametrize(("shape", "label_shape"), [((4, 5), (4,)), ((3, 5, 2), (3, 1)), ((3, 5), (3, 2))])
def test_sums_margins_as_a_loop_does(
    param: str, power: int, shape: tuple[int, ...], label_shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(4)

    def expect(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        total = 0.0
        for item, label in zip(scores.reshape(len(scores), -1), labels.reshape(-1).astype(int)):
            for k, score in enumerate(item):
                total += max(0.0, 1 - score if k == label else 1 + score) ** power
        return np.asarray(total / len(scores))

    bottoms = [generator.standard_normal(shape), generator.integers(0, 5, label_shape)]
    check_layer(TEXT.format(param=param), bottoms, expect=expect)


def test_hand_made_gradient() -> None:
    for param, want in (("norm: L1", [[-0.5, 0, 0.5], [0, 0, 0]]), ("norm: L2", [[-0.5, 0, 3], [0, 0, 0]])):
        net = build(TEXT.format(param=param), (2, 3), (2,))
        net.blobs["b0"].data[...] = [[0.5, -1, 2], [-1, 1, -3]]  # two scores lie on their margin: no gradient
        net.blobs["b1"].data[...] = [0, 1]
        net.forward()
        net.backward()
        assert net.blobs["b0"].diff.tolist() == want
        assert not net.blobs["b1"].diff.any()


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match="The data and label should have the same first dimension"):
        build(TEXT.format(param=""), (3, 5), (2,))
    net = build(TEXT.format(param=""), (2, 5), (2,), engine="torch")
    net.blobs["b1"].data[...] = [0, 6]
    with pytest.raises(InputError, match=r"Label 6 is out of range: labels must be in 0 .. 4"):
        net.forward()
    assert net.layers[-1].allow_force_backward(0)
    with pytest.raises(LayerError, match="HingeLoss Layer cannot backpropagate to label inputs"):
        net.layers[-1].backward([], [], [], [], [True, True])
