from __future__ import annotations

import logging

import numpy as np
import pytest

from tests.net.nets import data, fill_params, ip, layer, net_of, normal


def test_debug_info_logs_the_originals_lines(caplog: pytest.LogCaptureFixture) -> None:
    text = "debug_info: true force_backward: true " + data(2, 3)
    net = net_of(text + ip("ip", "data", 4, 'param { name: "w" }') + layer("relu", "ReLU", "ip", "ip"))
    fill_params(net)
    with caplog.at_level(logging.INFO, "pycaffe"):
        net.forward(data=normal(2, 3))
        net.backward(ip=np.ones((2, 4)))
    weight, bias = (blob.data for blob in net.params["ip"])
    before = normal(2, 3) @ weight.T + bias
    diff = (before > 0).astype(np.float32)

    def line(text: str, array: np.ndarray) -> tuple[str, float]:
        return text, float(np.abs(array).mean())

    want = [
        line("    [Forward] Layer data, top blob data data: ", normal(2, 3)),
        line("    [Forward] Layer ip, top blob ip data: ", before),
        line("    [Forward] Layer ip, param blob w data: ", weight),
        line("    [Forward] Layer ip, param blob 1 data: ", bias),
        line("    [Forward] Layer relu, top blob ip data: ", np.maximum(before, 0)),
        line("    [Backward] Layer relu, bottom blob ip diff: ", diff),
        line("    [Backward] Layer ip, bottom blob data diff: ", diff @ weight),
        line("    [Backward] Layer ip, param blob 0 diff: ", diff.T @ normal(2, 3)),
        line("    [Backward] Layer ip, param blob 1 diff: ", diff.sum(0)),
    ]
    got = [record.getMessage() for record in caplog.records]
    assert len(got) == len(want)
    for message, (text, value) in zip(got, want):
        assert message.startswith(text)
        assert float(message[len(text) :]) == pytest.approx(value, rel=1e-3)


def test_without_it_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pycaffe"):
        net_of(data(2, 3) + ip("ip", "data", 4)).forward()
    assert not caplog.records


def test_an_empty_blob_has_magnitude_zero(caplog: pytest.LogCaptureFixture) -> None:
    net = net_of("debug_info: true " + data(2, 3))
    net.blobs["data"].reshape(0, 3)
    with caplog.at_level(logging.INFO, "pycaffe"):
        net.forward()
    assert caplog.messages == ["    [Forward] Layer data, top blob data data: 0"]
