from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = "force_backward: true " + data(3, 4) + ip("ip", "data", 5) + layer("tanh", "TanH", "ip")


def test_forward_all_pads_the_last_batch_and_drops_the_padding() -> None:
    net = net_of(TEXT)
    x = normal(7, 4)
    out = net.forward_all(blobs=["ip"], data=x)
    want = x @ net.params["ip"][0].data.T + net.params["ip"][1].data
    assert list(out) == ["tanh", "ip"]
    np.testing.assert_allclose(out["ip"], want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out["tanh"], np.tanh(want), rtol=1e-4, atol=1e-6)
    net.forward(data=np.zeros((3, 4)))
    np.testing.assert_allclose(out["ip"], want, rtol=1e-4, atol=1e-6)  # copies, not views


@pytest.mark.parametrize("count", [1, 3, 6])
def test_forward_all_of_lists_and_whole_batches(count: int) -> None:
    net = net_of(TEXT)
    x = normal(count, 4)
    assert net.forward_all(data=list(x))["tanh"].shape == (count, 5)


def test_forward_all_without_inputs_runs_nothing() -> None:
    assert {name: len(values) for name, values in net_of(TEXT).forward_all().items()} == {"tanh": 0}


def test_batch_fills_up_with_zeros() -> None:
    x = normal(4, 2)
    first, second = net_of(TEXT)._batch({"a": x})
    np.testing.assert_array_equal(first["a"], x[:3])
    np.testing.assert_array_equal(second["a"], [*x[3:], [0, 0], [0, 0]])


def test_forward_backward_all() -> None:
    net = net_of(TEXT)
    x, diff = normal(7, 4), normal(7, 5, seed=2)
    blobs, diffs = net.forward_backward_all(blobs=["ip"], diffs=["ip"], data=x, tanh=diff)
    top = np.tanh(x @ net.params["ip"][0].data.T + net.params["ip"][1].data)
    at_ip = diff * (1 - top**2)
    np.testing.assert_allclose(blobs["tanh"], top, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(diffs["ip"], at_ip, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(diffs["data"], at_ip @ net.params["ip"][0].data, rtol=1e-3, atol=1e-5)
    assert (list(blobs), list(diffs)) == (["tanh", "ip"], ["data", "ip"])
    np.testing.assert_allclose(net.params["ip"][0].diff, at_ip.T @ x, rtol=1e-3, atol=1e-5)


def test_a_name_that_is_no_input() -> None:
    with pytest.raises(InputError, match="Input blob arguments do not match net inputs"):
        net_of(TEXT).forward_all(dat=normal(3, 4))
