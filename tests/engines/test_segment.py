from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from pycaffe.engines.segment import SegmentNotLowerable, lower_segment
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("ip", "data", 4) + layer("relu", "ReLU", "ip", "ip") + layer("tanh", "TanH", "ip")


def run(segment, blobs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a segment by hand, its parameters as ordinary initializers."""
    model = onnx.ModelProto()
    model.CopyFrom(segment.model)
    for tensor in [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]:
        (storage, shape) = next((s, shape) for name, s, shape in segment.parameters if name == tensor.name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(storage.array().reshape(shape), tensor.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for name, _ in segment.outputs]
    return dict(zip(names, session.run(names, blobs)))


def test_a_segment_is_a_valid_model_with_parameters_outside() -> None:
    net = net_of(TEXT)
    segment = lower_segment(net._graph, 0, 3)
    assert segment.inputs == [("blob/data", 0)]
    assert [blob for _, blob in segment.outputs] == [1, 2]
    assert [shape for _, _, shape in segment.parameters] == [(4, 3), (4,)]
    assert len(segment.model.SerializeToString()) < 2000
    x = normal(2, 3)
    ip_value, tanh = run(segment, {"blob/data": x}).values()
    want = np.maximum(x @ net.params["ip"][0].data.T + net.params["ip"][1].data, 0)
    np.testing.assert_allclose(ip_value, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tanh, np.tanh(want), rtol=1e-4, atol=1e-6)


def test_wanted_blobs_alone_come_out() -> None:
    net = net_of(TEXT)
    segment = lower_segment(net._graph, 0, 3, wanted=frozenset([2]))
    assert [blob for _, blob in segment.outputs] == [2]


def test_a_segment_in_the_middle_reads_what_it_did_not_make() -> None:
    net = net_of(TEXT)
    segment = lower_segment(net._graph, 2, 3)
    assert segment.inputs == [("blob/ip", 1)]
    got = list(run(segment, {"blob/ip": normal(2, 4)}).values())
    np.testing.assert_allclose(got[0], np.maximum(normal(2, 4), 0))


def test_shared_parameters_are_held_once() -> None:
    spec = 'param { name: "w" } param { name: "b" }'
    net = net_of(data(2, 3) + ip("one", "data", 3, spec) + ip("two", "one", 3, spec))
    segment = lower_segment(net._graph, 0, 2)
    assert [storage for _, storage, _ in segment.parameters] == [b.data_storage for b in net.params["one"]]


def test_blobs_over_one_memory() -> None:
    text = data(2, 3, 4) + layer("p", "Power", "data") + layer("f", "Flatten", "p") + layer("r", "ReLU", "f", "f")
    segment = lower_segment(net_of(text)._graph, 0, 3)
    assert segment.shared == [2]
    assert [blob for _, blob in segment.outputs] == [1]  # the bottom's memory is the top's
    (value,) = run(segment, {"blob/data": normal(2, 3, 4)}).values()
    np.testing.assert_array_equal(value, np.maximum(normal(2, 3, 4), 0))


def test_a_layer_without_an_onnx_form_is_named() -> None:
    net = net_of(data(2, 3) + layer("r", "ReLU", "data") + layer("s", "Silence", "r", ""))
    text = (
        data(4, 2, 3)
        + data(4, 2, name="cont")
        + layer("r", "RNN", "data cont", rest="recurrent_param { num_output: 2 }")
    )
    net = net_of(text)
    with pytest.raises(SegmentNotLowerable, match="carries its hidden state") as caught:
        lower_segment(net._graph, 0, 2)
    assert caught.value.index == 2
