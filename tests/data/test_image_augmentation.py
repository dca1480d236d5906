from __future__ import annotations

import cv2
import numpy as np
import pytest

from pycaffe.data.image_augmentation import add_noise, distort_image, resize_image, resized_extents
from pycaffe.errors import DataError, LayerError
from pycaffe.proto.prototxt import parse_text
from pycaffe.proto.schema import DistortionParameter, NoiseParameter, ResizeParameter

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
GREY = IMAGE[..., :1]


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def distort(text: str, image: np.ndarray = IMAGE) -> np.ndarray:
    return distort_image(image, parse_text(DistortionParameter(), text, "d"), generator(), "it")


def noise(text: str, image: np.ndarray = IMAGE) -> np.ndarray:
    return add_noise(image, parse_text(NoiseParameter(), text, "n"), generator(), "it")


def resize(text: str, image: np.ndarray = IMAGE) -> np.ndarray:
    return resize_image(image, parse_text(ResizeParameter(), text, "r"), generator())


def test_brightness_shifts_and_contrast_scales_all_alike() -> None:
    ramp = np.arange(100, 160, dtype=np.uint8).reshape(4, 5, 3)
    shifts = np.unique(distort("brightness_prob: 1 brightness_delta: 32", ramp).astype(int) - ramp)
    assert len(shifts) == 1
    assert 0 < abs(shifts[0]) <= 32
    got = distort("contrast_prob: 1 contrast_lower: 0.5 contrast_upper: 0.5", ramp)
    np.testing.assert_array_equal(got, np.rint(ramp * 0.5))
    np.testing.assert_array_equal(distort("contrast_prob: 1 contrast_lower: 9 contrast_upper: 9", ramp), 255)


def test_colours() -> None:
    grey = distort("saturation_prob: 1", IMAGE)  # lower and upper are 0
    assert (grey == grey[..., :1]).all()
    hsv = [
        cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(int) for image in (IMAGE, distort("hue_prob: 1 hue_delta: 20"))
    ]
    assert np.abs(hsv[0][..., 2] - hsv[1][..., 2]).max() <= 3  # the value stays
    assert (hsv[0][..., 0] != hsv[1][..., 0]).any()
    swapped = distort("random_order_prob: 1")
    assert sorted(swapped[0, 0].tolist()) == sorted(IMAGE[0, 0].tolist())
    np.testing.assert_array_equal(distort(""), IMAGE)


def test_noise() -> None:
    np.testing.assert_array_equal(noise("inverse: true"), 255 - IMAGE)
    np.testing.assert_array_equal(noise("posterize: true"), IMAGE // 64 * 64 + 32)
    decolorized = noise("decolorize: true")
    np.testing.assert_array_equal(decolorized[..., 0], cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY))
    np.testing.assert_array_equal(noise("gauss_blur: true"), cv2.GaussianBlur(IMAGE, (7, 7), 1.5))
    assert (noise("erode: true") <= IMAGE).all()
    np.testing.assert_array_equal(noise("hist_eq: true", GREY)[..., 0], cv2.equalizeHist(GREY[..., 0]))
    clahe = cv2.createCLAHE(clipLimit=4).apply(np.ascontiguousarray(GREY[..., 0]))
    np.testing.assert_array_equal(noise("clahe: true", GREY)[..., 0], clahe)
    assert noise("hist_eq: true clahe: true jpeg: 50").shape == IMAGE.shape
    assert noise("jpeg: 50", GREY).shape == GREY.shape
    np.testing.assert_array_equal(noise("convert_to_hsv: true"), cv2.cvtColor(IMAGE, cv2.COLOR_BGR2HSV))
    assert noise("convert_to_lab: true").dtype == np.float32
    changed = (noise("saltpepper: true saltpepper_param { fraction: 0.1 value: 255 }") != IMAGE).any(axis=2)
    assert 0 < changed.sum() <= 60


def test_resizing() -> None:
    np.testing.assert_array_equal(resize("height: 10 width: 12"), cv2.resize(IMAGE, (12, 10)))
    nearest = cv2.resize(IMAGE, (12, 10), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize("height: 10 width: 12 interp_mode: NEAREST"), nearest)
    assert resize("height: 10 width: 12", GREY).shape == (10, 12, 1)
    for mode, wanted in (("WARP", (10, 12)), ("FIT_SMALL_SIZE", (10, 15)), ("FIT_LARGE_SIZE_AND_PAD", (10, 12))):
        text = f"height: 10 width: 12 resize_mode: {mode}"
        assert resized_extents(parse_text(ResizeParameter(), text, "r"), 20, 30) == wanted
        assert resize(text).shape == (*wanted, 3)
    padded = resize("height: 10 width: 12 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 7 pad_value: 8 pad_value: 9")
    np.testing.assert_array_equal(padded[1:9], cv2.resize(IMAGE, (12, 8)))
    assert (padded[[0, 9]] == [7, 8, 9]).all()
    tall = resize("height: 12 width: 12 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: REPEAT_NEAREST", IMAGE[:, :10])
    np.testing.assert_array_equal(tall[:, 3:9], cv2.resize(IMAGE[:, :10], (6, 12)))
    np.testing.assert_array_equal(tall[:, 0], tall[:, 3])


def test_what_does_not_go() -> None:
    with pytest.raises(DataError, match=r"hue or saturation needs eight-bit images of three channels\. it is uint8"):
        distort("hue_prob: 1 hue_delta: 1", GREY)
    with pytest.raises(DataError, match=r"distort_param needs eight-bit images\. it is float32"):
        distort("", IMAGE.astype(np.float32))
    with pytest.raises(DataError, match="noise_param needs eight-bit images of three channels"):
        noise("decolorize: true", GREY)
    with pytest.raises(LayerError, match=r"pad_value or as many as channels: 3\. Got 2"):
        resize("height: 9 width: 9 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 1 pad_value: 2")
    with pytest.raises(LayerError, match=r"as many as channels: 3\. Got 0"):
        noise("saltpepper: true")
    with pytest.raises(LayerError, match=r"fraction must be in 0 \.\. 1"):
        noise("saltpepper: true saltpepper_param { fraction: 1e9 value: 1 }")
