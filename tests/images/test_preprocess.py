from __future__ import annotations

import pathlib
import pickle
from typing import Any

import cv2
import numpy as np
import pytest

from caffe.proto import caffe_pb2
from pycaffe.errors import InputError
from pycaffe.images import ImagePreprocess

RNG = np.random.default_rng(5)
IMAGE = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()


def test_defaults_subtract_imagenets_mean_from_bgr() -> None:
    result = ImagePreprocess()(IMAGE)
    assert (result.shape, result.dtype, result.flags.c_contiguous) == ((3, 6, 9), np.float32, True)
    expected = IMAGE.astype(np.float32).transpose(2, 0, 1) - np.array([104, 117, 123], np.float32)[:, None, None]
    np.testing.assert_array_equal(result, expected)


def test_paths_bytes_and_arrays_agree(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    preprocess = ImagePreprocess()
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), PNG):
        np.testing.assert_array_equal(preprocess(source), preprocess(IMAGE))


def test_scale_comes_after_the_mean_and_rgb_has_its_mean_in_that_order() -> None:
    result = ImagePreprocess(mean=(1, 2, 3), scale=0.5, channel_order="RGB")(IMAGE)
    for channel, mean in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(result[channel], (IMAGE[:, :, 2 - channel].astype(np.float32) - mean) * 0.5)


@pytest.mark.parametrize("mean", [7, 7.0, (7,), np.array([7]), [7, 7, 7], np.full((3, 6, 9), 7), np.full((6, 9), 7)])
def test_forms_of_a_mean(mean: Any) -> None:
    expected = IMAGE.transpose(2, 0, 1).astype(np.float32) - 7
    np.testing.assert_array_equal(ImagePreprocess(mean=mean)(IMAGE), expected)


def test_no_mean() -> None:
    np.testing.assert_array_equal(ImagePreprocess(mean=None)(IMAGE), IMAGE.transpose(2, 0, 1).astype(np.float32))


def test_resize_stretches_as_opencv_does_and_crop_takes_the_centre() -> None:
    stretched = cv2.resize(IMAGE, (8, 8)).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(ImagePreprocess(mean=None, resize=8)(IMAGE), stretched)
    np.testing.assert_array_equal(ImagePreprocess(mean=None, resize=8, crop=5)(IMAGE), stretched[:, 1:6, 1:6])
    assert ImagePreprocess(resize=(4, 11))(IMAGE).shape == (3, 4, 11)


def test_a_mean_array_is_cropped_at_its_centre_like_the_image() -> None:
    mean = RNG.random((3, 6, 9)).astype(np.float32)
    whole = IMAGE.transpose(2, 0, 1) - mean
    np.testing.assert_allclose(ImagePreprocess(mean=mean, crop=4)(IMAGE), whole[:, 1:5, 2:6], rtol=1e-6)


def test_means_from_files(tmp_path: pathlib.Path) -> None:
    mean = RNG.random((3, 6, 9)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=6, width=9, data=mean.ravel().tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    expected = ImagePreprocess(mean=mean)
    assert ImagePreprocess(mean=tmp_path / "mean.npy") == expected
    assert ImagePreprocess(mean=str(tmp_path / "mean.binaryproto")) == expected


def test_grey() -> None:
    preprocess = ImagePreprocess(mean=(100,), grey=True)
    expected = cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY)[None].astype(np.float32) - 100
    np.testing.assert_array_equal(preprocess(IMAGE), expected)
    np.testing.assert_array_equal(preprocess(cv2.imencode(".bmp", IMAGE)[1].tobytes()), expected)
    np.testing.assert_array_equal(preprocess(IMAGE[:, :, 0]), IMAGE[None, :, :, 0].astype(np.float32) - 100)
    assert ImagePreprocess(mean=None, grey=True, resize=4)(PNG).shape == (1, 4, 4)


def test_arrays_with_one_or_four_channels_for_a_colour_net() -> None:
    preprocess = ImagePreprocess(mean=None)
    np.testing.assert_array_equal(preprocess(IMAGE[:, :, :1]), np.repeat(IMAGE[None, :, :, 0], 3, axis=0))
    np.testing.assert_array_equal(preprocess(np.dstack([IMAGE, IMAGE[:, :, 0]])), preprocess(IMAGE))


def test_pickles_and_compares_by_value() -> None:
    mean = RNG.random((3, 6, 9))
    preprocess = ImagePreprocess(mean=mean, scale=0.25, resize=(7, 8), crop=5, channel_order="RGB")
    again = pickle.loads(pickle.dumps(preprocess))
    assert again == preprocess
    np.testing.assert_array_equal(again(IMAGE), preprocess(IMAGE))
    for other in (ImagePreprocess(), ImagePreprocess(mean=None), ImagePreprocess(mean=mean + 1, scale=0.25)):
        assert preprocess != other
    assert preprocess != "a string"


def test_repr_says_all() -> None:
    assert repr(ImagePreprocess(mean=(1, 2, 3), resize=8)) == (
        "ImagePreprocess(mean=(1.0, 2.0, 3.0), scale=1.0, resize=(8, 8), crop=None, channel_order='BGR', grey=False)"
    )
    assert "mean=<array (3, 6, 9)>" in repr(ImagePreprocess(mean=np.zeros((3, 6, 9))))
    assert "mean=None" in repr(ImagePreprocess(mean=None))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"channel_order": "GBR"}, "'BGR' or 'RGB', not 'GBR'"),
        ({"crop": 0}, "crop is a positive number of pixels, not 0"),
        ({"resize": (0, 5)}, r"all positive, not \(0, 5\)"),
        ({"mean": (1, 2)}, "Specify either 1 mean_value or as many as channels: 3. The mean has 2"),
        ({"grey": True}, "as many as channels: 1. The mean has 3"),
        ({"mean": np.zeros((2, 4, 5))}, r"The mean has shape \(2, 4, 5\)"),
        ({"mean": "no_mean.npy"}, "Could not read the mean file 'no_mean.npy'"),
        ({"mean": "no_mean.binaryproto"}, "Could not open or find file 'no_mean.binaryproto'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ImagePreprocess(**arguments)


@pytest.mark.parametrize(
    ("arguments", "image", "match"),
    [
        ({"crop": 7}, IMAGE, "Cannot take 7 x 7 pixels from the image of 6 x 9. Resize"),
        ({"mean": np.zeros((3, 5, 5))}, IMAGE, "Cannot take 6 x 9 pixels from the mean of 5 x 5"),
        ({}, IMAGE.astype(np.float32), r"uint8 \(0 to 255, blue green red\), not float32"),
        ({}, np.zeros((6, 9, 2), np.uint8), r"not \(6, 9, 2\)"),
        ({}, b"no image", "it is not an image"),
    ],
)
def test_bad_images(arguments: dict[str, Any], image: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        ImagePreprocess(**arguments)(image)
