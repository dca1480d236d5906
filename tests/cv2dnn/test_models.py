"""Models: what OpenCV's answers do not cover (tests/cv2dnn/test_answers.py)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pycaffe import cv2dnn, read_net_from_caffe
from pycaffe.cv2dnn.models import _boxes
from pycaffe.errors import InputError, NetError
from tests.cv2dnn.conftest import Files

IMAGE = np.full((48, 120, 3), 100, np.uint8)


def test_nets_and_files(files: Files) -> None:
    net = read_net_from_caffe(*files("refinenet"))
    for model in (cv2dnn.Model(net), cv2dnn.Model(network=net), cv2dnn.Model(*files("refinenet"))):
        assert [output.shape for output in model.predict(IMAGE)] == [(1, 4), (1, 8), (1, 2)]
        assert model.setPreferableBackend(3).setPreferableTarget(0).enableWinograd(True) is model
    with pytest.raises(InputError, match="Expected a Net, or the paths"):
        cv2dnn.Model()


def test_models_that_do_not_fit_the_net(files: Files) -> None:
    net = read_net_from_caffe(*files("refinenet"))
    with pytest.raises(NetError, match=r"outs.size\(\) == 1 is needed. The outputs are"):
        cv2dnn.ClassificationModel(net).classify(IMAGE)
    with pytest.raises(cv2.error, match='Unknown output layer type: "Softmax"'):
        cv2dnn.DetectionModel(net).detect(IMAGE)
    with pytest.raises(NetError, match=r"Expected an output of maps .* got \(1, 8\)"):
        cv2dnn.KeypointsModel(net).setOutputNames(["conv6-3"]).estimate(IMAGE)
    with pytest.raises(InputError, match="Input size not specified"):
        cv2dnn.Model(net).setInputSize((0, 0)).predict(IMAGE)
    with pytest.raises(InputError, match="Expected up to four numbers"):
        cv2dnn.Model(net).setInputMean((1, 2, 3, 4, 5))


def test_points_come_as_the_net_gives_them() -> None:
    net = read_net_from_caffe(
        b"""input: "data" input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 5
        layer { name: "points" type: "Reshape" bottom: "data" top: "points"
                reshape_param { shape { dim: 1 dim: 15 dim: 2 } } }"""
    )
    image = np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
    points = cv2dnn.KeypointsModel(net).estimate(image)
    np.testing.assert_array_equal(points, image.transpose(2, 0, 1).reshape(15, 2))


def test_faster_rcnn_gets_the_size_of_its_image() -> None:
    net = read_net_from_caffe(
        b"""input: "data" input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 5
        input: "im_info" input_dim: 1 input_dim: 3 input_dim: 1 input_dim: 1
        layer { name: "out" type: "Power" bottom: "im_info" top: "out" }
        layer { name: "sink" type: "Silence" bottom: "data" }"""
    )
    model = cv2dnn.Model(net).setInputSize((7, 4)).setOutputNames(["out"])
    np.testing.assert_allclose(model.predict(IMAGE)[0], [[4, 7, 1.6]], rtol=1e-6)


def test_boxes_in_pixels_and_in_parts() -> None:
    corners = np.array(
        [[0.25, 0.5, 0.75, 1.5], [10, 20, 50, 60], [-0.5, -0.5, 1.5, 1.5], [0.9, 0.9, 0.9, 0.9]], np.float32
    )
    assert _boxes(corners, 100, 80).tolist() == [[25, 40, 51, 40], [10, 20, 41, 41], [0, 0, 100, 80], [90, 72, 1, 1]]
