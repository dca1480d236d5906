from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(group: int) -> str:
    param = f"shuffle_channel_param {{ group: {group} }}"
    return f'layer {{ name: "l" type: "ShuffleChannel" bottom: "b0" top: "t0" {param} }}'


def shuffled(x, group):
    y = np.empty_like(x)
    size = x.shape[1] // group
    for i, j in np.ndindex(group, size):
        y[:, j * group + i] = x[:, i * size + j]
    return y


@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 4), (2, 6, 4, 5)])
def test_against_a_loop(group: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    check_layer(layer(group), [x], expect=lambda x: shuffled(x, group))


def test_by_hand() -> None:
    net = build(layer(2), (1, 6))
    net.blobs["b0"].data[...] = [[0, 1, 2, 3, 4, 5]]
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[0, 3, 1, 4, 2, 5]]


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"group must be greater than 0. Got group 0"):
        build(layer(0), (2, 6, 4, 5))
    with pytest.raises(ShapeError, match=r"Wrong group size. Got group 4 and shape \(2, 6, 4, 5\)"):
        build(layer(4), (2, 6, 4, 5))
