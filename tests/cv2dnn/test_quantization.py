"""int8 nets: close to the float net, with floats and with int8 in and out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import pycaffe
from pycaffe.cv2dnn.quantization import Scale
from pycaffe.errors import InputError, NetError
from tests.cv2dnn.answers import input_of


def test_a_quantized_net_is_close(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    samples = input_of((24, 3, 13, 11))
    with pytest.raises(NetError, match="Net isn't quantized"):
        net.getInputDetails()
    quantized = net.quantize([samples], cv2.CV_32F, cv2.CV_32F)
    net.setInput(samples[:2])
    quantized.setInput(samples[:2])
    prob, other = quantized.forward(("prob", "global"))
    expected_prob, expected_other = net.forward(("prob", "global"))
    assert abs(prob - expected_prob).max() < 0.1
    assert abs(other - expected_other).max() < 0.1 * abs(expected_other).max()
    assert quantized.getLayerNames() == net.getLayerNames()


def test_int8_in_and_out(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    samples = input_of((24, 3, 13, 11))
    quantized = net.quantize(samples, cv2.CV_8S, cv2.CV_8S)
    (scale,), (zero,) = quantized.getInputDetails()
    np.testing.assert_allclose(scale, (samples.max() - samples.min()) / 255, rtol=1e-5)
    scales, zeros = quantized.getOutputDetails()
    assert (scales[0], zeros[0]) == (1 / 256, -128)  # prob, a Softmax
    quantized.setInput(np.clip(np.rint(samples[:2] / scale) + zero, -128, 127).astype(np.int8))
    prob = quantized.forward("prob")
    assert prob.dtype == np.int8
    net.setInput(samples[:2])
    assert abs((prob.astype(np.float32) - zeros[0]) * scales[0] - net.forward("prob")).max() < 0.1
    with pytest.raises(InputError, match=r"quantized for inputs of CV_8S\. Got an array of float32"):
        quantized.setInput(samples[:2])


def test_what_calibration_refuses(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    with pytest.raises(InputError, match=r"Calibration data size should be equal to number of inputs\. Expected 1"):
        net.quantize([], cv2.CV_32F, cv2.CV_32F)
    with pytest.raises(InputError, match=r"Input depth should be CV_32F \(5\) or CV_8S \(1\). Got 0"):
        net.quantize(input_of((4, 3, 13, 11)), cv2.CV_8U, cv2.CV_32F)


def test_scales() -> None:
    scale = Scale(0.5, -10)
    assert scale.to_float(np.array([-10, -8], np.int8)).tolist() == [0.0, 1.0]
    assert scale.to_int8(np.array([0.0, 1.0, 1000.0, -1000.0], np.float32)).tolist() == [-10, -8, 127, -128]
