from __future__ import annotations

import pathlib

import numpy as np
import pytest

import caffe
from pycaffe.errors import InputError

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 5 dim: 6 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
"""
RNG = np.random.default_rng(23)
WEIGHTS = RNG.standard_normal((2, 3 * 5 * 6)).astype(np.float32)
BIAS = np.array([0.5, -1.5], np.float32)


@pytest.fixture
def files(tmp_path: pathlib.Path) -> tuple[str, str]:
    prototxt, weights = str(tmp_path / "deploy.prototxt"), str(tmp_path / "w.caffemodel")
    pathlib.Path(prototxt).write_text(NET)
    net = caffe.Net(prototxt, caffe.TEST)
    net.params["ip"][0].data[...] = WEIGHTS
    net.params["ip"][1].data[...] = BIAS
    net.save(weights)
    return prototxt, weights


def score(inputs: np.ndarray) -> np.ndarray:
    """What the net gives for inputs (N, 3, 5, 6)."""
    return inputs.reshape(len(inputs), -1) @ WEIGHTS.T + BIAS


def test_whole_images(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files)
    assert isinstance(classifier, caffe.Net)
    assert tuple(classifier.image_dims) == tuple(classifier.crop_dims) == (5, 6)
    images = [RNG.random((9, 7, 3)).astype(np.float32) for _ in range(7)]  # more than a batch, not a multiple of it
    predictions = classifier.predict(images, oversample=False)
    inputs = np.stack([caffe.io.resize_image(image, (5, 6)).transpose(2, 0, 1) for image in images])
    np.testing.assert_allclose(predictions, score(inputs), rtol=1e-4, atol=1e-5)


def test_centre_crop_and_preprocessing(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(
        *files,
        image_dims=(10, 9),
        mean=np.array([1.0, 2.0, 3.0]),
        input_scale=0.5,
        raw_scale=10,
        channel_swap=(2, 1, 0),
    )
    image = RNG.random((10, 9, 3)).astype(np.float32)
    cut = image[2:7, 1:7].transpose(2, 0, 1)[::-1]  # 10 / 2 - 5 / 2 and 9 / 2 - 6 / 2, cut off
    expected = score((cut[None] * 10 - np.array([1, 2, 3])[:, None, None]) * 0.5)
    np.testing.assert_allclose(classifier.predict([image], oversample=False), expected, rtol=1e-4, atol=1e-5)


def test_oversampling_averages_ten_crops(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files, image_dims=np.array([8, 9]))
    images = [RNG.random((8, 9, 3)).astype(np.float32) for _ in range(2)]
    predictions = classifier.predict(images)
    assert predictions.shape == (2, 2)
    crops = caffe.io.oversample(images, (5, 6)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(predictions, score(crops).reshape(2, 10, 2).mean(1), rtol=1e-4, atol=1e-5)


def test_bad_input(files: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="at least one image"):
        caffe.Classifier(*files).predict([])
    with pytest.raises(InputError, match="Cannot take 5 x 6 pixels from images of 4 x 9"):
        caffe.Classifier(*files, image_dims=(4, 9)).predict([np.ones((4, 9, 3))], oversample=False)
    with pytest.raises(InputError, match="crops of 5 x 6 from images of 4 x 9"):
        caffe.Classifier(*files, image_dims=(4, 9)).predict([np.ones((4, 9, 3))])
