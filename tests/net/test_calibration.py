from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from pycaffe.engines.segment import lower_segment
from pycaffe.errors import InputError
from pycaffe.net.calibration import Calibration, named_inputs
from tests.net.nets import data, ip, layer, net_of, normal

ONE = data(2, 3, 5) + layer("abs", "AbsVal", "data") + layer("neg", "Power", "abs", rest="power_param { scale: -2 }")
TWO = data(2, 3) + data(2, 3, name="b") + layer("sum", "Eltwise", "data b")


def test_arrays_and_dicts_with_and_without_the_batch_axis() -> None:
    net = net_of(ONE)
    given = [normal(3, 5), normal(4, 3, 5), {"data": normal(3, 5)}, normal(3, 5).astype(np.float64).tolist()]
    found = list(named_inputs(net, given))
    assert [inputs["data"].shape for inputs in found] == [(1, 3, 5), (4, 3, 5), (1, 3, 5), (1, 3, 5)]
    assert {inputs["data"].dtype for inputs in found} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found[3]["data"][0], normal(3, 5))


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        (ONE, {"data": normal(3, 5)}, "Expected an iterable of inputs"),
        (ONE, [normal(5)], r"Input 0 for 'data' has shape \(5,\), expected one like \(2, 3, 5\)"),
        (ONE, [normal(3, 5), {"x": 1}], r"Input 1 has \['x'\], expected \['data'\]"),
        (ONE, ["photo.jpg"], "Input 0 for 'data' is no array of numbers"),
        (TWO, [normal(3)], r"Input 0 is not a dict, and the net has several inputs: \['data', 'b'\]"),
        (layer("d", "DummyData", rest="dummy_data_param { shape { dim: 2 } }"), [1], "The net has no Input layer"),
    ],
)
def test_inputs_that_do_not_fit(text: str, inputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(named_inputs(net_of(text), inputs))


def test_items_are_cut_into_the_batches_of_the_model_and_the_last_is_filled_up() -> None:
    net = net_of(ONE)
    net.blobs["data"].reshape(4, 3, 5)
    net.reshape()
    items = [normal(3, 5, seed=seed) for seed in range(6)]
    samples = list(Calibration(net, items).samples(lower_segment(net._graph, 0, 2)))
    assert [list(sample) for sample in samples] == [["blob/data"]] * 2
    joined = np.concatenate([sample["blob/data"] for sample in samples])
    np.testing.assert_array_equal(joined, np.stack([*items, *items[:2]]))


def test_inputs_of_a_later_segment_are_computed() -> None:
    net = net_of(ONE)
    net.reshape()
    net.blobs["data"].data[...] = 77
    items = [normal(2, 3, 5, seed=seed) for seed in range(3)]
    samples = list(Calibration(net, items).samples(lower_segment(net._graph, 2, 2)))
    np.testing.assert_array_equal([sample["blob/abs"] for sample in samples], np.abs(items))
    assert (net.blobs["data"].data == 77).all(), "the net itself is left alone"


def test_a_calibrated_net_is_freed_with_its_last_reference() -> None:
    net = net_of(data(2, 3) + ip("ip", "data", 4), precision="int8", calibration=[normal(3)])
    net.forward()
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()
