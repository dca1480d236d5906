from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str, bottoms: int = 1) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Interp" {names} top: "t0" interp_param {{ {param} }} }}'


def interpolated(x, size):
    """The four neighbours of each place, corner pixels on corner pixels."""
    y = np.zeros((*x.shape[:2], *size), np.float64)
    ratio = [(extent - 1) / (wanted - 1) if wanted > 1 else 0 for extent, wanted in zip(x.shape[2:], size)]
    for i, j in np.ndindex(*size):
        top, left = int(i * ratio[0]), int(j * ratio[1])
        low, right = min(top + 1, x.shape[2] - 1), min(left + 1, x.shape[3] - 1)
        a, b = i * ratio[0] - top, j * ratio[1] - left
        y[:, :, i, j] = (1 - a) * ((1 - b) * x[:, :, top, left] + b * x[:, :, top, right])
        y[:, :, i, j] += a * ((1 - b) * x[:, :, low, left] + b * x[:, :, low, right])
    return y


@pytest.mark.parametrize(
    ("param", "size", "cut"),
    [
        ("zoom_factor: 3", (13, 19), (0, 0)),
        ("shrink_factor: 2", (3, 4), (0, 0)),
        ("shrink_factor: 2 zoom_factor: 4", (9, 13), (0, 0)),
        ("height: 4 width: 11", (4, 11), (0, 0)),
        ("height: 1 width: 2", (1, 2), (0, 0)),
        ("height: 5 width: 7", (5, 7), (0, 0)),
        ("zoom_factor: 2 pad_beg: -1", (7, 11), (1, 0)),
        ("height: 6 width: 6 pad_beg: -1 pad_end: -2", (6, 6), (1, 2)),
    ],
)
def test_against_a_loop(param: str, size: tuple[int, int], cut: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 7))
    inside = slice(cut[0], 5 - cut[1]), slice(cut[0], 7 - cut[1])
    check_layer(layer(param), [x], expect=lambda x: interpolated(x[:, :, inside[0], inside[1]], size))


def test_by_hand() -> None:
    net = build(layer("zoom_factor: 2"), (1, 1, 2, 2))
    net.blobs["b0"].data[...] = [[[[0, 2], [4, 6]]]]
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]]


def test_the_size_of_a_second_bottom() -> None:
    bottoms = [np.random.default_rng(1).standard_normal(shape) for shape in ((2, 3, 5, 7), (1, 2, 9, 4))]
    net = check_layer(layer("", 2), bottoms, expect=lambda x, other: interpolated(x, (9, 4)))
    net.blobs["t0"].diff[...] = 1
    net.backward()
    assert not net.blobs["b1"].diff.any()


@pytest.mark.parametrize("extent", [*range(1, 40), 321, 713])
def test_onnx_makes_every_size_exactly(extent: int) -> None:
    for wanted in (1, 2, 3, 7, 49, 97, 513, 1025):
        net = build(layer(f"height: {wanted} width: 1"), (1, 1, extent, 1), engine="onnxruntime")
        net.forward()
        assert net.blobs["t0"].data.shape == (1, 1, wanted, 1)


@pytest.mark.parametrize(
    ("param", "bottoms", "message"),
    [
        ("", 1, r"unspecified or ambiguous.*Got \[\] and 1 bottoms"),
        ("height: 4", 1, "unspecified or ambiguous"),
        ("zoom_factor: 2 height: 4 width: 4", 1, "unspecified or ambiguous"),
        ("zoom_factor: 2", 2, "unspecified or ambiguous"),
        ("zoom_factor: 0", 1, "Zoom factor must be positive. Got 0"),
        ("shrink_factor: -1", 1, "Shrink factor must be positive. Got -1"),
        ("zoom_factor: 2 pad_beg: 1", 1, "Only supports non-pos padding"),
    ],
)
def test_bad_parameters(param: str, bottoms: int, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param, bottoms), *[(2, 3, 5, 7)] * bottoms)


def test_bad_shapes() -> None:
    for param, message in (
        ("zoom_factor: 2 pad_beg: -3 pad_end: -2", r"height and width should be positive. The crop leaves \(0, 2\)"),
        ("height: -1 width: 4", "height and width should be positive"),
        ("zoom_factor: 1000000000", "blob size exceeds INT_MAX"),
    ):
        with pytest.raises(ShapeError, match=message):
            build(layer(param), (2, 3, 5, 7))
    with pytest.raises(ShapeError, match="Interp's bottom has 4 axes"):
        build(layer("zoom_factor: 2"), (3, 5, 7))
