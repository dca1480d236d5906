from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import CaffeError, InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer, run_fork_golden


@pytest.mark.parametrize(
    "name",
    [
        *(f"upsample_{i}" for i in (0, 1, 2)),
        "upsample_3d",
        *(f"upsample_mask_{i}" for i in range(6)),
        "upsample_segnet",
    ],
)
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def layer(param: str, mask: bool = False) -> str:
    bottoms = 'bottom: "b0"' + ' bottom: "b1"' * mask
    return f'layer {{ name: "l" type: "Upsample" {bottoms} top: "t0" upsample_param {{ {param} }} }}'


@pytest.mark.parametrize(("param", "scale"), [("", 1), ("scale: 2", 2), ("scale: 3", 3)])
def test_one_bottom_repeats_pixels(param: str, scale: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    check_layer(layer(param), [x], expect=lambda x: x.repeat(scale, 2).repeat(scale, 3))


@pytest.mark.parametrize(
    ("param", "size"),
    [
        ("", (4, 6)),
        ("scale: 3", (6, 9)),
        ("scale_h: 2 scale_w: 3", (4, 9)),
        ("pad_out_h: true pad_out_w: true", (3, 5)),
        ("upsample_h: 5 upsample_w: 7", (5, 7)),
    ],
)
def test_a_mask_says_where_values_go(param: str, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 4, 2, 3))
    places = [generator.permutation(size[0] * size[1])[:6] for _ in range(8)]
    mask = np.array(places, np.float32).reshape(x.shape)

    def expect(x, mask):
        y = np.zeros((2, 4, size[0] * size[1]), np.float32)
        for n, c in np.ndindex(2, 4):
            y[n, c, mask[n, c].astype(int).ravel()] = x[n, c].ravel()
        return y.reshape(2, 4, *size)

    check_layer(layer(param, mask=True), [x, mask], expect=expect)


def test_of_several_values_at_one_place_the_last_stays_and_each_gets_its_gradient() -> None:
    for engine in ("torch", "onnxruntime"):
        net = build(layer("upsample_h: 2 upsample_w: 2", mask=True), (1, 1, 1, 3), (1, 1, 1, 3), engine=engine)
        net.blobs["b0"].data[...] = [[[[5, 6, 7]]]]
        net.blobs["b1"].data[...] = [[[[2, 0, 2]]]]
        net.forward()
        assert net.blobs["t0"].data.tolist() == [[[[6, 0], [7, 0]]]]
        net.blobs["t0"].diff[...] = [[[[1, 2], [3, 4]]]]
        net.backward()
        assert net.blobs["b0"].diff.tolist() == [[[[3, 1, 3]]]]
        assert not net.blobs["b1"].diff.any()


@pytest.mark.parametrize("place", [-1, 16, 1e9, np.nan])
def test_a_place_outside_the_top(place: float) -> None:
    net = build(layer("scale: 2", mask=True), (1, 1, 2, 2), (1, 1, 2, 2), engine="torch")
    net.blobs["b1"].data[...] = place
    with pytest.raises(InputError, match=r"upsample top index .* out of range - check scale settings"):
        net.forward()
    net = build(layer("scale: 2", mask=True), (1, 1, 2, 2), (1, 1, 2, 2), engine="onnxruntime")
    net.blobs["b1"].data[...] = place
    with pytest.raises(CaffeError):
        net.forward()


@pytest.mark.parametrize(
    ("param", "mask", "message"),
    [
        ("scale: 0", False, "takes one parameter, scale > 0. Got scale 0"),
        ("upsample_h: 4 upsample_w: 4", False, "takes one parameter"),
        ("scale: 2 scale_h: 2 scale_w: 2", True, "scale OR scale_h & scale_w are required"),
        ("scale_h: 2", True, "scale OR scale_h & scale_w are required"),
        ("scale: 1", True, r"scale_h_ > 1, scale_w_ > 1. Got \(1, 1\)"),
        ("upsample_h: 1 upsample_w: 4", True, r"upsample_h_ > 1, upsample_w_ > 1. Got \(1, 4\)"),
        ("scale: 3 pad_out_w: true", True, "Output width padding compensation requires scale_w == 2"),
    ],
)
def test_bad_parameters(param: str, mask: bool, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param, mask), (2, 3, 4, 5), *[(2, 3, 4, 5)] * mask)


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match="the mask has the shape of the values"):
        build(layer("", mask=True), (2, 3, 4, 5), (2, 3, 5, 4))
    with pytest.raises(ShapeError, match="Input must have 4 axes"):
        build(layer("", mask=True), (2, 3, 4), (2, 3, 4))
    with pytest.raises(ShapeError, match="Upsample's bottom has 4 axes"):
        build(layer("scale: 2"), (2, 3, 4))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer("scale: 1000000000"), (2, 3, 4, 5))
