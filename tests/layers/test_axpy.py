from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build, check_layer, run_fork_golden

TEXT = 'layer { name: "l" type: "Axpy" bottom: "b0" bottom: "b1" bottom: "b2" top: "t0" }'


@pytest.mark.parametrize("name", ["axpy", "axpy_2d", "axpy_se"])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("scale", [(2, 3), (2, 3, 1, 1)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4)])
def test_against_numpy(scale: tuple[int, ...], shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(1)
    bottoms = [generator.standard_normal(extents) for extents in (scale, shape, shape)]
    wide = (2, 3, *(1,) * (len(shape) - 2))
    check_layer(TEXT, bottoms, expect=lambda a, x, y: a.reshape(wide) * x + y)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4), (2, 3, 4, 5), (2, 3, 4, 5)), r"bottom\[0\]->shape\(1\) == bottom\[1\]->shape\(1\).*Got \(2, 4\)"),
        (((2, 3, 1, 2), (2, 3, 4, 5), (2, 3, 4, 5)), r"The scale has shape \(N, C\)"),
        (((2, 3), (2, 3, 4, 5), (2, 3, 5, 4)), r"bottom\[1\]->shape\(\) == bottom\[2\]->shape\(\)"),
        (((2,), (2, 3), (2, 3)), r"The scale has shape \(N, C\)"),
    ],
)
def test_bad_shapes(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(TEXT, *shapes)
