"""The set-up of Python layers; tests/net has what they do in a net."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import caffe
from pycaffe.errors import LayerError
from tests.layers.case import build

MODULE = "layers_of_a_user"


class Doubling(caffe.Layer):
    """y = factor * x with a learnable factor of its own shape, (2,); the first element counts."""

    def setup(self, bottom, top):
        self.blobs.add_blob(2)
        self.blobs[0].data[...] = float(self.param_str or 2)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] += np.vdot(top[0].diff, bottom[0].data)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


class NotALayer:
    """Takes the parameter and does not derive from caffe.Layer."""

    def __init__(self, param):
        self.param = param


class Failing(caffe.Layer):
    """Refuses in its set-up."""

    def setup(self, bottom, top):
        raise ZeroDivisionError("not today")


@pytest.fixture(autouse=True)
def user_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(MODULE)
    module.Doubling, module.NotALayer, module.Failing = Doubling, NotALayer, Failing
    monkeypatch.setitem(sys.modules, MODULE, module)


def text(layer: str, module: str = MODULE, more: str = "") -> str:
    param = f'module: "{module}" layer: "{layer}" {more}'
    return f'layer {{ name: "l" type: "Python" bottom: "b0" top: "t0" python_param {{ {param} }} }}'


def test_forward_backward_and_a_parameter() -> None:
    net = build(text("Doubling", more="param_str: '3' share_in_parallel: true"), (2, 3, 5, 4))
    x, dy = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(net.forward(b0=x)["t0"], np.float32(3) * x)
    net.blobs["t0"].diff[...] = dy
    net.backward()
    np.testing.assert_array_equal(net.blobs["b0"].diff, np.float32(3) * dy)
    np.testing.assert_allclose(net.params["l"][0].diff, [np.vdot(x, dy), 0], rtol=1e-5)
    assert isinstance(net.layers[1], Doubling)
    assert (net.layers[1].param_str, net.layers[1].phase) == ("3", caffe.TEST)


def test_a_class_that_the_module_does_not_have() -> None:
    with pytest.raises(LayerError, match="Module 'layers_of_a_user' has no class 'Tripling'"):
        build(text("Tripling"), (2, 3))


def test_a_class_that_is_no_layer() -> None:
    with pytest.raises(LayerError, match=r"Class 'NotALayer' of 'layers_of_a_user' does not derive from caffe\.Layer"):
        build(text("NotALayer"), (2, 3))


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_a_user"):
        build(text("Doubling", "no_such_module_of_a_user"), (2, 3))


def test_an_exception_in_setup_arrives_as_itself() -> None:
    with pytest.raises(ZeroDivisionError, match="not today"):
        build(text("Failing"), (2, 3))
