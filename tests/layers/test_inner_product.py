"""InnerProduct on both engines; weights shared by name."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "InnerProduct" bottom: "b0" top: "t0" inner_product_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(10).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["ip_0", "ip_1", "ip_2", "ip_3", "ip_4", "shared_weights"])
def test_golden(name: str) -> None:
    assert "torch" in run_golden(name)


def test_value_by_hand() -> None:
    check_layer(
        layer("num_output: 2"),
        [np.array([[1, 2, 3]], np.float32)],
        [np.array([[1, 0, -1], [2, 2, 2]], np.float32), np.array([10, 20], np.float32)],
        expect=lambda *_: np.array([[8, 32]], np.float32),
    )


@pytest.mark.parametrize(("axis", "inner"), [(0, 120), (1, 60), (2, 20), (3, 5), (-1, 5), (-4, 120)])
@pytest.mark.parametrize("transpose", [False, True])
def test_axis_and_transpose(axis: int, inner: int, transpose: bool) -> None:
    x, weight = normal(2, 3, 4, 5), normal(6, inner)
    check_layer(
        layer(f"num_output: 6 axis: {axis} transpose: {str(transpose).lower()}"),
        [x],
        [weight.T if transpose else weight, normal(6)],
        expect=lambda x, w, b: (x.reshape(-1, inner) @ weight.T + b).reshape(*x.shape[: axis % 4], 6),
    )


def test_without_bias() -> None:
    check_layer(layer("num_output: 4 bias_term: false"), [normal(2, 3)], [normal(4, 3)], expect=lambda x, w: x @ w.T)


def test_batch_may_change_the_rest_may_not() -> None:
    net = build(layer('num_output: 4 weight_filler { type: "gaussian" std: 1 }'), (2, 3, 5))
    net.blobs["b0"].reshape(7, 5, 3)
    net.blobs["b0"].data[...] = normal(7, 5, 3)
    net.forward()
    np.testing.assert_allclose(
        net.blobs["t0"].data, normal(7, 5, 3).reshape(7, 15) @ net.params["l"][0].data.T, rtol=1e-4, atol=1e-5
    )
    net.blobs["b0"].reshape(2, 3, 6)
    with pytest.raises(
        ShapeError, match=r"Input size incompatible with inner product parameters. Expected vectors of 15, got 18"
    ):
        net.reshape()


def test_bad_parameters() -> None:
    with pytest.raises(LayerError, match="axis 2 out of range for a 2-D Blob"):
        build(layer("num_output: 4 axis: 2"), (2, 3))
    with pytest.raises(LayerError, match="empty blob"):
        build(layer("num_output: 0"), (2, 3))
