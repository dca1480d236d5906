from __future__ import annotations

import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build


def layer(steps: int, batch: int) -> str:
    param = f"continuation_indicator_param {{ time_step: {steps} batch_size: {batch} }}"
    return f'layer {{ name: "l" type: "ContinuationIndicator" top: "t0" {param} }}'


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_sequence_begins_at_step_0(engine: str) -> None:
    net = build(layer(3, 2), engine=engine)
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_reversed_lstm_between_transposes() -> None:
    text = (
        layer(3, 2)
        + """
        layer { name: "r" type: "Reverse" bottom: "b0" top: "r" }
        layer { name: "lstm" type: "LSTM" bottom: "r" bottom: "t0" top: "h"
                recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "back" type: "Reverse" bottom: "h" top: "h_back" }"""
    )
    net = build(text, (3, 2, 5))
    net.blobs["b0"].data[...] = 1
    net.forward()
    assert net.blobs["h_back"].data.shape == (3, 2, 4)
    assert (net.blobs["h_back"].data[2] == net.blobs["h"].data[0]).all()


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"The batch size should be greater than 0. Got batch_size 0"):
        build(layer(3, 0))
    with pytest.raises(LayerError, match=r"The time step should be greater than 0. Got time_step 0"):
        build(layer(0, 2))
    with pytest.raises(ShapeError, match="blob size exceeds INT_MAX"):
        build(layer(1_000_000_000, 1_000_000_000))
