from __future__ import annotations

from typing import Any

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


def sessions_made(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The batch extent (None: any) of every session that is made from now on."""
    from pycaffe.engines import onnxruntime_engine

    made: list[int | None] = []
    original = onnxruntime_engine.create_session

    def create(segment: Any, *arguments: Any) -> Any:
        made.append(segment.batch)
        return original(segment, *arguments)

    monkeypatch.setattr(onnxruntime_engine, "create_session", create)
    return made


CONVOLUTIONAL = (
    data(2, 3, 5, 7)
    + layer("conv", "Convolution", "data", rest="convolution_param { num_output: 4 kernel_size: 3 }")
    + layer("pool", "Pooling", "conv", "pool", "pooling_param { pool: AVE global_pooling: true }")
    + ip("fc", "pool", 6)
    + layer("prob", "Softmax", "fc", "prob")
)


def test_a_new_batch_extent_costs_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions_made(monkeypatch)
    net, torch = net_of(CONVOLUTIONAL), net_of(CONVOLUTIONAL, engine="torch")
    torch.share_with(net)
    for batch in (4, 2, 7, 1, 3, 1, 5):
        for one in (net, torch):
            one.blobs["data"].reshape(batch, 3, 5, 7)
            one.blobs["data"].data[...] = normal(batch, 3, 5, 7, seed=batch)
        np.testing.assert_allclose(net.forward()["prob"], torch.forward()["prob"], rtol=1e-4, atol=1e-6)
        assert net.blobs["conv"].shape == (batch, 4, 3, 5)
    assert made == [None, 1]


def test_inputs_of_different_first_extents_are_compiled_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions_made(monkeypatch)
    cat = layer("cat", "Concat", "data more", "cat", "concat_param { axis: 0 }")
    text = data(2, 3, 4) + data(2, 3, 4, name="more") + cat
    net = net_of(text)
    for batch in (2, 3):
        net.blobs["data"].reshape(batch, 3, 4)
        net.blobs["data"].data[...] = normal(batch, 3, 4, seed=batch)
        want = np.concatenate([net.blobs["data"].data, net.blobs["more"].data])
        assert (net.forward()["cat"] == want).all()
    assert made == [None, None]  # the second time the inputs' extents differ


def test_a_pyramid_of_sizes_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions_made(monkeypatch)
    net = net_of(CONVOLUTIONAL)
    sizes = [(5 + i, 7 + i) for i in range(12)]
    for _ in range(3):
        for height, width in sizes:
            net.blobs["data"].reshape(1, 3, height, width)
            net.forward()
    assert len(made) == 12
    for extra in range(40):
        net.blobs["data"].reshape(1, 3, 30 + extra, 30)
        net.forward()
    engine = net._engine_pair()[0]
    assert len(engine._compiled) <= 16
    assert len(engine._plans) <= 64
