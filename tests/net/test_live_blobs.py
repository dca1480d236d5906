"""Whatever a script does with blobs, it sees the values that running layer by layer would give it.

Random sequences of what scripts do run on two nets side by side: one as users get it (compiled, blobs fetched when
somebody looks), one on torch. Every blob that is read, and every view that is kept, must agree.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.net.nets import data, fill_params, ip, layer, net_of, normal

TEXT = (
    data(2, 3, 5, 7)
    + layer(
        "conv", "Convolution", "data", rest="convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: true }"
    )
    + layer("bn", "BatchNorm", "conv", "conv")
    + layer("scale", "Scale", "conv", "conv", "scale_param { bias_term: true }")
    + layer("relu", "ReLU", "conv", "conv")
    + layer("branch", "Pooling", "conv", "branch", "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }")
    + layer("sum", "Eltwise", "conv branch", "sum")
    + layer("pool", "Pooling", "sum", "pool", "pooling_param { pool: AVE global_pooling: true }")
    + layer("flat", "Flatten", "pool", "flat")
    + ip("fc", "flat", 6)
    + layer("tanh", "TanH", "fc", "fc")
    + layer("prob", "Softmax", "fc", "prob")
)
BLOBS = [b for b in net_of(TEXT).blobs if b != "data"]
LAYERS = net_of(TEXT)._layer_names
PARAMS = [("conv", 0), ("conv", 1), ("bn", 0), ("bn", 2), ("scale", 0), ("fc", 0), ("fc", 1)]


class Script:
    """What a user's script holds: a net, another one to share with, and views that it kept."""

    def __init__(self, engine: str | None, weights: Path) -> None:
        self.net = net_of(TEXT, engine=engine)
        self.other = net_of(TEXT, engine=engine)
        self.weights = weights
        self.views: dict[str, np.ndarray] = {}
        for seed, net in enumerate((self.net, self.other)):
            fill_params(net, seed)
            for blob in net.params["bn"]:
                blob.data[...] = np.abs(blob.data) + 0.5
        self.net.blobs["data"].data[...] = normal(2, 3, 5, 7)

    def write_input(self, seed: int) -> None:
        self.net.blobs["data"].data[...] = normal(*self.net.blobs["data"].shape, seed=seed)

    def keep_view(self, name: str) -> None:
        self.views[name] = self.net.blobs[name].data

    def write_kept_view(self, seed: int) -> None:
        if "data" in self.views:
            self.views["data"][...] = normal(*self.views["data"].shape, seed=seed)

    def drop_views(self) -> None:
        self.views.clear()

    def keep_parameter(self, which: int) -> None:
        name, index = PARAMS[which]
        self.views[f"{name}/{index}"] = self.net.params[name][index].data

    def change_parameter(self, which: int, value: float) -> None:
        name, index = PARAMS[which]
        if name == "bn":
            value = abs(value) + 0.5  # no negative variance: NaN has many forms
        self.net.params[name][index].data.flat[0] = value

    def change_kept_parameters(self, factor: float) -> None:
        for key, view in self.views.items():
            if "/" in key:
                view *= np.float32(abs(factor) + 0.5)

    def forward(self) -> None:
        self.net.forward()

    def forward_range(self, first: int, last: int) -> None:
        first, last = sorted((first, last))
        self.net.forward(start=LAYERS[first], end=LAYERS[last])

    def read(self, name: str) -> np.ndarray:
        return self.net.blobs[name].data.copy()

    def edit(self, name: str, value: float) -> None:
        self.net.blobs[name].data[...] = value

    def reshape_and_forward(self, num: int, width: int) -> None:
        self.reshape(num, width)
        self.net.forward()

    def reshape(self, num: int, width: int) -> None:
        self.net.blobs["data"].reshape(num, 3, 5, width)
        self.net.blobs["data"].data[...] = normal(num, 3, 5, width, seed=num)
        self.net.reshape()

    def share(self) -> None:
        self.net.share_with(self.other)

    def change_other(self, value: float) -> None:
        self.other.params["fc"][1].data[0] = value

    def load(self) -> None:
        self.net.copy_from(self.weights)


NAMES = st.sampled_from(BLOBS)
SEEDS = st.integers(0, 5)
VALUES = st.sampled_from([-1.5, 0.0, 0.25, 2.0])
PARAMETER = st.integers(0, len(PARAMS) - 1)
INDEX = st.integers(0, len(LAYERS) - 1)
STEPS = st.one_of(
    st.tuples(st.just("forward")),
    st.tuples(st.just("forward")),
    st.tuples(st.just("read"), NAMES),
    st.tuples(st.just("read"), NAMES),
    st.tuples(st.just("write_input"), SEEDS),
    st.tuples(st.just("keep_view"), st.sampled_from([*BLOBS, "data"])),
    st.tuples(st.just("write_kept_view"), SEEDS),
    st.tuples(st.just("drop_views")),
    st.tuples(st.just("keep_parameter"), PARAMETER),
    st.tuples(st.just("change_parameter"), PARAMETER, VALUES),
    st.tuples(st.just("change_kept_parameters"), VALUES),
    st.tuples(st.just("forward_range"), INDEX, INDEX),
    st.tuples(st.just("edit"), NAMES, VALUES),
    st.tuples(st.just("reshape_and_forward"), st.integers(1, 3), st.integers(3, 8)),
    st.tuples(st.just("share")),
    st.tuples(st.just("change_other"), VALUES),
    st.tuples(st.just("load")),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "saved.caffemodel"
    net = net_of(TEXT)
    fill_params(net, 9)
    net.params["bn"][2].data[...] = 1
    for blob in net.params["bn"][:2]:
        blob.data[...] = np.abs(blob.data) + 0.5
    net.save(path)
    return path


def compare(what: Any, want: np.ndarray, got: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5, err_msg=str(what))


def run_both(steps: list[tuple[Any, ...]], weights: Path, look_at_end: bool = True) -> tuple[Script, Script]:
    users, torch = Script(None, weights), Script("torch", weights)
    for number, (name, *arguments) in enumerate(steps):
        got, want = (getattr(script, name)(*arguments) for script in (users, torch))
        if want is not None:
            compare((number, name, arguments), want, got)
        for key in torch.views:
            compare((number, name, "view of", key), torch.views[key], users.views[key])
    for blob in BLOBS if look_at_end else ():
        compare(("at the end", blob), torch.net.blobs[blob].data, users.net.blobs[blob].data)
    return users, torch


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(STEPS, min_size=3, max_size=14))
def test_any_sequence(weights: Path, steps: list[tuple[Any, ...]]) -> None:
    run_both(steps, weights)


CASES: dict[str, list[tuple[Any, ...]]] = {
    "a blob read late has the values of its forward": [("forward",), ("write_input", 3), ("read", "branch")],
    "surgery between a range and the whole net": [("forward_range", 0, 1), ("change_parameter", 0, -1.5), ("forward",)],
    "surgery before the look": [("forward",), ("change_parameter", 0, 2.0), ("read", "pool")],
    "surgery through an old view before the look": [
        ("keep_parameter", 5),
        ("forward",),
        ("change_kept_parameters", -1.5),
        ("read", "fc"),
        ("forward",),
    ],
    "surgery, a range, then the look": [
        ("forward",),
        ("change_parameter", 0, 2.0),
        ("forward_range", 10, 11),
        ("read", "branch"),
    ],
    "another file before the look": [("forward",), ("load",), ("read", "sum"), ("forward",)],
    "another net's parameters before the look": [("forward",), ("share",), ("read", "sum"), ("change_other", 2.0)],
    "a view taken between forwards stays live": [
        ("forward",),
        ("keep_view", "branch"),
        ("write_input", 2),
        ("forward",),
    ],
    "a reshape before the look": [("forward",), ("reshape", 1, 4), ("read", "fc")],
}


@pytest.mark.parametrize("name", CASES)
def test_sequence(name: str, weights: Path) -> None:
    run_both(CASES[name], weights)


def sessions_made(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The outputs of every session that is made from now on."""
    from pycaffe.engines import onnxruntime_engine

    made: list[list[str]] = []
    original: Callable[..., Any] = onnxruntime_engine.create_session

    def create(segment: Any, *arguments: Any) -> Any:
        made.append([name.rpartition("/")[2] for name, _ in segment.outputs])
        return original(segment, *arguments)

    monkeypatch.setattr(onnxruntime_engine, "create_session", create)
    return made


def test_only_what_is_read_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions_made(monkeypatch)
    net = net_of(TEXT)
    for _ in range(3):
        net.forward()
    assert made == [["prob"]]
    net.blobs["branch"].data.sum()
    assert len(made) == 2
    assert set(made[1]) >= {"conv", "branch", "sum", "pool", "fc", "prob"}
    net.blobs["sum"].data.sum()
    assert len(made) == 2  # everything came with the first look


def test_a_blob_that_is_read_each_time_comes_out_of_the_ordinary_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sessions_made(monkeypatch)
    net = net_of(TEXT)
    runs: list[Any] = []
    from pycaffe.engines.compiled_segment import CompiledSegment

    original = CompiledSegment.run_again
    monkeypatch.setattr(CompiledSegment, "run_again", lambda *a: runs.append(a) or original(*a))
    for _ in range(8):
        net.forward()
        net.blobs["pool"].data.sum()
    assert len(runs) <= 2
    assert len(made) <= 3


def test_unread_blobs_take_no_memory() -> None:
    net = net_of(TEXT)
    net.forward()
    assert not net.blobs["branch"].data_storage.allocated
    assert net.blobs["branch"].shape == (2, 4, 5, 7)
    before = copy.copy(net.blobs["prob"].data)
    assert (net.blobs["branch"].data >= 0).all()
    assert net.blobs["branch"].data_storage.allocated
    assert (net.blobs["prob"].data == before).all()


def in_child(function: Callable[[], Any]) -> Any:
    """What a function returns in a forked child, which must end by itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(writer, "wb") as file:
            pickle.dump(function(), file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        values = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return pickle.loads(values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(STEPS, min_size=2, max_size=6), st.lists(STEPS, min_size=1, max_size=4))
def test_any_sequence_that_goes_on_in_a_forked_child(
    weights: Path, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    users, torch = run_both(before, weights, look_at_end=False)

    def go_on(script: Script) -> list[np.ndarray]:
        found = [getattr(script, name)(*arguments) for name, *arguments in after]
        return [a for a in found if a is not None] + [script.net.blobs[blob].data.copy() for blob in BLOBS]

    for number, (got, want) in enumerate(zip(in_child(lambda: go_on(users)), go_on(torch), strict=True)):
        compare((number, "in the child"), want, got)
