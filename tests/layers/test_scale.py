"""Scale on both engines, with a learned and with a given scale."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def layer(param: str, bottoms: int = 1) -> str:
    ends = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Scale" {ends} top: "t0" scale_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(15).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", [f"scale_{i}" for i in range(6)])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


CASES = [
    ("", (3,), (3, 1, 1)),
    ("num_axes: 2", (3, 4), (3, 4, 1)),
    ("axis: 0", (2,), (2, 1, 1, 1)),
    ("axis: -1", (5,), (5,)),
    ("axis: 2 num_axes: -1", (4, 5), (4, 5)),
    ("axis: 0 num_axes: -1", (2, 3, 4, 5), (2, 3, 4, 5)),
    ("axis: 3 num_axes: 0", (), ()),
]


@pytest.mark.parametrize(("param", "shape", "view"), CASES)
@pytest.mark.parametrize("bias", [False, True])
def test_axes(param: str, shape: tuple[int, ...], view: tuple[int, ...], bias: bool) -> None:
    check_layer(
        layer(f"{param} bias_term: {str(bias).lower()}"),
        [normal(2, 3, 4, 5)],
        [normal(*shape), normal(*shape) + 1][: 1 + bias],
        expect=lambda x, s, *b: x * s.reshape(view) + (b[0].reshape(view) if b else 0),
    )


@pytest.mark.parametrize(("param", "shape", "view"), CASES)
@pytest.mark.parametrize("bias", [False, True])
def test_second_bottom(param: str, shape: tuple[int, ...], view: tuple[int, ...], bias: bool) -> None:
    check_layer(
        layer(f"{param} bias_term: {str(bias).lower()}", bottoms=2),
        [normal(2, 3, 4, 5), normal(*shape)],
        [normal(*shape) + 1] if bias else [],
        expect=lambda x, s, *b: x * s.reshape(view) + (b[0].reshape(view) if b else 0),
    )


def test_starts_as_the_identity() -> None:
    net = build(layer("bias_term: true"), (2, 3, 4, 5))
    assert [blob.data.tolist() for blob in net.params["l"]] == [[1, 1, 1], [0, 0, 0]]
    net = build(layer("filler { value: 2 } bias_term: true bias_filler { value: 7 }"), (2, 3, 4, 5))
    assert [blob.data.tolist() for blob in net.params["l"]] == [[2, 2, 2], [7, 7, 7]]


def test_diff_of_a_scale_as_large_as_its_bottom_accumulates() -> None:
    net = build(layer("axis: 0 num_axes: -1"), (2, 3), engine="torch")
    net.blobs["b0"].data[...] = 2
    net.forward()
    net.blobs["t0"].diff[...] = 3
    net.backward()
    net.backward()
    assert (net.params["l"][0].diff == 12).all()


def test_bad_input() -> None:
    with pytest.raises(
        LayerError, match=r"num_axes must be non-negative, or -1 to extend to the end .*Got num_axes -2"
    ):
        build(layer("num_axes: -2"), (2, 3, 4, 5))
    with pytest.raises(LayerError, match=r"scale blob's shape extends past bottom\[0\]'s shape .* axis = 3"):
        build(layer("axis: 3 num_axes: 2"), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"scale blob's shape extends past bottom\[0\]'s shape"):
        build(layer("axis: 3", bottoms=2), (2, 3, 4, 5), (5, 2))
    with pytest.raises(ShapeError, match=r"dimension mismatch between bottom\[0\]->shape\(2\) and scale->shape\(1\)"):
        build(layer("", bottoms=2), (2, 3, 4, 5), (3, 5))
    net = build(layer("bias_term: true"), (2, 3, 4, 5))
    net.blobs["b0"].reshape(2, 4, 4, 5)
    with pytest.raises(ShapeError, match="dimension mismatch"):
        net.reshape()
