"""Net surgery: whoever writes to parameters, by whatever view, gets the new ones at the next forward."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pycaffe.net import Net
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("ip1", "data", 4) + layer("relu", "ReLU", "ip1", "ip1") + ip("ip2", "ip1", 5)
X = normal(2, 3)


def expected(net: Net) -> np.ndarray:
    one, two = net.params["ip1"], net.params["ip2"]
    hidden = np.maximum(X @ one[0].data.T + one[1].data, 0)
    return hidden @ two[0].data.T + two[1].data


def by_new_view(net: Net) -> None:
    net.params["ip1"][0].data[...] = normal(4, 3, seed=7)


def by_item(net: Net) -> None:
    net.params["ip2"][1].data[3] = 11


def by_flat(net: Net) -> None:
    net.params["ip1"][0].data.flat = normal(12, seed=7)


def by_flat_index(net: Net) -> None:
    net.params["ip1"][0].data.flat[::2] = 3


def by_torch(net: Net) -> None:
    torch.from_numpy(net.params["ip2"][0].data).mul_(-2)


def by_operator(net: Net) -> None:
    net.params["ip1"][0].data[...] *= 5
    net.params["ip1"][1].data[:] += 1


def by_layer(net: Net) -> None:
    net.layers[1].blobs[0].data[...] = normal(4, 3, seed=7)


def by_view_of_a_view(net: Net) -> None:
    net.params["ip1"][0].data.T.reshape(3, 2, 2)[0].transpose()[...] = 9
    memoryview(net.params["ip1"][1].data)[2] = 5.0


def by_copyto(net: Net) -> None:
    np.copyto(net.params["ip1"][0].data, normal(4, 3, seed=7))


WAYS = [
    by_new_view, by_item, by_flat, by_flat_index, by_torch, by_operator, by_layer, by_view_of_a_view, by_copyto,
]  # fmt: skip


@pytest.mark.parametrize("looked_before", [True, False])
@pytest.mark.parametrize("write", WAYS)
def test_the_next_forward_uses_what_was_written(write: Callable[[Net], None], looked_before: bool) -> None:
    net = net_of(TEXT, engine="onnxruntime")
    if looked_before:
        assert net.params["ip1"][0].data.any()
    before = net.forward(data=X)["ip2"].copy()
    write(net)
    gc.collect()
    np.testing.assert_allclose(net.forward()["ip2"], expected(net), rtol=1e-5, atol=1e-6)
    assert np.abs(net.blobs["ip2"].data - before).max() > 1e-3
    write(net)
    net.params["ip2"][0].data[...] = 1
    np.testing.assert_allclose(net.forward()["ip2"], expected(net), rtol=1e-5, atol=1e-6)


def held_array(net: Net) -> object:
    return net.params["ip1"][0].data


def held_flat(net: Net) -> object:
    return net.params["ip1"][0].data.flat


def held_tensor(net: Net) -> object:
    return torch.from_numpy(net.params["ip1"][0].data)


@pytest.mark.parametrize("hold", [held_array, held_flat, held_tensor])
def test_a_view_that_is_held_may_be_written_at_any_time(hold: Callable[[Net], object]) -> None:
    net = net_of(TEXT, engine="onnxruntime")
    held = hold(net)
    for round_ in range(4):
        held[0] = round_  # type: ignore[index]
        np.testing.assert_allclose(net.forward(data=X)["ip2"], expected(net), rtol=1e-5, atol=1e-6)
        held[1] = -round_  # type: ignore[index]
        np.testing.assert_allclose(net.forward()["ip2"], expected(net), rtol=1e-5, atol=1e-6)
    held[0] = 77  # type: ignore[index]
    del held
    gc.collect()
    np.testing.assert_allclose(net.forward()["ip2"], expected(net), rtol=1e-5, atol=1e-6)


def test_surgery_between_shapes_that_are_compiled_already() -> None:
    net = net_of(TEXT, engine="onnxruntime")
    for size in (2, 3, 2, 3):
        net.blobs["data"].reshape(size, 3)
        net.forward()
    net.params["ip1"][0].data[...] = 2
    for size in (3, 2):
        net.blobs["data"].reshape(size, 3)
        net.blobs["data"].data[...] = 1
        want = np.maximum(6 + net.params["ip1"][1].data, 0) @ net.params["ip2"][0].data.T + net.params["ip2"][1].data
        np.testing.assert_allclose(net.forward()["ip2"], [want] * size, rtol=1e-5, atol=1e-6)


def test_surgery_on_one_of_several_nets_leaves_the_others() -> None:
    first, second = net_of(TEXT), net_of(TEXT)
    want = second.forward(data=X)["ip2"].copy()
    first.forward(data=X)
    first.params["ip1"][0].data[...] = 0
    first.forward()
    np.testing.assert_array_equal(second.forward()["ip2"], want)


def test_a_solver_step_by_hand_is_seen_by_the_next_forward() -> None:
    net = net_of("force_backward: true " + TEXT)
    net.forward(data=X)
    net.backward(ip2=np.ones((2, 5)))
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] -= 0.1 * blob.diff
    np.testing.assert_allclose(net.forward()["ip2"], expected(net), rtol=1e-5, atol=1e-6)


def test_a_parameter_that_was_given_a_larger_shape() -> None:
    """Fully convolutional surgery goes through nets of another shape, but a blob's reshape must not be missed."""
    net = net_of(data(2, 3) + layer("bias", "Bias", "data", rest="bias_param { axis: 1 }"), engine="onnxruntime")
    net.forward(data=X)
    net.params["bias"][0].reshape(30)
    net.params["bias"][0].reshape(3)
    net.params["bias"][0].data[...] = [1, 2, 3]
    np.testing.assert_allclose(net.forward()["bias"], X + np.array([1, 2, 3]), rtol=1e-6)
