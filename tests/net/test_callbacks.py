from __future__ import annotations

import numpy as np
import pytest

from tests.net.nets import data, ip, layer, net_of, normal

TEXT = "force_backward: true " + data(2, 3) + ip("ip", "data", 4) + layer("relu", "ReLU", "ip", "ip")
TEXT += layer("tanh", "TanH", "ip")


def test_callbacks_run_around_every_layer_in_order() -> None:
    net, calls = net_of(TEXT), []
    net.before_forward(lambda layer: calls.append(("before", layer)))
    net.after_forward(lambda layer: calls.append(("after", layer)))
    net.before_backward(lambda layer: calls.append(("before back", layer)))
    net.after_backward(lambda layer: calls.append(("after back", layer)))
    net.forward(data=normal(2, 3))
    assert calls == [(when, layer) for layer in range(4) for when in ("before", "after")]
    calls.clear()
    net.backward()
    assert calls == [(when, layer) for layer in (3, 2, 1, 0) for when in ("before back", "after back")]
    calls.clear()
    net.forward(start="relu", end="relu")
    assert calls == [("before", 2), ("after", 2)]


def test_each_of_several_callbacks_is_called() -> None:
    net, calls = net_of(TEXT), []
    for name in "ab":
        net.before_forward(lambda layer, name=name: calls.append(name + str(layer)))
    net.forward(end="ip")
    assert calls == ["a0", "b0", "a1", "b1"]


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_callback_sees_and_changes_what_layers_read(engine: str) -> None:
    net, seen = net_of(TEXT, engine=engine), []

    def before(layer: int) -> None:
        if layer == 2:
            seen.append(net.blobs["ip"].data.copy())
            net.blobs["ip"].data[0, 0] = 5

    net.before_forward(before)
    net.params["ip"][0].data[...] = -1
    net.params["ip"][1].data[...] = 0
    out = net.forward(data=np.ones((2, 3)))["tanh"]
    np.testing.assert_array_equal(seen[0], np.full((2, 4), -3))  # from before the ReLU that works in place
    np.testing.assert_allclose(out, [[np.tanh(5), 0, 0, 0], [0, 0, 0, 0]], rtol=1e-5)


def test_callbacks_do_not_change_the_numbers() -> None:
    plain, watched = net_of(TEXT), net_of(TEXT)
    watched.share_with(plain)
    watched.after_forward(lambda layer: None)
    for net in (plain, watched):
        net.forward(data=normal(2, 3))
        net.backward(tanh=normal(2, 4, seed=1))
    for name in plain.blobs:
        np.testing.assert_allclose(watched.blobs[name].data, plain.blobs[name].data, rtol=1e-5)
        np.testing.assert_allclose(watched.blobs[name].diff, plain.blobs[name].diff, rtol=1e-4, atol=1e-6)


def test_an_exception_in_a_callback_arrives_as_it_is() -> None:
    class Stop(Exception):
        pass

    def stop(layer: int) -> None:
        if layer == 1:
            raise Stop(layer)

    net = net_of(TEXT)
    net.before_forward(stop)
    with pytest.raises(Stop, match="1"):
        net.forward()
    net = net_of(TEXT)
    net.after_backward(stop)
    net.forward()
    with pytest.raises(Stop, match="1"):
        net.backward()
    assert net.forward()["tanh"].shape == (2, 4)  # and the net goes on
