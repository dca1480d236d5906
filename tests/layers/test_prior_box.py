"""PriorBox on both engines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import Net
from tests.layers.case import FORKS, build, check_layer, run_fork_golden
from tests.net.nets import data, layer, net_of

MAP, IMAGE = (2, 3, 4, 5), (2, 3, 40, 60)


@pytest.fixture(autouse=True)
def dialect_of_ssd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCAFFE_DIALECT", "ssd")


def prior(param: str, bottoms: int = 2) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "PriorBox" {names} top: "t0" prior_box_param {{ {param} }} }}'


def boxes(net: Net) -> np.ndarray:
    return net.forward()["t0"][0, 0].reshape(-1, 4)


@pytest.mark.parametrize("name", sorted(path.stem for path in FORKS.glob("priorbox*.prototxt")))
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def test_value_by_hand() -> None:
    def expect(*bottoms: np.ndarray) -> np.ndarray:  # centres 15, 45 and 10, 30; 6 wide and high, then 12 x 3
        rows = []
        for y in (10, 30):
            for x in (15, 45):
                for width, height in ((6, 6), (12, 3)):
                    left, top = (x - width / 2) / 60, (y - height / 2) / 40
                    rows += [left, top, left + width / 60, top + height / 40]
        return np.array([[rows, [0.1, 0.1, 0.2, 0.2] * 8]], np.float32)

    bottoms = [np.zeros((2, 3, 2, 2)), np.zeros(IMAGE)]
    param = "min_size: 6 aspect_ratio: 4 flip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
    check_layer(prior(param), bottoms, expect=expect)


def loop(sizes, largest, ratios, flip, clip, steps, offset) -> np.ndarray:
    everything = [1.0]
    for ratio in ratios:
        everything += [ratio, 1 / ratio] if flip else [ratio]
    result = []
    for h in range(MAP[2]):
        for w in range(MAP[3]):
            x, y = (w + offset) * steps[1], (h + offset) * steps[0]
            for i, size in enumerate(sizes):
                pairs = [(size, size)] + ([(math.sqrt(size * largest[i]),) * 2] if largest else [])
                pairs += [(size * math.sqrt(r), size / math.sqrt(r)) for r in everything[1:]]
                for wide, high in pairs:
                    result += [(x - wide / 2) / 60, (y - high / 2) / 40, (x + wide / 2) / 60, (y + high / 2) / 40]
    return np.clip(result, 0, 1) if clip else np.array(result)


@pytest.mark.parametrize(
    ("sizes", "largest", "ratios", "flip", "clip", "steps", "offset"),
    [
        ((8,), (), (), True, False, None, 0.5),
        ((8, 11), (), (2, 3), True, True, None, 0.5),
        ((8, 11), (12, 20), (2, 3), False, False, (7, 9), 0.25),
        ((50,), (70,), (0.5,), True, True, (12.5, 12.5), 0),
    ],
)
def test_against_a_loop(sizes, largest, ratios, flip, clip, steps, offset) -> None:
    param = [f"min_size: {s}" for s in sizes] + [f"max_size: {s}" for s in largest]
    param += [f"aspect_ratio: {r}" for r in ratios] + [f"flip: {flip} clip: {clip} offset: {offset}".lower()]
    if steps:
        param.append(f"step_h: {steps[0]} step_w: {steps[1]}" if steps[0] != steps[1] else f"step: {steps[0]}")

    def expect(*bottoms: np.ndarray) -> np.ndarray:
        want = loop(sizes, largest, ratios, flip, clip, steps or (10, 12), offset)
        return np.stack([want, np.full_like(want, 0.1)])[np.newaxis].astype(np.float32)

    check_layer(prior(" ".join(param)), [np.zeros(MAP), np.zeros(IMAGE)], expect=expect)


def test_sizes_are_whole_pixels_but_not_as_opencv_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = prior("min_size: 6.9 max_size: 9.9")
    whole = boxes(build(text, MAP, IMAGE))
    np.testing.assert_array_equal(whole, boxes(build(prior("min_size: 6 max_size: 9"), MAP, IMAGE)))
    monkeypatch.setenv("PYCAFFE_DIALECT", "opencv")
    first, second = boxes(build(text, MAP, IMAGE))[:2]
    np.testing.assert_allclose((first[2:] - first[:2]) * (60, 40), 6.9, rtol=1e-5)
    np.testing.assert_allclose((second[2:] - second[:2]) * (60, 40), math.sqrt(6.9 * 9.9), rtol=1e-5)


def test_with_img_size_the_image_is_not_needed() -> None:
    want = boxes(build(prior("min_size: 6"), MAP, IMAGE))
    np.testing.assert_array_equal(boxes(build(prior("min_size: 6 img_h: 40 img_w: 60", 1), MAP)), want)
    square = boxes(build(prior("min_size: 6", 2), MAP, (1, 3, 50, 50)))
    np.testing.assert_array_equal(boxes(build(prior("min_size: 6 img_size: 50", 1), MAP)), square)


def test_an_aspect_ratio_counts_once() -> None:
    def count(param: str) -> int:
        return len(boxes(build(prior(f"min_size: 6 {param}"), MAP, IMAGE))) // 20

    assert count("aspect_ratio: 2 aspect_ratio: 2") == 3
    assert count("aspect_ratio: 2 aspect_ratio: 0.5") == 3
    assert count("aspect_ratio: 2 aspect_ratio: 0.5 flip: false") == 3
    assert count("aspect_ratio: 1 aspect_ratio: 1.0000001") == 1


def test_boxes_follow_the_shapes_and_are_made_once_for_them() -> None:
    net = build(prior("min_size: 6"), MAP, IMAGE)
    net.forward()
    made = net.layers[-1].boxes()
    assert net.layers[-1].boxes() is made
    net.blobs["b0"].reshape(1, 3, 2, 3)
    net.blobs["b1"].reshape(1, 3, 20, 30)
    assert net.forward()["t0"].shape == (1, 2, 24)
    np.testing.assert_array_equal(boxes(net), boxes(build(prior("min_size: 6"), (1, 3, 2, 3), (1, 3, 20, 30))))


def test_no_gradient_flows_back() -> None:
    net = build(prior("min_size: 6"), MAP, IMAGE)
    net.forward()
    net.blobs["b0"].diff[...] = 7
    net.blobs["t0"].diff[...] = 1
    net.backward()
    assert not net.blobs["b0"].diff.any()


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "must provide min_size"),
        ("min_size: 0", "min_size must be positive. Got 0.0"),
        ("min_size: -5", "min_size must be positive. Got -5.0"),
        ("min_size: nan", "min_size must be positive. Got nan"),
        ("min_size: inf", "min_size and max_size must be finite"),
        ("min_size: 5 max_size: 5", "max_size must be greater than min_size. Got 5.0 for 5.0"),
        ("min_size: 5 max_size: 6 max_size: 7", r"min_size_size == max_size_size \(1 vs. 2\)"),
        ("min_size: 5 aspect_ratio: -2", "aspect_ratio must be positive. Got -2.0"),
        ("min_size: 5 variance: 0.1 variance: 0.1", "Must and only provide 4 variance"),
        ("min_size: 5 variance: -0.1", "variance must be positive"),
        ("min_size: 5 img_size: 9 img_h: 9 img_w: 9", "Either img_size or img_h/img_w should be specified; not both"),
        ("min_size: 5 img_h: 9", "img_w should be larger than 0. Got 0"),
        ("min_size: 5 step: 9 step_h: 9 step_w: 9", "Either step or step_h/step_w should be specified; not both"),
        ("min_size: 5 step: -1", "step should be larger than 0. Got -1.0"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(prior(param), MAP, IMAGE)


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match="needs the image as its second bottom"):
        build(prior("min_size: 5", 1), MAP)
    with pytest.raises(ShapeError, match=r"Check failed: top_shape\[2\] > 0"):
        build(prior("min_size: 5"), (1, 3, 0, 5), IMAGE)
    with pytest.raises(ShapeError, match="divide by an image of shape"):
        build(prior("min_size: 5"), MAP, (1, 3, 0, 60))


def test_a_thousand_million_boxes_are_refused_and_take_no_memory() -> None:
    text = data(1, 1, 40000, 25000, name="x") + layer("p", "PriorBox", "x x", "p", "prior_box_param { min_size: 5 }")
    with pytest.raises(ShapeError, match=r"at most 16777216 boxes. Got 1000000000"):
        net_of(text)
