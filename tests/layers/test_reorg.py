from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_fork_golden


@pytest.mark.parametrize("name", [f"reorg_{i}" for i in range(6)])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def layer(param: str, top: str = "t0") -> str:
    return f'layer {{ name: "l" type: "Reorg" bottom: "b0" top: "{top}" reorg_param {{ {param} }} }}'


def reorganized(x, s, reverse):
    """The loop of darknet over flat memory."""
    num, channels, height, width = x.shape
    few = channels // s**2
    y = np.empty(x.size, x.dtype)
    for n, c, h, w in np.ndindex(*x.shape):
        here = w + width * (h + height * (c + channels * n))
        row, column = h * s + c // few // s, w * s + c // few % s
        there = column + width * s * (row + height * s * (c % few + few * n))
        if reverse:
            y[there] = x.flat[here]
        else:
            y[here] = x.flat[there]
    shape = (num, few, height * s, width * s) if reverse else (num, channels * s**2, height // s, width // s)
    return y.reshape(shape)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("stride", "shape"), [(1, (2, 3, 4, 5)), (2, (3, 8, 4, 6)), (3, (2, 9, 6, 3))])
def test_against_a_loop(stride: int, shape: tuple[int, ...], reverse: bool) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    text = layer(f"stride: {stride} reverse: {str(reverse).lower()}")
    check_layer(text, [x], expect=lambda x: reorganized(x, stride, reverse))


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="Reorg Layer needs stride param"):
        build(layer(""), (2, 4, 4, 6))
    with pytest.raises(LayerError, match="does not allow in-place computation"):
        build(layer("stride: 1", top="b0"), (2, 4, 4, 6))
    for stride, shape, message in (
        (2, (2, 3, 4, 6), "the stride's square divides the channels"),
        (2, (2, 4, 4, 5), "the stride divides height and width"),
        (1_000_000_000, (2, 4, 4, 6), "the stride's square divides the channels"),
        (2, (2, 4), "Reorg's bottom has 4 axes"),
    ):
        with pytest.raises(ShapeError, match=message):
            build(layer(f"stride: {stride}"), shape)
