"""What RNN and LSTM share: counts, shapes, and the state carried from one forward to the next."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.engines.segment import SegmentNotLowerable, lower_segment
from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TEST, TRAIN, Net
from tests.layers.case import build

FILLED = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" }'


def text(layer_type: str, bottoms: int = 2, tops: int = 1, more: str = "num_output: 5") -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms)) + " " + " ".join(f'top: "t{i}"' for i in range(tops))
    return f'layer {{ name: "l" type: "{layer_type}" {names} recurrent_param {{ {more} {FILLED} }} }}'


def nets(layer_type: str, steps: int) -> tuple[Net, Net]:
    """A net of `steps` time steps and one of twice as many, with the same parameters."""
    short = build(text(layer_type), (steps, 3, 4), (steps, 3))
    long = build(text(layer_type), (2 * steps, 3, 4), (2 * steps, 3))
    long.share_with(short)
    return short, long


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_two_forwards_go_on_where_one_of_twice_the_length_does(layer_type: str) -> None:
    short, long = nets(layer_type, 2)
    x = np.random.default_rng(15).standard_normal((4, 3, 4)).astype(np.float32)
    cont = np.ones((4, 3), np.float32)
    whole = long.forward(b0=x, b1=cont)["t0"].copy()
    first = short.forward(b0=x[:2], b1=cont[:2])["t0"].copy()
    short.reshape()  # does not move the state on
    second = short.forward(b0=x[2:], b1=cont[2:])["t0"].copy()
    np.testing.assert_allclose(np.concatenate([first, second]), whole, rtol=1e-5, atol=1e-6)
    third = short.forward(b0=x[2:], b1=cont[2:])["t0"].copy()
    assert np.abs(third - second).max() > 1e-3


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_cont_zero_and_another_number_of_streams_start_anew(layer_type: str) -> None:
    short, _ = nets(layer_type, 2)
    x = np.random.default_rng(16).standard_normal((2, 3, 4)).astype(np.float32)
    first = short.forward(b0=x, b1=np.ones((2, 3)))["t0"].copy()
    cont = np.ones((2, 3))
    cont[0, 1] = 0
    second = short.forward(b0=x, b1=cont)["t0"].copy()
    np.testing.assert_allclose(second[:, 1], first[:, 1], rtol=1e-6)
    assert (np.abs(second - first).max(axis=(0, 2)) > 1e-3).tolist() == [True, False, True]
    short.blobs["b0"].reshape(2, 1, 4)
    short.blobs["b1"].reshape(2, 1)
    third = short.forward(b0=x[:, 2:], b1=np.ones((2, 1)))["t0"]
    np.testing.assert_allclose(third, first[:, 2:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_type", ["RNN", "LSTM"])
def test_backward_is_of_the_last_forward_and_does_not_move_the_state(layer_type: str) -> None:
    """A TEST-phase forward leaves no record: the first backward computes it again."""
    generator = np.random.default_rng(17)
    x, weight = generator.standard_normal((2, 3, 4)), generator.standard_normal((2, 3, 5))
    by_phase = []
    for phase in (TEST, TRAIN):
        net = build(text(layer_type), (2, 3, 4), (2, 3), phase=phase)
        for blob, value in zip(net.params["l"], np.random.default_rng(18).standard_normal((9, 400)) * 0.5):
            blob.data[...] = value[: blob.count].reshape(blob.shape)
        results = []
        for _ in range(2):
            net.forward(b0=x, b1=np.ones((2, 3)))
        net.blobs["t0"].diff[...] = weight
        net.backward()
        results.append(net.blobs["b0"].diff.copy())
        results.append(net.forward(b0=x, b1=np.ones((2, 3)))["t0"].copy())
        by_phase.append(results)
    np.testing.assert_allclose(by_phase[0][0], by_phase[1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_phase[0][1], by_phase[1][1], rtol=1e-5, atol=1e-6)
    assert np.abs(by_phase[0][0]).max() > 0.01


def test_long_sequences_and_carried_states_have_no_onnx_form() -> None:
    shapes = (65, 3, 4), (65, 3), (1, 3, 5)
    net = build(text("RNN", 3, 2, "num_output: 5 expose_hidden: true"), *shapes)
    with pytest.raises(SegmentNotLowerable, match="65 time steps, more than the 64"):
        lower_segment(net._graph, 0, len(net.layers) - 1)
    net = build(text("RNN"), (4, 3, 6), (4, 3))
    with pytest.raises(SegmentNotLowerable, match="carries its hidden state from one forward to the next"):
        lower_segment(net._graph, 0, len(net.layers) - 1)


def test_refuses_the_gradient_of_cont() -> None:
    net = build(
        'layer { name: "i" type: "InnerProduct" bottom: "b1" top: "cont" inner_product_param { num_output: 3 } }'
        + text("LSTM").replace('bottom: "b1"', 'bottom: "cont" loss_weight: 1'),
        (2, 3, 4),
        (2, 3),
    )
    net.forward()
    with pytest.raises(LayerError, match="Cannot backpropagate to sequence indicators"):
        net.backward()


@pytest.mark.parametrize(
    ("layer", "shapes", "error", "message"),
    [
        (text("RNN", more=""), [(4, 3, 6), (4, 3)], LayerError, "num_output must be positive"),
        (text("RNN"), [(4,), (4, 3)], ShapeError, r"bottom\[0\] must have at least 2 axes"),
        (text("RNN"), [(4, 3, 6), (4, 3, 1)], ShapeError, r"bottom\[1\] must have exactly 2 axes"),
        (text("RNN"), [(4, 3, 6), (5, 3)], ShapeError, r"T_ == bottom\[1\]->shape\(0\) \(4 vs. 5\)"),
        (text("RNN"), [(4, 3, 6), (4, 2)], ShapeError, r"N_ == bottom\[1\]->shape\(1\) \(3 vs. 2\)"),
        (text("RNN"), [(4, 3), (4, 3)], LayerError, "axis 2 out of range for a 2-D Blob"),
        (text("RNN", 3), [(4, 3, 6), (4, 3), (2, 7)], ShapeError, r"N_ == bottom\[2\]->shape\(0\)"),
        (text("RNN", 4), [(4, 3, 6), (4, 3), (3, 7), (3, 7)], LayerError, "RNN Layer takes at most 3 bottom"),
        (
            text("LSTM", 3, 3, "num_output: 5 expose_hidden: true"),
            [(4, 3, 6), (4, 3), (1, 3, 5)],
            LayerError,
            "LSTM Layer takes at least 4 bottom",
        ),
        (text("LSTM", 2, 2), [(4, 3, 6), (4, 3)], LayerError, "LSTM Layer produces 1 top"),
        (
            text("LSTM", 4, 3, "num_output: 5 expose_hidden: true"),
            [(4, 3, 6), (4, 3), (1, 3, 5), (1, 3, 4)],
            ShapeError,
            r"shape mismatch - recur_input_blobs_\[1\]: \(1, 3, 5\) vs. bottom\[3\]: \(1, 3, 4\)",
        ),
    ],
)
def test_bad_input(layer: str, shapes: list[tuple[int, ...]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(layer, *shapes)


def test_what_may_change_after_the_net_is_built() -> None:
    net = build(text("RNN"), (4, 3, 6), (4, 3))
    net.blobs["b0"].reshape(5, 3, 6)
    net.blobs["b1"].reshape(5, 3)
    with pytest.raises(ShapeError, match=r"input number of timesteps changed \(4 vs. 5\)"):
        net.reshape()
    net.blobs["b0"].reshape(4, 3, 7)
    net.blobs["b1"].reshape(4, 3)
    with pytest.raises(ShapeError, match=r"Input size incompatible with inner product parameters \(6 vs. 7"):
        net.reshape()
