from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.net.compare import OutputDifference
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("ip", "data", 4) + layer("prob", "Softmax", "ip") + layer("abs", "AbsVal", "ip")


def test_the_figures_by_hand() -> None:
    found = OutputDifference()
    found.add(np.float32([[1, 2, 4], [3, 0, 0]]), np.float32([[1, 2, 3], [3, 4, 0]]))
    assert found.largest == 4
    assert found.relative == 1
    assert found.cosine == pytest.approx(9 / (3 * 5))
    assert found.top1 == 0.5
    found.add(np.float32([[0, 8, 0]]), np.float32([[0, 8, 0]]))
    assert (found.largest, found.relative, found.top1) == (4, 0.5, 2 / 3)


@pytest.mark.parametrize(
    ("got", "want", "largest", "relative", "cosine", "top1"),
    [
        ([], [], 0, 0, 1, None),
        (2.0, 4.0, 2, 0.5, 1, None),
        ([[0, 0]], [[0, 0]], 0, 0, 1, 1),
        ([[0, 1]], [[0, 0]], 1, np.inf, 0, 0),
        ([[np.nan, 1]], [[2, 1]], np.inf, np.inf, 0, 1 / 2),
        ([[np.inf, 1]], [[np.inf, 1]], 0, 0, 1, 1),
        ([[[1, 2], [3, 4]]], [[[1, 2], [3, 4]]], 0, 0, 1, None),
        ([[1], [2]], [[1], [2]], 0, 0, 1, None),
        ([[[[1]], [[2]]]], [[[[2]], [[4]]]], 2, 0.5, 1, 1),
    ],
)
def test_odd_values_and_shapes(got, want, largest, relative, cosine, top1) -> None:
    found = OutputDifference()
    found.add(np.float32(got), np.float32(want))
    assert (found.largest, found.relative) == (largest, relative)
    assert found.cosine == pytest.approx(cosine)
    if not np.isnan(got).any():
        assert found.top1 == top1


def test_a_net_against_itself_in_float32() -> None:
    net = net_of(TEXT, engine="onnxruntime")
    found = net.compare([normal(3, seed=i) for i in range(5)])
    assert found.inputs == 5
    assert list(found.outputs) == ["abs", "prob"]
    assert all(output.largest < 1e-5 and output.cosine > 0.9999 for output in found.outputs.values())
    assert found.outputs["prob"].top1 == 1
    assert (found.net, found.reference) == ("onnxruntime float32", "torch float32")
    assert pickle.loads(pickle.dumps(found)) == found


def test_without_torch_the_reference_is_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a))
    found = net_of(TEXT, precision="bfloat16").compare([normal(3)])
    assert (found.net, found.reference) == ("openvino bfloat16", "onnxruntime float32")


def test_another_net_as_the_reference() -> None:
    net, other = net_of(TEXT), net_of(TEXT)
    other.share_with(net)
    moved = net_of(TEXT)
    for mine, theirs in zip(net.params["ip"], moved.params["ip"]):
        theirs.data[...] = mine.data
    moved.params["ip"][1].data[2] += 3
    x = [normal(2, 3, seed=i) for i in range(4)]
    assert net.compare(x, other).outputs["abs"].largest == 0
    want = max(np.abs(net.forward(data=v)["abs"] - moved.forward(data=v)["abs"]).max() for v in x)
    assert net.compare(x, moved).outputs["abs"].largest == pytest.approx(float(want), rel=1e-5)


def test_shapes_are_as_before_and_batches_may_differ() -> None:
    net = net_of(TEXT, precision="int8", calibration=[normal(3, seed=i) for i in range(20)])
    found = net.compare([normal(5, 3), normal(3), {"data": normal(2, 3)}])
    assert found.inputs == 3
    assert 0 < found.outputs["abs"].relative < 0.05
    assert net.blobs["data"].shape == (2, 3)
    assert net.forward()["prob"].shape == (2, 4)


def test_the_table() -> None:
    text = str(net_of(TEXT, precision="bfloat16").compare([normal(3, seed=i) for i in range(3)]))
    first, head, *rows = text.splitlines()
    assert first == "openvino bfloat16 against torch float32, 3 inputs"
    assert head.split("  ")[0].strip() == "output"
    assert [row.split()[0] for row in rows] == ["abs", "prob"]
    assert rows[1].endswith("100.0%")
    assert len({len(line) for line in (head, *rows)}) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [([], "There is no input to compare on"), ([normal(7, 7, 7)], "Input 0 for 'data' has shape"), (3, "not iterable")],
)
def test_inputs_that_do_not_fit(inputs, message) -> None:
    with pytest.raises((InputError, TypeError), match=message):
        net_of(TEXT).compare(inputs)


def test_nets_of_different_outputs() -> None:
    with pytest.raises(InputError, match=r"The nets have different outputs: \['abs', 'prob'\] and \['ip'\]"):
        net_of(TEXT).compare([normal(3)], net_of(data(2, 3) + ip("ip", "data", 4)))
    with pytest.raises(InputError, match=r"different shapes: \(2, 3\) and \(2, 4\)"):
        OutputDifference().add(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))
