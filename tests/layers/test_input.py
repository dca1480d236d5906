from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build

SHAPE, OTHER = "shape { dim: 2 dim: 3 dim: 5 dim: 4 }", "shape { dim: 7 }"


def input_(tops: int, param: str) -> str:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return f'layer {{ name: "l" type: "Input" {names} input_param {{ {param} }} }}'


def test_one_shape_for_each_top() -> None:
    net = build(input_(2, SHAPE + OTHER))
    assert net.inputs == ["t0", "t1"]
    assert [net.blobs[name].shape for name in net.inputs] == [(2, 3, 5, 4), (7,)]


def test_one_shape_for_all_tops() -> None:
    net = build(input_(3, OTHER))
    assert [net.blobs[name].shape for name in net.inputs] == [(7,)] * 3


def test_no_shape_waits_for_the_user() -> None:
    net = build(input_(1, ""))
    net.blobs["t0"].reshape(2, 3)
    net.forward()
    assert net.blobs["t0"].shape == (2, 3)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_what_the_user_gave_stays(engine: str) -> None:
    net = build(input_(1, SHAPE) + 'layer { name: "r" type: "ReLU" bottom: "t0" top: "y" }', engine=engine)
    net.blobs["t0"].reshape(1, 2)
    net.blobs["t0"].data[...] = [[-1, 6]]
    net.reshape()
    np.testing.assert_array_equal(net.forward()["y"], [[0, 6]])
    np.testing.assert_array_equal(net.blobs["t0"].data, [[-1, 6]])


def test_another_number_of_shapes() -> None:
    with pytest.raises(LayerError, match=r"Must specify 'shape' once, once per top blob, or not at all: 3 tops vs\. 2"):
        build(input_(3, SHAPE + OTHER))


def test_it_has_no_bottom() -> None:
    with pytest.raises(LayerError, match="0 bottom"):
        build('layer { name: "l" type: "Input" bottom: "b0" top: "t0" }', (2, 3))
