from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.net import TEST, TRAIN, Net
from tests.net.nets import data, fill_params, in_place_net, ip, layer, net_of, normal

ENGINES = ["torch", "onnxruntime"]
LOSS = data(2, 4, name="label") + ip("ip", "data", 4) + layer("loss", "EuclideanLoss", "ip label")


def gradients(net: Net) -> dict[str, np.ndarray]:
    found = {f"{name}.diff": blob.diff.copy() for name, blob in net.blobs.items()}
    return found | {f"{n}[{i}]": b.diff.copy() for n, blobs in net.params.items() for i, b in enumerate(blobs)}


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=2e-6, err_msg=name)


def test_a_loss_tops_diff_holds_its_weight_and_scales_gradients() -> None:
    found = []
    for weight in (1, 3):
        net = net_of(data(2, 3) + LOSS.replace('top: "loss"', f'top: "loss" loss_weight: {weight}'), TRAIN)
        fill_params(net)
        net.forward(data=normal(2, 3), label=normal(2, 4))
        net.backward()
        assert net.blobs["loss"].diff == weight
        found.append(net.params["ip"][0].diff.copy())
    np.testing.assert_allclose(found[1], 3 * found[0], rtol=1e-5)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_backward_without_a_loss_leaves_diffs_zero_unless_forced(phase: int) -> None:
    text = data(2, 3) + ip("ip", "data", 4)
    net = net_of(text, phase)
    net.forward(data=normal(2, 3))
    net.blobs["ip"].diff[...] = 1
    assert not net.backward()["data"].any()
    assert not net.params["ip"][0].diff.any()
    net = net_of("force_backward: true " + text, phase)
    net.forward(data=normal(2, 3))
    out = net.backward(ip=np.ones((2, 4)))
    np.testing.assert_allclose(out["data"], [net.params["ip"][0].data.sum(0)] * 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_parameter_diffs_accumulate_and_blob_diffs_do_not(phase: int) -> None:
    net = net_of("force_backward: true " + data(2, 3) + LOSS, phase)
    net.forward(data=normal(2, 3), label=normal(2, 4, seed=2))
    net.backward()
    once, at_input = net.params["ip"][0].diff.copy(), net.blobs["data"].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once, rtol=1e-5)
    np.testing.assert_allclose(net.blobs["data"].diff, at_input, rtol=1e-6)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()
    net.forward()
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, once, rtol=1e-5)


@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_backward_after_a_compiled_forward_equals_one_after_torchs(engine: str | None) -> None:
    found = []
    for net in (in_place_net("torch"), in_place_net(engine)):
        if net._engine == "torch":
            net._wants_gradient = True  # the forward records, as in training
        net.forward(data=normal(2, 3, 5, 6))
        net.backward(fc=normal(2, 7, seed=9))
        found.append(gradients(net))
    assert_same(found[1], found[0])
    assert np.abs(found[0]["conv[0]"]).max() > 1e-4
    assert np.abs(found[0]["data.diff"]).max() > 1e-5


@pytest.mark.parametrize("engine", ["torch", None])
@pytest.mark.parametrize("start", ["bn", "tanh", "elu", "sigmoid", "exp"])
def test_backward_after_an_edited_blob_and_a_forward_from_there(engine: str | None, start: str) -> None:
    """The edited value is nowhere else: an in-place layer of the same compiled run overwrites it."""
    found = []
    for record in (True, False):
        net = in_place_net("torch" if record else engine)
        net._wants_gradient = record
        net.forward(data=normal(2, 3, 5, 6))
        top = net.blobs[net.bottom_names[start][0]]
        top.data[...] = 0.5 * normal(*top.shape, seed=4)
        net.forward(start=start)
        net.blobs["fc"].diff[...] = normal(2, 7, seed=9)
        net.backward(end=start)
        found.append(gradients(net))
    assert_same(found[1], found[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_layers_that_work_on_the_input_itself(engine: str) -> None:
    text = "force_backward: true " + data(2, 3, 4) + layer("s", "Sigmoid", "data", "data")
    net = net_of(text + layer("t", "TanH", "data", "data"), engine=engine)
    x = normal(2, 3, 4)
    for scale in (1, 2):  # the second forward must not find what the first one kept
        net.forward(data=scale * x)
        net.backward(data=np.ones((2, 3, 4)))
        sigmoid = 1 / (1 + np.exp(-scale * x))
        want = sigmoid * (1 - sigmoid) * (1 - np.tanh(sigmoid) ** 2)
        np.testing.assert_allclose(net.blobs["data"].diff, want, rtol=1e-4, atol=1e-6)


def test_backward_of_a_part() -> None:
    text = "force_backward: true " + data(2, 3) + ip("a", "data", 4) + layer("t", "TanH", "a") + ip("b", "t", 5)
    net = net_of(text)
    fill_params(net)
    net.forward(data=normal(2, 3))
    out = net.backward(diffs=["a"], end="b", b=np.ones((2, 5)))
    assert list(out) == ["t", "a"]
    np.testing.assert_allclose(out["t"], [net.params["b"][0].data.sum(0)] * 2, rtol=1e-5)
    assert not out["a"].any()
    out = net.backward(start="t", end="t")
    np.testing.assert_allclose(out["a"], net.blobs["t"].diff * (1 - net.blobs["t"].data ** 2), rtol=1e-4, atol=1e-5)
    assert not net.params["a"][0].diff.any()
    np.testing.assert_allclose(
        net.backward(start="a")["data"], net.blobs["a"].diff @ net.params["a"][0].data, rtol=1e-5
    )


def test_backward_checks_its_arguments() -> None:
    net = net_of("force_backward: true " + data(2, 3) + ip("a", "data", 4))
    net.forward()
    with pytest.raises(
        InputError, match=r"Top diff arguments do not match net outputs. Expected \['a'\], got \['data'\]"
    ):
        net.backward(data=normal(2, 3))
    with pytest.raises(InputError, match="Diff is not batch sized"):
        net.backward(a=normal(3, 4))
    with pytest.raises(InputError, match="'zip' is not in list of layers"):
        net.backward(start="zip")
    with pytest.raises(InputError, match="The net has no blob 'zip'"):
        net.backward(diffs=["zip"])


def test_a_forward_after_a_backward_gives_the_same_numbers() -> None:
    net = in_place_net(None)
    first = net.forward(data=normal(2, 3, 5, 6))["fc"].copy()
    net.backward()
    np.testing.assert_allclose(net.forward(data=normal(2, 3, 5, 6))["fc"], first, rtol=1e-5, atol=1e-6)
