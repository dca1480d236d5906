from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import caffe
from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TEST, TRAIN
from tests.net.nets import data, ip, layer, net_of, normal

MODULE = '''
import numpy as np
import caffe

class Special(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)
        self.one = one

class Double(caffe.Layer):
    def setup(self, bottom, top):
        self.calls = []
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.calls.append("forward")
        top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.calls.append(("backward", list(propagate_down)))
        bottom[0].diff[...] = 2 * top[0].diff

class Raises(Double):
    def setup(self, bottom, top):
        self.maybe("setup")
    def reshape(self, bottom, top):
        self.maybe("reshape")
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.maybe("forward")
    def backward(self, top, propagate_down, bottom):
        self.maybe("backward")
    def maybe(self, where):
        if self.param_str == where:
            raise Special(where, 2)

class Weight(caffe.Layer):
    """top = w * bottom + b, both parameters scalars."""
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs.add_blob(2, 3)
        self.blobs[0].data[...] = 3
        self.blobs[1].data[...] = 1
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.blobs[1].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        self.blobs[1].diff[...] += top[0].diff
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff

class Phase(caffe.Layer):
    def setup(self, bottom, top):
        self.known = eval(self.param_str)
    def reshape(self, bottom, top):
        top[0].reshape()
    def forward(self, bottom, top):
        top[0].data[...] = self.phase + self.known["ten"]
    def backward(self, top, propagate_down, bottom):
        pass

class BadShape(Double):
    def reshape(self, bottom, top):
        top[0].reshape(-1, 2)

class OwnInit(Double):
    def __init__(self, param):
        self.mine = param.name

class Loss(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")
    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)
    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff ** 2) / bottom[0].num / 2.
    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if propagate_down[i]:
                bottom[i].diff[...] = (1 - 2 * i) * self.diff / bottom[i].num

class NotALayer:
    def __init__(self, param):
        pass
'''


@pytest.fixture(autouse=True)
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "user_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("user_layers", None)


def python(
    name: str, bottom: str, cls: str, rest: str = "", top: str | None = None, module: str = "user_layers"
) -> str:
    param = f'python_param {{ module: "{module}" layer: "{cls}" {rest} }}'
    return layer(name, "Python", bottom, top, param)


X = data(2, 3)


def test_a_python_layer_between_compiled_segments_forward_and_backward() -> None:
    text = "force_backward: true " + X + ip("one", "data", 4) + layer("relu", "ReLU", "one", "one")
    text += python("double", "one", "Double") + ip("two", "double", 5) + layer("tanh", "TanH", "two", "two")
    for engine in (None, "torch"):
        net = net_of(text, engine=engine)
        x = normal(2, 3)
        out = net.forward(data=x)["two"]
        one, two = net.params["one"], net.params["two"]
        hidden = np.maximum(x @ one[0].data.T + one[1].data, 0)
        np.testing.assert_allclose(net.blobs["double"].data, 2 * hidden, rtol=1e-5, atol=1e-6)
        want = np.tanh(2 * hidden @ two[0].data.T + two[1].data)
        np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-6)
        got = net.backward(two=np.ones((2, 5)))["data"]
        at_hidden = 2 * (1 - want**2) @ two[0].data * (hidden > 0)
        np.testing.assert_allclose(got, at_hidden @ one[0].data, rtol=1e-3, atol=1e-5)
        assert net.layer_dict["double"].calls == ["forward", ("backward", [True])]
        assert isinstance(net.layers[3], caffe.Layer)


def test_it_reshapes_with_its_input() -> None:
    net = net_of(X + python("a", "data", "Double") + python("b", "a", "Double") + layer("c", "AbsVal", "b"))
    for size in (7, 1, 2, 7):
        net.blobs["data"].reshape(size, 3)
        x = normal(size, 3)
        np.testing.assert_allclose(net.forward(data=x)["c"], 4 * np.abs(x))


def test_layers_that_work_in_place_around_it() -> None:
    text = "force_backward: true " + X + python("d", "data", "Double") + layer("s", "Sigmoid", "d", "d")
    net = net_of(text + layer("t", "TanH", "d", "d"))
    x = normal(2, 3)
    sigmoid = 1 / (1 + np.exp(-2 * x))
    np.testing.assert_allclose(net.forward(data=x)["d"], np.tanh(sigmoid), rtol=1e-5)
    got = net.backward(d=np.ones((2, 3)))["data"]
    np.testing.assert_allclose(got, 2 * (1 - np.tanh(sigmoid) ** 2) * sigmoid * (1 - sigmoid), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("where", ["setup", "reshape", "forward", "backward"])
def test_an_exception_arrives_as_that_exception(where: str) -> None:
    def run() -> None:
        net = net_of("force_backward: true " + X + python("r", "data", "Raises", f'param_str: "{where}"'))
        net.forward()
        net.backward()

    with pytest.raises(Exception, match=rf"\('{where}', 2\)") as caught:
        run()
    assert type(caught.value) is sys.modules["user_layers"].Special
    assert caught.value.one == where
    assert caught.traceback[-1].name == "maybe"


def test_an_error_of_ours_inside_one_says_where() -> None:
    with pytest.raises(ShapeError, match=r"Got shape \(-1, 2\)\. In test.prototxt:2, layer 'bad'"):
        net_of(X + python("bad", "data", "BadShape"))


def test_param_str_and_phase() -> None:
    for phase in (TRAIN, TEST):
        net = net_of(X + python("p", "data", "Phase", """param_str: "{'ten': 10}" """), phase)
        assert net.forward()["p"] == 10 + phase
        assert net.layer_dict["p"].param_str == "{'ten': 10}"


def test_share_in_parallel_is_read_and_ignored() -> None:
    net = net_of(X + python("d", "data", "Double", "share_in_parallel: true"))
    np.testing.assert_array_equal(net.forward(data=normal(2, 3))["d"], 2 * normal(2, 3))


def test_its_parameters_learn_and_are_saved(tmp_path: Path) -> None:
    text = X + data(2, 3, name="label") + python("w", "data", "Weight") + layer("loss", "EuclideanLoss", "w label")
    net = net_of(text, TRAIN)
    assert [blob.shape for blob in net.params["w"]] == [(1,), (2, 3)]
    x, label = normal(2, 3), 0.5 * normal(2, 3) - 2
    losses = []
    for _ in range(200):
        net.clear_param_diffs()
        losses.append(float(net.forward(data=x, label=label)["loss"]))
        net.backward()
        for blob in net.params["w"]:
            blob.data[...] -= 0.1 * blob.diff
    assert losses[-1] < 1e-3 * losses[0]
    for name in ("x.caffemodel", "x.caffemodel.h5"):
        path = str(tmp_path / name)
        net.save_hdf5(path) if name.endswith("h5") else net.save(path)
        again = net_of(text, TEST, weights=path)
        np.testing.assert_array_equal(again.params["w"][0].data, net.params["w"][0].data)
        assert float(again.forward(data=x, label=label)["loss"]) < 1e-3 * losses[0]


def test_its_parameters_diffs_accumulate_and_lr_mult_counts() -> None:
    text = X + data(2, 3, name="label") + python("w", "data", "Weight") + layer("loss", "EuclideanLoss", "w label")
    net = net_of(text, TRAIN)
    net.forward(data=normal(2, 3), label=normal(2, 3, seed=3))
    net.backward()
    once = net.params["w"][1].diff.copy()
    net.backward()
    np.testing.assert_allclose(net.params["w"][1].diff, 2 * once)
    net.clear_param_diffs()
    assert not net.params["w"][1].diff.any()
    frozen = net_of(text.replace("python_param", "param { lr_mult: 0 } param { lr_mult: 0 } python_param"), TRAIN)
    assert frozen._graph.nodes[2].need_backward is False


def test_a_python_loss() -> None:
    text = X + data(2, 3, name="label") + ip("ip", "data", 3) + python("loss", "ip label", "Loss", top="loss")
    net = net_of(text.replace('top: "loss"', 'top: "loss" loss_weight: 2'), TRAIN)
    out = net.forward(data=normal(2, 3), label=normal(2, 3, seed=3))
    net.backward()
    error = net.blobs["ip"].data - normal(2, 3, seed=3)
    assert out["loss"] == pytest.approx((error**2).sum() / 4, rel=1e-5)
    np.testing.assert_allclose(net.blobs["ip"].diff, error / 2, rtol=1e-5)
    np.testing.assert_allclose(net.params["ip"][0].diff, error.T @ normal(2, 3) / 2, rtol=1e-4, atol=1e-6)
    assert not net.blobs["label"].diff.any()
    with pytest.raises(Exception, match=r"^Need two inputs to compute distance\.$"):
        net_of(X + python("loss", "data", "Loss"))


def test_a_class_with_an_init_of_its_own() -> None:
    net = net_of(X + python("own", "data", "OwnInit"))
    assert net.layer_dict["own"].mine == "own"
    assert len(net.layer_dict["own"].blobs) == 0


def test_a_class_of_the_running_script() -> None:
    main = sys.modules["__main__"]
    try:
        main.InMain = __import__("user_layers").Double  # type: ignore[attr-defined]
        net = net_of(X + python("m", "data", "InMain", module="__main__"))
        np.testing.assert_array_equal(net.forward(data=normal(2, 3))["m"], 2 * normal(2, 3))
    finally:
        del main.InMain  # type: ignore[attr-defined]


def test_what_cannot_be_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        net_of(X + python("p", "data", "Double", module="no_such_module"))
    with pytest.raises(LayerError, match=r"Module 'user_layers' has no class 'Nope'\. In test.prototxt:2, layer 'p'"):
        net_of(X + python("p", "data", "Nope"))
    with pytest.raises(LayerError, match=r"Class 'NotALayer' of 'user_layers' does not derive from caffe.Layer"):
        net_of(X + python("p", "data", "NotALayer"))
