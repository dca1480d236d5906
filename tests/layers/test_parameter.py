from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build

PARAMETER = 'layer { name: "l" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } }'
PRODUCT = (
    PARAMETER
    + 'layer { name: "e" type: "Eltwise" bottom: "b0" bottom: "w" top: "y" eltwise_param { operation: PROD } }'
)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_the_top_is_the_parameter(engine: str) -> None:
    net = build(PARAMETER, engine=engine)
    np.testing.assert_array_equal(net.forward()["w"], np.zeros((2, 3)))
    net.params["l"][0].data[...] = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(net.forward()["w"], [[0, 1, 2], [3, 4, 5]])


def test_without_a_shape_it_is_a_scalar() -> None:
    net = build('layer { name: "l" type: "Parameter" top: "w" }')
    assert net.params["l"][0].shape == net.blobs["w"].shape == ()


def test_the_gradient_accumulates_in_the_parameter() -> None:
    net = build(PRODUCT, (2, 3), engine="torch")
    net.params["l"][0].data[...] = 2
    net.blobs["b0"].data[...] = [[1, 2, 3], [4, 5, 6]]
    for count in (1, 2):
        net.forward()
        net.blobs["y"].diff[...] = 10
        net.backward()
        np.testing.assert_array_equal(net.params["l"][0].diff, count * np.float32([[10, 20, 30], [40, 50, 60]]))
        np.testing.assert_array_equal(net.blobs["b0"].diff, np.full((2, 3), 20))
    net.clear_param_diffs()
    np.testing.assert_array_equal(net.params["l"][0].diff, np.zeros((2, 3)))


def test_it_has_no_bottom() -> None:
    with pytest.raises(LayerError, match="0 bottom"):
        build('layer { name: "l" type: "Parameter" bottom: "b0" top: "w" }', (2, 3))
