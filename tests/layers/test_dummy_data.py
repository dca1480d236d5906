from __future__ import annotations

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import LayerError
from tests.layers.case import build


def layer(param: str, tops: int = 1) -> str:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return f'layer {{ name: "l" type: "DummyData" {names} dummy_data_param {{ {param} }} }}'


SHAPE = "shape { dim: 20 dim: 30 dim: 40 }"
UNIFORM = 'data_filler { type: "uniform" min: -1 max: 3 }'
GAUSSIAN = 'data_filler { type: "gaussian" mean: 2 std: 0.5 }'
CONSTANT = 'data_filler { type: "constant" value: 4 }'


def test_zeros_without_a_filler() -> None:
    net = build(layer("shape { dim: 2 dim: 3 } shape { dim: 4 dim: 1 dim: 5 }", 2))
    net.forward()
    assert net.blobs["t0"].data.shape == (2, 3)
    np.testing.assert_array_equal(net.blobs["t1"].data, np.zeros((4, 1, 5)))


def test_uniform_is_drawn_anew_at_each_pass() -> None:
    rng.seed(1)
    net = build(layer(SHAPE + UNIFORM))
    net.forward()
    first = net.blobs["t0"].data.copy()
    net.forward()
    second = net.blobs["t0"].data
    assert not np.array_equal(first, second)
    for values in (first, second):
        assert values.min() >= -1 and values.max() < 3
        counts = np.histogram(values, bins=8, range=(-1, 3))[0]
        np.testing.assert_allclose(counts, 3000, rtol=0.08)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.03


def test_gaussian_has_its_mean_and_deviation() -> None:
    rng.seed(2)
    net = build(layer(SHAPE + GAUSSIAN))
    net.forward()
    values = net.blobs["t0"].data
    assert abs(values.mean() - 2) < 0.02 and abs(values.std() - 0.5) < 0.01
    assert 0.66 < (abs(values - 2) < 0.5).mean() < 0.70


def test_a_filler_for_each_top_and_constants_are_filled_once() -> None:
    rng.seed(3)
    net = build(layer(SHAPE + CONSTANT + UNIFORM, 2))
    net.forward()
    np.testing.assert_array_equal(net.blobs["t0"].data, 4)
    net.blobs["t0"].data[0] = 9
    before = net.blobs["t1"].data.copy()
    net.forward()
    assert (net.blobs["t0"].data[0] == 9).all() and (net.blobs["t0"].data[1:] == 4).all()
    assert not np.array_equal(net.blobs["t1"].data, before)


def test_one_filler_for_all_tops_draws_for_each() -> None:
    rng.seed(4)
    net = build(layer(SHAPE + UNIFORM, 2))
    net.forward()
    assert not np.array_equal(net.blobs["t0"].data, net.blobs["t1"].data)


def test_draws_follow_the_seed() -> None:
    def draw() -> np.ndarray:
        rng.seed(5)
        net = build(layer(SHAPE + GAUSSIAN))
        net.forward()
        return net.blobs["t0"].data.copy()

    np.testing.assert_array_equal(draw(), draw())


def test_legacy_dimensions_once_or_once_a_top() -> None:
    net = build(layer("num: 2 num: 6 channels: 3 height: 4 width: 5 width: 7" + CONSTANT, 2))
    net.forward()
    assert net.blobs["t0"].data.shape == (2, 3, 4, 5)
    assert net.blobs["t1"].data.shape == (6, 3, 4, 7)


def test_a_top_that_a_user_reshapes_is_filled_whole() -> None:
    rng.seed(6)
    net = build(layer(SHAPE + UNIFORM))
    net.blobs["t0"].reshape(50, 30, 40)
    net.forward()
    assert net.blobs["t0"].data.shape == (50, 30, 40)
    assert abs(net.blobs["t0"].data[20:].mean() - 1) < 0.05


@pytest.mark.parametrize(
    ("param", "tops", "message"),
    [
        (
            SHAPE + CONSTANT * 2,
            3,
            r"Number of data fillers must be 0, 1 or equal to the number of tops: 3; you spec.* 2",
        ),
        (SHAPE * 2, 3, r"Must specify 'shape' once, or once per top blob \(3\); specified 2"),
        ("", 1, "Must specify 'shape' once"),
        ("num: 1 channels: 2 height: 3", 1, r"Must specify 'width' once, or once per top blob \(1\); specified 0"),
        (SHAPE + "num: 1", 1, "Both shape and legacy fields were specified"),
        (SHAPE + 'data_filler { type: "unifrom" }', 1, "Unknown filler name: 'unifrom'.*Did you mean 'uniform'"),
        ("shape { dim: 2 dim: 0 }" + UNIFORM, 1, "on an empty blob"),
    ],
)
def test_bad_parameters(param: str, tops: int, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param, tops))
