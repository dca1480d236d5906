from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import caffe
from pycaffe.errors import DeviceError, InputError, NetError, ProtoError, ShapeError
from pycaffe.net import TEST, TRAIN, Net
from pycaffe.proto.prototxt import parse_net
from tests.net.nets import CONV, data, in_place_net, ip, layer, net_of, normal

ENGINES = ["torch", "onnxruntime"]
LOSS = data(2, 4, name="label") + ip("ip", "data", 4) + layer("loss", "EuclideanLoss", "ip label")


# -- construction


def test_a_net_from_a_file_and_the_old_form(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(data(2, 3) + ip("ip", "data", 4) + layer("d", "Dropout", "ip", "ip"))
    first = Net(str(prototxt), caffe.TEST)
    first.save(str(weights))
    for net in (
        Net(str(prototxt), str(weights), caffe.TEST),
        Net(prototxt, weights, caffe.TEST),
        Net(str(prototxt), caffe.TEST, weights=str(weights)),
        Net(network_file=str(prototxt), phase=caffe.TEST, level=0, stages=None, weights=str(weights)),
        Net(str(prototxt), caffe.TEST, 0, ["s"], str(weights)),
    ):
        np.testing.assert_array_equal(net.params["ip"][0].data, first.params["ip"][0].data)
        assert net._graph.phase == TEST
    assert Net(str(prototxt), str(weights), caffe.TRAIN)._graph.phase == TRAIN
    assert Net(str(prototxt), str(weights))._graph.phase == TEST
    monkeypatch.chdir(tmp_path)
    assert Net("net.prototxt", "net.caffemodel", caffe.TEST)._layer_names == ["data", "ip", "d"]


def test_a_net_from_a_message_leaves_it_alone() -> None:
    param = caffe.proto.caffe_pb2.NetParameter()
    param.CopyFrom(parse_net(data(2, 3) + LOSS, "x").param)
    before = param.SerializeToString()
    net = Net(param, caffe.TEST)
    assert net.outputs == ["loss"]
    assert param.SerializeToString() == before
    with pytest.raises(NetError, match=r"Unknown bottom blob 'nothing'"):
        param.layer[3].bottom[0] = "nothing"
        Net(param, caffe.TEST)


def test_what_is_no_net() -> None:
    with pytest.raises(ProtoError, match=r"no_such\.prototxt"):
        Net("no_such.prototxt", caffe.TEST)
    with pytest.raises(InputError, match="Expected the path of a prototxt or a NetParameter, got None"):
        Net(None, caffe.TEST)
    with pytest.raises(InputError, match=r"Unknown phase 2. Expected caffe.TRAIN \(0\) or caffe.TEST \(1\)"):
        net_of(LOSS, 2)
    with pytest.raises(NetError, match="Unknown engine 'tensorflow'"):
        net_of(LOSS, engine="tensorflow")


def test_a_device_named_outright_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycaffe.devices.gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match=r"Device 'cuda:0' is not there: this machine has 0 GPU\(s\)"):
        net_of(data(2, 3) + LOSS, device="cuda:0")
    assert net_of(data(2, 3) + ip("ip", "data", 4), device="cpu").forward()["ip"].shape == (2, 4)


def test_an_engine_that_was_asked_for_and_cannot() -> None:
    text = data(2, 3) + layer("out", "RNN", "data", rest="recurrent_param { num_output: 2 }")
    text = data(4, 2, 3) + data(4, 2, name="cont") + text.split("\n", 1)[1].replace('"data"', '"data" bottom: "cont"')
    with pytest.raises(NetError, match=r"Layer 'out' \(RNN\) has no ONNX form, and engine='onnxruntime' was asked for"):
        net_of(text, engine="onnxruntime").forward()


# -- forward


@pytest.mark.parametrize("engine", ENGINES)
def test_forward_gives_live_views_of_the_outputs(engine: str) -> None:
    net = net_of(
        data(2, 3) + ip("ip", "data", 4) + layer("a", "AbsVal", "ip") + layer("b", "TanH", "ip"), engine=engine
    )
    x = normal(2, 3)
    out = net.forward(["ip"], data=x)
    assert list(out) == ["a", "b", "ip"]
    want = x @ net.params["ip"][0].data.T + net.params["ip"][1].data
    np.testing.assert_allclose(out["ip"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["a"], np.abs(want), rtol=1e-5, atol=1e-6)
    net.forward(data=0 * x)
    np.testing.assert_allclose(out["b"], np.tanh([net.params["ip"][1].data] * 2), rtol=1e-5)
    assert np.shares_memory(out["b"], net.blobs["b"].data)


@pytest.mark.parametrize("engine", ENGINES)
def test_views_from_before_the_first_forward_are_live_for_every_blob(engine: str) -> None:
    net = in_place_net(engine)
    views = {name: blob.data for name, blob in net.blobs.items()}
    net.forward(data=normal(2, 3, 5, 6))
    for name, view in views.items():
        np.testing.assert_array_equal(view, net.blobs[name].data, err_msg=name)
        assert view.any()


def test_an_output_answers_to_its_layers_name_too() -> None:
    net = net_of(data(2, 3) + ip("ip", "data", 4) + layer("relu4", "ReLU", "ip", "ip"))
    out = net.forward(data=normal(2, 3))
    np.testing.assert_array_equal(out["relu4"], out["ip"])
    assert list(out) == ["ip"]
    with pytest.raises(KeyError, match="nothing"):
        out["nothing"]


@pytest.mark.parametrize("engine", ENGINES)
def test_all_blobs_of_an_in_place_net_agree_on_both_engines(engine: str) -> None:
    want, got = in_place_net("torch"), in_place_net(engine)
    for net in (want, got):
        net.forward(data=normal(2, 3, 5, 6))
    for name in want.blobs:
        np.testing.assert_allclose(got.blobs[name].data, want.blobs[name].data, rtol=1e-4, atol=1e-6, err_msg=name)
    # Flatten's top is its bottom's memory, as in the original: work in place on one shows in the other.
    np.testing.assert_array_equal(got.blobs["flat"].data.ravel(), got.blobs["pool"].data.ravel())


@pytest.mark.parametrize("rest", ["flatten_param { axis: 0 }", None])
def test_in_place_work_on_an_output_that_is_another_blobs_memory(rest: str | None) -> None:
    name = ("Flatten", rest) if rest else ("Reshape", "reshape_param { shape { dim: 3 dim: -1 } }")
    text = data(2, 3, 5) + layer("p", "Power", "data", rest="power_param { scale: 2 }")
    text += layer("f", name[0], "p", rest=name[1]) + layer("s", "Sigmoid", "f", "f")
    x = normal(2, 3, 5)
    for engine in ENGINES:
        net = net_of(text, engine=engine)
        out = net.forward(data=x)["f"]
        np.testing.assert_allclose(out.ravel(), 1 / (1 + np.exp(-2 * x.ravel())), rtol=1e-5, err_msg=engine)
        assert net.blobs["p"].shape == (2, 3, 5)


def test_forward_checks_its_arguments() -> None:
    with pytest.raises(
        InputError, match=r"Input blob arguments do not match net inputs.*\['data', 'label'\].*\['data'\]"
    ):
        net_of(data(2, 3) + LOSS).forward(data=normal(2, 3))
    net = net_of(data(2, 3) + LOSS)
    good = {"data": normal(2, 3), "label": normal(2, 4)}
    with pytest.raises(InputError, match=r"Input is not batch sized. Blob 'data' has shape \(2, 3\), got \(5, 3\)"):
        net.forward(**{**good, "data": normal(5, 3)})
    with pytest.raises(InputError, match="'fc9' is not in list of layers"):
        net.forward(start="fc9")
    with pytest.raises(InputError, match="'fc9' is not in list of layers"):
        net.forward(end="fc9")
    with pytest.raises(InputError, match="The net has no blob 'nope'"):
        net.forward(blobs=["nope"], **good)
    with pytest.raises(ValueError, match="broadcast"):
        net.forward(**{**good, "data": normal(2, 7)})
    with pytest.raises(NetError, match="Layer range 0 to 9"):
        net._forward(0, 9)


def test_underscored_forward_returns_the_weighted_loss() -> None:
    net = net_of(data(2, 3) + LOSS.replace('top: "loss"', 'top: "loss" loss_weight: 3'))
    net.blobs["data"].data[...] = normal(2, 3)
    loss = net._forward(0, len(net.layers) - 1)
    assert loss == pytest.approx(3 * float(net.blobs["loss"].data), rel=1e-6)
    assert loss > 0


# -- shapes


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reshaped_input_reshapes_everything_at_the_next_forward(engine: str) -> None:
    text = data(2, 3, 6, 7) + layer("conv", "Convolution", "data", rest=CONV) + layer("r", "ReLU", "conv", "conv")
    text += layer("g", "Pooling", "conv", rest="pooling_param { pool: AVE global_pooling: true }")
    text += layer("f", "Flatten", "g") + layer("a", "Sigmoid", "f") + layer("b", "TanH", "f", "f2")
    net = net_of(text, engine=engine)
    params = [blob.data.copy() for blob in net.params["conv"]]
    for shape in [(2, 3, 6, 7), (4, 3, 9, 8), (1, 3, 4, 5), (4, 3, 9, 8), (2, 3, 6, 7)]:
        x = normal(*shape)
        net.blobs["data"].reshape(*shape)
        out = net.forward(data=x)["a"]
        with torch.no_grad():
            conv = torch.nn.functional.conv2d(*map(torch.from_numpy, [x, *params]), padding=1).relu()
        np.testing.assert_allclose(net.blobs["conv"].data, conv.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out, conv.mean((2, 3)).sigmoid().numpy(), rtol=1e-4)
        assert net.blobs["f"].shape == net.blobs["f2"].shape == (shape[0], 4)


def test_net_reshape_reshapes_without_a_forward() -> None:
    net = net_of(data(2, 3, 4) + layer("f", "Flatten", "data") + ip("ip", "f", 5))
    net.blobs["data"].reshape(7, 3, 4)
    assert net.blobs["ip"].shape == (2, 5)
    net.reshape()
    assert (net.blobs["f"].shape, net.blobs["ip"].shape) == ((7, 12), (7, 5))
    net.blobs["data"].reshape(7, 3, 5)
    with pytest.raises(ShapeError, match=r"In test\.prototxt:3, layer 'ip'"):
        net.reshape()


@pytest.mark.parametrize("engine", [None, "torch"])
def test_backward_after_going_back_to_an_earlier_shape(engine: str | None) -> None:
    """A compiled forward of a known shape does not ask layers to reshape; backward has to."""
    text = "force_backward: true " + data(2, 3, 4) + layer("f", "Flatten", "data") + layer("t", "TanH", "f", "f")
    text += layer("back", "Reshape", "f", rest="reshape_param { shape { dim: 0 dim: 3 dim: -1 } }")
    for net in (net_of(text, engine=engine),):
        for size in (4, 5, 4):
            net.blobs["data"].reshape(2, 3, size)
            net.forward(data=normal(2, 3, size))
        assert net.blobs["back"].shape == (2, 3, 4)
        got = net.backward(back=np.ones((2, 3, 4)))["data"]
        np.testing.assert_allclose(got, 1 - np.tanh(normal(2, 3, 4)) ** 2, rtol=1e-4, atol=1e-6)


def test_backward_of_layers_that_let_through_what_values_say() -> None:
    text = "force_backward: true " + data(4, 3) + data(4, 1, name="which") + layer("f", "Filter", "data which")
    net = net_of(text)
    which = np.array([[1], [0], [0], [1]])
    out = net.forward(data=normal(4, 3), which=which)["f"]
    np.testing.assert_array_equal(out, normal(4, 3)[[0, 3]])
    net.blobs["f"].diff[...] = 2
    np.testing.assert_array_equal(net.backward()["data"], 2 * which * np.ones((4, 3)))
    assert net.blobs["f"].shape == (2, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_views_outlive_the_net_and_a_larger_shape(engine: str) -> None:
    net = net_of(data(2, 3) + ip("ip", "data", 4), engine=engine)
    x = normal(2, 3)
    out = net.forward(data=x)["ip"]
    want = out.copy()
    view = net.blobs["data"].data
    net.blobs["data"].reshape(64, 3)
    net.forward(data=np.ones((64, 3)))
    np.testing.assert_array_equal(view, x)
    np.testing.assert_array_equal(out, want)
    weight, diff = net.params["ip"][0].data, net.blobs["ip"].diff
    kept = weight.copy()
    del net
    gc.collect()
    np.testing.assert_array_equal(weight, kept)
    assert diff.shape == (64, 4)
    weight[...] = 1


def test_a_smaller_shape_keeps_the_memory() -> None:
    net = net_of(data(4, 3) + layer("p", "Power", "data", rest="power_param { shift: 1 }"))
    view = net.blobs["p"].data
    net.blobs["data"].reshape(2, 3)
    net.forward(data=np.ones((2, 3)))
    np.testing.assert_array_equal(view, [[2] * 3] * 2 + [[0] * 3] * 2)
    net.blobs["data"].reshape(4, 3)
    net.forward(data=np.full((4, 3), 4))
    np.testing.assert_array_equal(view, np.full((4, 3), 5))


def test_an_empty_net() -> None:
    net = net_of("name: 'nothing'")
    assert (net.inputs, net.outputs, net.layers) == ([], [], [])


# -- MemoryData

MEMORY = (
    'layer { name: "m" type: "MemoryData" top: "x" top: "y" '
    "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }"
)


@pytest.mark.parametrize("label_shape", [(6,), (6, 1, 1, 1)])
def test_set_input_arrays(label_shape: tuple[int, ...]) -> None:
    net = net_of(MEMORY + layer("p", "Power", "x", rest="power_param { scale: 2 }"))
    x, y = normal(6, 3, 4, 5), np.arange(6, dtype=np.float32).reshape(label_shape)
    net.set_input_arrays(x, y)
    for batch in (0, 1, 2, 0):
        out = net.forward()
        np.testing.assert_array_equal(out["p"], 2 * x[2 * batch : 2 * batch + 2])
        np.testing.assert_array_equal(out["y"].ravel(), y.ravel()[2 * batch : 2 * batch + 2])


def test_set_input_arrays_checks_its_arguments() -> None:
    net, x, y = net_of(MEMORY), normal(4, 3, 4, 5), np.zeros(4, np.float32)
    for data_array, labels, message in [
        (x[:3], y[:3], "must be a multiple of batch size. Got 3, batch size 2"),
        (x, y[:2], "must have the same first dimension. Got 4 and 2"),
        (x.astype(np.float64), y, "data array must be float32. Got 'float64'"),
        (x, y.astype(np.int64), "labels array must be float32. Got 'int64'"),
        (x.transpose(0, 1, 3, 2), y, "data array must be C contiguous"),
        (x[0], y, "data array must be 4-d"),
        (normal(4, 2, 4, 5), y, "wrong number of channels: expected 3, got 2"),
        (normal(4, 3, 4, 6), y, "wrong width: expected 5, got 6"),
    ]:
        with pytest.raises(InputError, match=message):
            net.set_input_arrays(data_array, labels)
    with pytest.raises(NetError, match=r"needs to be initialized.*In test.prototxt:1, layer 'm'"):
        net.forward()
    with pytest.raises(NetError, match="set_input_arrays may only be called if the first layer is a MemoryDataLayer"):
        net_of(data(2, 3)).set_input_arrays(x, y)


# -- random numbers


def test_a_seed_makes_runs_repeatable() -> None:
    text = 'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 3 dim: 50 } data_filler {'
    text += ' type: "gaussian" } } }' + ip("ip", "d", 4) + layer("drop", "Dropout", "ip")

    def run(seed: int) -> list[np.ndarray]:
        caffe.set_random_seed(seed)
        net = net_of(text, TRAIN)
        net.forward()
        return [net.blobs[name].data.copy() for name in ("d", "ip", "drop")] + [net.params["ip"][0].data.copy()]

    first, again, other = run(7), run(7), run(8)
    for a, b, c in zip(first, again, other):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


@pytest.mark.parametrize("providers, compiles", [(["CPUExecutionProvider"], False), (["CUDAExecutionProvider"], True)])
def test_a_gpu_that_onnxruntime_cannot_use_is_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], compiles: bool
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    monkeypatch.setattr("pycaffe.devices.gpu_count", lambda: 1)
    text = data(2, 3) + layer("a", "ReLU", "data", "a")
    assert net_of(text, device="cuda:0")._compiles() is compiles
    assert net_of(text)._compiles()
    if not compiles:
        with pytest.raises(DeviceError, match="cannot run on 'cuda:0': it has no CUDAExecutionProvider"):
            net_of(text, device="cuda:0", engine="onnxruntime").forward()
