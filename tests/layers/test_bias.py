"""Bias on both engines, with a learned and with a given bias."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.test_scale import CASES


def layer(param: str, bottoms: int = 1) -> str:
    ends = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Bias" {ends} top: "t0" bias_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(16).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["bias_0", "bias_1", "bias_2"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(("param", "shape", "view"), CASES)
def test_axes(param: str, shape: tuple[int, ...], view: tuple[int, ...]) -> None:
    check_layer(layer(param), [normal(2, 3, 4, 5)], [normal(*shape)], expect=lambda x, b: x + b.reshape(view))
    check_layer(layer(param, bottoms=2), [normal(2, 3, 4, 5), normal(*shape)], expect=lambda x, b: x + b.reshape(view))


def test_filler() -> None:
    assert build(layer(""), (2, 3, 4)).params["l"][0].data.tolist() == [0, 0, 0]
    assert build(layer("filler { value: 4 }"), (2, 3, 4)).params["l"][0].data.tolist() == [4, 4, 4]


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="axis 4 out of range for a 4-D Blob"):
        build(layer("axis: 4"), (2, 3, 4, 5))
    with pytest.raises(LayerError, match=r"bias blob's shape extends past bottom\[0\]'s shape"):
        build(layer("num_axes: 4"), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"dimension mismatch between bottom\[0\]->shape\(1\) and bias->shape\(0\)"):
        build(layer("", bottoms=2), (2, 3, 4, 5), (4,))
