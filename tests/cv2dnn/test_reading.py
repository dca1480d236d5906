"""Files and buffers, names that occur twice, fields that no Caffe knows."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import pycaffe
from pycaffe.errors import InputError, ProtoError
from tests.cv2dnn.answers import input_of


def test_files_and_buffers_are_the_same(toy: tuple[str, str]) -> None:
    prototxt, weights = (pathlib.Path(path) for path in toy)
    outputs = []
    for given in (
        toy,
        (prototxt, weights),
        (prototxt.read_bytes(), weights.read_bytes()),
        (bytearray(prototxt.read_bytes()), memoryview(weights.read_bytes())),
        (np.fromfile(prototxt, np.uint8), np.fromfile(weights, np.uint8)),
        (prototxt.read_bytes(), weights),
    ):
        net = pycaffe.read_net_from_caffe(*given)
        net.setInput(input_of((2, 3, 13, 11)))
        outputs.append(net.forward())
    assert all(np.array_equal(outputs[0], output) for output in outputs)
    with pytest.raises(InputError, match="Expected a path, bytes or an array of uint8, got int"):
        pycaffe.read_net_from_caffe(5)


def test_unknown_fields_warn_here_and_are_refused_by_net(tmp_path: pathlib.Path) -> None:
    text = 'layer { name: "x" type: "Input" top: "x" mystery: 5 input_param { shape { dim: 1 dim: 2 } } }\n'
    text += 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param { riddle { deep: "er" } } }\n'
    file = tmp_path / "deploy.prototxt"
    file.write_text(text)
    with pytest.warns(UserWarning, match=r"deploy.prototxt:1:.*no field named \"mystery\".*are left out"):
        net = pycaffe.read_net_from_caffe(file)
    net.setInput(np.array([[-1.0, 2.0]]))
    assert net.forward().tolist() == [[0.0, 2.0]]
    with pytest.raises(ProtoError, match='no field named "mystery"'):
        pycaffe.Net(file, pycaffe.TEST)
    with pytest.raises(ProtoError, match="has no value named MAXIMUM"):
        pycaffe.read_net_from_caffe(b'mystery: 1 layer { name: "p" pooling_param { pool: MAXIMUM } }')


def test_layers_of_other_phases_are_left_out_and_names_are_made_different() -> None:
    net = pycaffe.read_net_from_caffe(
        b"""input: "input" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 6
        layer { name: "input" type: "Power" bottom: "input" top: "x" power_param { shift: -1 } }
        layer { name: "act" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "train" type: "Dropout" bottom: "x" top: "x" include { phase: TRAIN } }
        layer { name: "act" type: "Power" bottom: "x" top: "x" power_param { scale: 10 } }
        layer { name: "y" type: "Power" bottom: "x" top: "act" }"""
    )
    assert net.getLayerNames() == ("input", "act", "act_1", "y")
    net.setInput(np.array([[[[0.0, 3.0]]]]))
    assert [output.ravel().tolist() for output in net.forward(net.getLayerNames())] == [
        [-1.0, 2.0],
        [0.0, 2.0],
        [0.0, 20.0],
        [0.0, 20.0],
    ]
