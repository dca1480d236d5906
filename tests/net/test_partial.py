from __future__ import annotations

import numpy as np
import pytest

from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("one", "data", 4) + layer("relu", "ReLU", "one", "one") + ip("two", "one", 5)
TEXT += layer("tanh", "TanH", "two") + layer("three", "Slice", "tanh", "left right", "slice_param { slice_point: 2 }")
ENGINES = ["torch", "onnxruntime"]


@pytest.mark.parametrize("engine", ENGINES)
def test_forward_to_a_layer_leaves_those_after_it_alone(engine: str) -> None:
    net = net_of(TEXT, engine=engine)
    out = net.forward(end="two", data=normal(2, 3))
    assert list(out) == ["two"]
    one = np.maximum(normal(2, 3) @ net.params["one"][0].data.T + net.params["one"][1].data, 0)
    np.testing.assert_allclose(net.blobs["one"].data, one, rtol=1e-5, atol=1e-6)
    assert not net.blobs["tanh"].data.any()
    assert list(net.forward(blobs=["one"], end="three")) == ["left", "right", "one"]


@pytest.mark.parametrize("engine", ENGINES)
def test_forward_to_a_layer_before_an_in_place_one(engine: str) -> None:
    net = net_of(TEXT, engine=engine)
    net.params["one"][0].data[...] = -1
    net.params["one"][1].data[...] = 0
    np.testing.assert_array_equal(net.forward(end="one", data=np.ones((2, 3)))["one"], np.full((2, 4), -3))
    assert list(net.forward(end="relu")) == ["one"]
    assert not net.blobs["one"].data.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_forward_from_a_layer_uses_edited_blobs(engine: str) -> None:
    net = net_of(TEXT, engine=engine)
    net.forward(data=normal(2, 3))
    kept = net.blobs["one"].data.copy()
    edited = normal(2, 5, seed=3)
    net.blobs["two"].data[...] = edited
    out = net.forward(start="tanh")
    np.testing.assert_allclose(np.hstack([out["left"], out["right"]]), np.tanh(edited), rtol=1e-5)
    np.testing.assert_array_equal(net.blobs["one"].data, kept)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_range_in_the_middle(engine: str) -> None:
    net = net_of(TEXT, engine=engine)
    net.blobs["one"].data[...] = -(normal(2, 4) ** 2)
    out = net.forward(start="relu", end="two")
    np.testing.assert_allclose(out["two"], [net.params["two"][1].data] * 2, rtol=1e-5)
    assert not net.blobs["tanh"].data.any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_blob_that_was_reshaped_in_the_middle(engine: str) -> None:
    net = net_of(TEXT, engine=engine)
    net.forward()
    for size in (6, 3, 6):
        net.blobs["two"].reshape(size, 5)
        net.blobs["two"].data[...] = normal(size, 5)
        out = net.forward(start="tanh")
        np.testing.assert_allclose(out["left"], np.tanh(normal(size, 5)[:, :2]), rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_at_a_time_gives_what_the_whole_gives(engine: str) -> None:
    whole, by_layer = net_of(TEXT, engine=engine), net_of(TEXT, engine=engine)
    by_layer.share_with(whole)
    whole.forward(data=normal(2, 3))
    by_layer.blobs["data"].data[...] = normal(2, 3)
    for name in by_layer._layer_names:
        by_layer.forward(start=name, end=name)
    for name in whole.blobs:
        np.testing.assert_allclose(by_layer.blobs[name].data, whole.blobs[name].data, rtol=1e-5, atol=1e-6)


def test_a_start_after_the_end_runs_nothing() -> None:
    net = net_of(TEXT)
    net.forward(start="tanh", end="one", data=normal(2, 3))
    assert not net.blobs["tanh"].data.any()
    assert not net.blobs["one"].data.any()
