from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import assert_close, build, check_layer

TEXT = 'layer { name: "l" type: "MultinomialLogisticLoss" bottom: "b0" bottom: "b1" top: "loss" }'


def expect(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    total = 0.0
    for item, label in zip(probabilities.reshape(len(probabilities), -1), labels.reshape(-1).astype(int)):
        total -= np.log(max(float(item[label]), 1e-20))
    return np.asarray(total / len(probabilities))


@pytest.mark.parametrize(("shape", "label_shape"), [((4, 5), (4,)), ((3, 5, 1, 1), (3, 1, 1, 1)), ((4, 3, 2), (4, 1))])
def test_takes_the_log_of_the_label_s_probability(shape: tuple[int, ...], label_shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(5)
    check_layer(TEXT, [generator.uniform(0.1, 1, shape), generator.integers(0, 5, label_shape)], expect=expect)


def test_the_gradient_below_the_threshold_is_the_one_at_it() -> None:
    net = check_layer(TEXT, [[[0.5, 0, 1], [0.5, 0.25, 0]], [1, 1]], expect=expect, gradient=False)
    net.backward()
    want = np.float32([[0, -0.5e20, 0], [0, -2, 0]])
    assert_close("diff", want, net.blobs["b0"].diff, rtol=1e-6, atol=0)
    assert net.blobs["b0"].diff[1].tolist() == [0, -2, 0]


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match=r"bottom\[1\]->height\(\) == 1 \(2 vs. 1\)"):
        build(TEXT, (4, 5), (4, 1, 2))
    net = build(TEXT, (2, 5), (2,), engine="torch")
    net.blobs["b1"].data[...] = [-3, 0]
    with pytest.raises(InputError, match="Label -3 is out of range"):
        net.forward()
    with pytest.raises(LayerError, match="cannot backpropagate to label inputs"):
        net.layers[-1].backward([], [], [], [], [False, True])
