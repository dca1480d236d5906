from __future__ import annotations

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import LayerError
from pycaffe.net import TRAIN
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import run_backward


def dropout(ratio: float) -> str:
    return f'layer {{ name: "l" type: "Dropout" bottom: "b0" top: "t0" dropout_param {{ dropout_ratio: {ratio} }} }}'


def test_golden() -> None:
    assert run_golden("dropout_test") == ["torch", "onnxruntime"]


def test_in_testing_it_does_nothing() -> None:
    check_layer(dropout(0.9), [np.random.default_rng(1).standard_normal((2, 3, 5, 4))], expect=np.copy)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9])
def test_in_training_it_drops_the_given_part_and_scales_the_rest(ratio: float) -> None:
    rng.seed(5)
    net = build(dropout(ratio), (2, 10, 50, 40), phase=TRAIN)
    net.blobs["b0"].data[...] = 3
    y = net.forward()["t0"]
    np.testing.assert_allclose(np.unique(y)[-1], 3 / (1 - ratio), rtol=1e-6)
    assert len(np.unique(y)) == (2 if ratio else 1)
    deviation = np.sqrt(ratio * (1 - ratio) / y.size)
    assert abs(np.mean(y == 0) - ratio) <= 4 * deviation
    for axis in range(4):  # no axis along which whole rows are dropped
        rows = np.mean(y == 0, axis=tuple(i for i in range(4) if i != axis))
        assert np.abs(rows - ratio).max() <= 5 * np.sqrt(ratio * (1 - ratio) * len(rows) / y.size)


def test_a_layer_with_the_train_phase_of_its_own_drops_in_a_test_net() -> None:
    net = build(dropout(0.5).replace('type: "Dropout"', 'type: "Dropout" phase: TRAIN'), (2, 3, 5, 4))
    net.blobs["b0"].data[...] = 1
    assert set(np.unique(net.forward()["t0"])) == {0, 2}


def test_backward_uses_the_mask_of_the_last_forward() -> None:
    x, dy = np.random.default_rng(2).standard_normal((2, 2, 3, 5, 4)).astype(np.float32)
    net = run_backward(dropout(0.25), [x], [dy], phase=TRAIN)
    mask = net.blobs["t0"].data / x
    assert set(np.unique(mask.round(4))) == {np.float32(0), np.float32(1.3333)}
    np.testing.assert_allclose(net.blobs["b0"].diff, dy * mask, rtol=1e-5, atol=1e-7)


def test_every_forward_draws_a_new_mask_and_the_seed_repeats_them() -> None:
    def masks() -> list[np.ndarray]:
        rng.seed(11)
        net = build(dropout(0.5), (2, 3, 5, 4), phase=TRAIN)
        net.blobs["b0"].data[...] = 1
        return [net.forward()["t0"].copy() for _ in range(2)]

    first, second = masks(), masks()
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1])
def test_the_ratio_must_leave_something(ratio: float) -> None:
    with pytest.raises(LayerError, match=r"threshold_ < 1\. dropout_ratio must be in \[0, 1\)"):
        build(dropout(ratio), (2, 3))
