"""Which nets a solver trains and tests, and in which state."""

from __future__ import annotations

import pathlib

import pytest

import caffe
from pycaffe.errors import ProtoError, SolverError
from tests.net.nets import data, layer

NET = (
    data(2, 3)
    + layer("train", "ReLU", "data", "a", "include { phase: TRAIN }")
    + layer("test", "TanH", "data", "a", "include { phase: TEST }")
    + layer("staged", "Sigmoid", "a", "b", 'include { stage: "deep" }')
    + layer("levelled", "AbsVal", "data", "c", "include { min_level: 3 }")
)
BASE = 'base_lr: 0.1 lr_policy: "fixed"\n'


@pytest.fixture
def net(tmp_path: pathlib.Path) -> str:
    (tmp_path / "net.prototxt").write_text(NET)
    return str(tmp_path / "net.prototxt")


def layers(net: caffe.Net) -> list[str]:
    return [name for name in net._layer_names if name in ("train", "test", "staged", "levelled")]


def make(tmp_path: pathlib.Path, text: str) -> caffe.SGDSolver:
    (tmp_path / "solver.prototxt").write_text(BASE + text)
    return caffe.get_solver(str(tmp_path / "solver.prototxt"))


def test_one_net_for_both_phases(tmp_path: pathlib.Path, net: str) -> None:
    solver = make(tmp_path, f'net: "{net}" test_iter: 1 test_iter: 2 test_interval: 5')
    assert layers(solver.net) == ["train"]
    assert [layers(test_net) for test_net in solver.test_nets] == [["test"], ["test"]]


def test_states(tmp_path: pathlib.Path, net: str) -> None:
    solver = make(
        tmp_path,
        f'net: "{net}" test_iter: 1 test_iter: 2 test_interval: 5 train_state {{ stage: "deep" level: 3 }} '
        'test_state { } test_state { stage: "deep" stage: "other" }',
    )
    assert layers(solver.net) == ["train", "staged", "levelled"]
    assert [layers(test_net) for test_net in solver.test_nets] == [["test"], ["test", "staged"]]


def test_the_nets_own_state_counts_between_default_and_solver(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.prototxt").write_text('state { level: 3 stage: "deep" }\n' + NET)
    solver = make(tmp_path, f'net: "{tmp_path}/net.prototxt" test_iter: 1 test_interval: 5 test_state {{ level: 1 }}')
    assert layers(solver.net) == ["train", "staged", "levelled"]
    assert layers(solver.test_nets[0]) == ["test", "staged"]


def test_inline_nets_come_before_files_and_the_common_one_last(tmp_path: pathlib.Path, net: str) -> None:
    other = tmp_path / "other.prototxt"
    other.write_text('name: "other"\n' + data(4, 5))
    solver = make(
        tmp_path,
        f'net_param {{ name: "common" {data(7, 7)} }} test_net: "{other}" '
        f'test_net_param {{ name: "inline" {data(1, 1)} }} '
        "test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 5",
    )
    assert solver.net.blobs["data"].shape == (7, 7)
    assert [test_net.blobs["data"].shape for test_net in solver.test_nets] == [(1, 1), (4, 5), (7, 7)]


def test_the_log_says_where_each_net_is_from(
    tmp_path: pathlib.Path, net: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pycaffe")
    inline = f"{{ {data(1, 1)} }}"
    tests = f'test_net: "{net}" test_net_param {inline} test_iter: [1, 1, 1] test_interval: 5'
    make(tmp_path, f'net: "{net}" {tests}')
    for field in ("net_param", "train_net_param"):
        make(tmp_path, f"{field} {inline}")
    make(tmp_path, f"net_param {inline} test_iter: 1 test_interval: 5")
    make(tmp_path, f'train_net: "{net}"')
    assert [line for line in caplog.messages if line.startswith("Creating t")] == [
        f"Creating training net from net file: {net}",
        "Creating test net (#0) specified by test_net_param",
        f"Creating test net (#1) specified by test_net file: {net}",
        f"Creating test net (#2) specified by net file: {net}",
        "Creating training net specified in net_param.",
        "Creating training net specified in train_net_param.",
        "Creating training net specified in net_param.",
        "Creating test net (#0) specified by net_param",
        f"Creating training net from train_net file: {net}",
    ]


def test_train_net_and_test_net(tmp_path: pathlib.Path, net: str) -> None:
    solver = make(tmp_path, f'train_net: "{net}" test_net: "{net}" test_iter: 1 test_interval: 5')
    assert (layers(solver.net), layers(solver.test_nets[0])) == (["train"], ["test"])
    solver = make(tmp_path, f"train_net_param {{ {NET} }}")
    assert (layers(solver.net), solver.test_nets) == (["train"], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "SolverParameter must specify a train net using one of these fields: net, net_param, train_net"),
        ('net: "NET" train_net: "NET"', r"must not contain more than one of these fields .* Got net, train_net\."),
        ('train_net: "NET" test_iter: 1', "test_iter must be specified for each test network. Got 1 test_iter for 0"),
        ('net: "NET" test_net: "NET" test_net: "NET" test_iter: 1', "Got 1 test_iter for 2 test nets"),
        ('net: "NET" test_iter: 1', "Check failed: test_interval > 0"),
        ('net: "NET" test_iter: 1 test_interval: 1 test_state { } test_state { }', "Got 2 test_state for 1 test nets"),
    ],
)
def test_what_does_not_fit(tmp_path: pathlib.Path, net: str, text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        make(tmp_path, text.replace("NET", net))


def test_a_net_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ProtoError, match=r"Could not open file none\.prototxt"):
        make(tmp_path, 'net: "none.prototxt"')
