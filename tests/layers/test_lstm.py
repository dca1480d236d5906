from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer

STEPS, STREAMS, WIDTH = 4, 3, 5


def text(bottoms: str = "", tops: str = "", more: str = "") -> str:
    return (
        f'layer {{ name: "l" type: "LSTM" bottom: "b0" bottom: "b1" {bottoms} top: "y" {tops} '
        f"recurrent_param {{ num_output: {WIDTH} {more} }} }}"
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_loop(
    x: np.ndarray,
    cont: np.ndarray,
    static: np.ndarray | None,
    hidden: np.ndarray,
    cell: np.ndarray,
    params: list[np.ndarray],
) -> list[np.ndarray]:
    w_x, b, *rest = params
    shift = 0.0
    if static is not None:
        shift = static.reshape(len(static), -1) @ rest.pop(0).T
    outputs = []
    for frame, go_on in zip(x.reshape(*x.shape[:2], -1), cont[:, :, None]):
        gates = (hidden * go_on) @ rest[0].T + frame @ w_x.T + b + shift
        i, f, o, g = np.split(gates, 4, axis=1)
        cell = go_on * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        outputs.append(hidden)
    return [np.stack(outputs), hidden[None], cell[None]]


def example(static: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(13)
    cont = np.ones((STEPS, STREAMS))
    cont[0] = 0
    cont[2, 1] = 0
    bottoms = [generator.standard_normal((STEPS, STREAMS, 2, 3)), cont]
    shapes = [(4 * WIDTH, 6), (4 * WIDTH,), (4 * WIDTH, WIDTH)]
    if static:
        bottoms.append(generator.standard_normal((STREAMS, 7)))
        shapes.insert(2, (4 * WIDTH, 7))
    return bottoms, [generator.standard_normal(shape) * 0.5 for shape in shapes]


@pytest.mark.parametrize("static", [False, True])
def test_unrolled_by_hand(static: bool) -> None:
    bottoms, params = example(static)

    def expect(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        given = list(rest)
        first = given.pop(0) if static else None
        zeros = np.zeros((STREAMS, WIDTH))
        return by_loop(x, cont, first, zeros, zeros, given)[0]

    check_layer(text('bottom: "b2"' if static else ""), bottoms, params, expect=expect, lowers=False)


@pytest.mark.parametrize("static", [False, True])
def test_with_the_hidden_state_exposed_it_has_an_onnx_form(static: bool) -> None:
    bottoms, params = example(static)
    bottoms[1][0] = 1  # the first step goes on from h_0 and c_0
    generator = np.random.default_rng(14)
    bottoms += [generator.standard_normal((1, STREAMS, WIDTH)) for _ in range(2)]

    def expect(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> list[np.ndarray]:
        given = list(rest)
        first = given.pop(0) if static else None
        return by_loop(x, cont, first, given.pop(0)[0], given.pop(0)[0], given)

    more = 'bottom: "b2" bottom: "b3"' + (' bottom: "b4"' if static else "")
    tops = 'top: "h" top: "c"'
    net = check_layer(text(more, tops, "expose_hidden: true"), bottoms, params, expect=expect, gradient=False)
    for name in ("h", "c"):  # as in the original, their diffs go nowhere, and none reaches h_0 and c_0
        net.blobs[name].diff[...] = 1
    net.backward()
    assert not net.blobs["b0"].diff.any()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["b0"].diff.any()
    assert not net.blobs[f"b{len(bottoms) - 1}"].diff.any() and not net.blobs[f"b{len(bottoms) - 2}"].diff.any()


def test_blobs_in_the_original_s_order_and_filled() -> None:
    filled = 'weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 3 }'
    net = build(text('bottom: "b2"', more=filled), (STEPS, STREAMS, 6), (STEPS, STREAMS), (STREAMS, 7, 2))
    shapes = [(4 * WIDTH, 6), (4 * WIDTH,), (4 * WIDTH, 14), (4 * WIDTH, WIDTH)]
    assert [blob.shape for blob in net.params["l"]] == shapes
    assert [float(blob.data.mean()) for blob in net.params["l"]] == [2, 3, 2, 2]
