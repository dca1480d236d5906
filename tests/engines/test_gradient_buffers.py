"""After `clear_param_diffs` a parameter's gradient may come as its buffer; that must never be somebody else's."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.net import TRAIN, Net
from tests.net.nets import data, ip, layer, net_of

WEIGHTED = layer("loss", "Reduction", "out", "loss", "loss_weight: 3")


def backward(net: Net) -> None:
    net.forward()
    net.backward()


def test_a_gradient_comes_as_the_buffer_and_the_next_is_added() -> None:
    net = net_of(data(5, 3) + ip("out", "data", 4) + WEIGHTED, TRAIN)
    net.blobs["data"].data[...] = np.random.default_rng(1).standard_normal((5, 3))
    want = np.broadcast_to(3 * net.blobs["data"].data.sum(0), (4, 3))
    weight = net.params["out"][0]
    net.clear_param_diffs()
    assert not weight.diff_storage.allocated
    backward(net)
    np.testing.assert_allclose(weight.diff, want, rtol=1e-5)
    backward(net)
    np.testing.assert_allclose(weight.diff, 2 * want, rtol=1e-5)
    view = weight.diff
    net.clear_param_diffs()
    assert (view == 0).all()
    backward(net)
    np.testing.assert_allclose(view, want, rtol=1e-5)


def test_a_gradient_that_is_the_top_diff_itself_is_copied() -> None:
    parameter = layer("out", "Parameter", "", "out", "parameter_param { shape { dim: 3 dim: 2 } }")
    net = net_of(parameter + WEIGHTED, TRAIN)
    net.clear_param_diffs()
    backward(net)
    diff = net.params["out"][0].diff
    np.testing.assert_array_equal(diff, np.full((3, 2), 3))
    net.blobs["out"].diff[...] = 7
    assert (diff == 3).all()


@pytest.mark.parametrize("times", [1, 2])
def test_shared_parameters_add_up(times: int) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    net = net_of(data(5, 4) + ip("a", "data", 4, shared) + ip("out", "a", 4, shared) + WEIGHTED, TRAIN)
    net.blobs["data"].data[...] = np.random.default_rng(1).standard_normal((5, 4))
    weight, x = net.params["a"][0].data.astype(float), net.blobs["data"].data.astype(float)
    net.clear_param_diffs()
    for _ in range(times):
        backward(net)
    hidden = x @ weight.T + net.params["a"][1].data
    ones = np.full((5, 4), 3.0)
    want = ones.T @ hidden + (ones @ weight).T @ x
    np.testing.assert_allclose(net.params["out"][0].diff, times * want, rtol=1e-4)
    assert net.params["a"][0].diff_storage is net.params["out"][0].diff_storage
