from __future__ import annotations

import numpy as np
import pytest

from pycaffe.engines.onnxruntime_engine import OnnxRuntimeEngine
from pycaffe.errors import InputError
from pycaffe.net import TRAIN
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("one", "data", 4) + layer("drop", "Dropout", "one") + ip("two", "drop", 5)
RNN = data(4, 2, 3) + data(4, 2, name="cont") + layer("a", "TanH", "data")
RNN += layer("r", "RNN", "a cont", rest='recurrent_param { num_output: 2 weight_filler { type: "xavier" } }')
RNN += layer("b", "AbsVal", "r")


def test_run_goes_as_far_as_layers_have_an_onnx_form() -> None:
    net = net_of(RNN)
    engine = OnnxRuntimeEngine(net._graph)
    names = net._layer_names
    net.blobs["data"].data[...] = normal(4, 2, 3)
    assert names[engine.run(0, len(names) - 1)] == "a"
    np.testing.assert_allclose(net.blobs["a"].data, np.tanh(normal(4, 2, 3)), rtol=1e-5)
    r = names.index("r")
    assert engine.run(r, len(names) - 1) == r - 1
    net.blobs["r"].data[...] = -1
    assert names[engine.run(r + 1, len(names) - 1)] == "b"
    assert (net.blobs["b"].data == 1).all()
    assert engine.run(0, 0) == 0


def test_a_net_of_compiled_parts_and_torch_between() -> None:
    net, want = net_of(RNN), net_of(RNN, engine="torch")
    want.share_with(net)
    for seed in range(3):
        values = {"data": normal(4, 2, 3, seed=seed), "cont": np.ones((4, 2))}
        np.testing.assert_allclose(net.forward(**values)["b"], want.forward(**values)["b"], rtol=1e-4, atol=1e-6)


def test_many_shapes_in_turn() -> None:
    net = net_of(TEXT, engine="onnxruntime")
    one, two = net.params["one"], net.params["two"]
    for size in [*range(1, 25), *range(24, 0, -1)]:
        net.blobs["data"].reshape(size, 3)
        x = normal(size, 3, seed=size)
        want = (x @ one[0].data.T + one[1].data) @ two[0].data.T + two[1].data
        np.testing.assert_allclose(net.forward(data=x)["two"], want, rtol=1e-4, atol=1e-5)


def test_forget_compiles_anew() -> None:
    net = net_of(TEXT)
    first = net.forward(data=normal(2, 3))["two"].copy()
    net._engine_pair()[0].forget()
    np.testing.assert_array_equal(net.forward()["two"], first)


def test_a_train_phase_net_can_be_run_compiled_for_its_test_meaning() -> None:
    net = net_of(TEXT, TRAIN)
    assert not net._compiles()
    assert net_of(TEXT)._compiles()
    net.forward()
    net.backward()


@pytest.mark.parametrize("threads", [1, 2, None])
def test_threads(threads: int | None) -> None:
    net = net_of(TEXT, threads=threads)
    np.testing.assert_allclose(net.forward()["two"], net_of_zero(net), rtol=1e-4, atol=1e-6)


def net_of_zero(net) -> np.ndarray:
    return np.array([net.params["one"][1].data @ net.params["two"][0].data.T + net.params["two"][1].data] * 2)


def test_an_error_inside_a_run_names_the_layer() -> None:
    text = data(2, 3, name="i") + layer("e", "Embed", "i", rest="embed_param { input_dim: 4 num_output: 2 }")
    net = net_of(text, engine="onnxruntime")
    with pytest.raises(InputError, match=r"outside of what the layer takes.*In test.prototxt:2, layer 'e'"):
        net.forward(i=np.full((2, 3), 9))
    assert net.forward(i=np.full((2, 3), 3))["e"].shape == (2, 3, 2)
