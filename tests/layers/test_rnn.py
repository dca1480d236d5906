from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer

STEPS, STREAMS, WIDTH = 4, 3, 5


def text(bottoms: str = "", tops: str = "", more: str = "") -> str:
    return (
        f'layer {{ name: "l" type: "RNN" bottom: "b0" bottom: "b1" {bottoms} top: "y" {tops} '
        f"recurrent_param {{ num_output: {WIDTH} {more} }} }}"
    )


def by_loop(
    x: np.ndarray, cont: np.ndarray, static: np.ndarray | None, hidden: np.ndarray, params: list[np.ndarray]
) -> list[np.ndarray]:
    w_x, b_h, *rest = params
    shift = 0.0
    if static is not None:
        shift = static.reshape(len(static), -1) @ rest.pop(0).T
    w_h, w_o, b_o = rest
    outputs = []
    for frame, go_on in zip(x.reshape(*x.shape[:2], -1), cont):
        hidden = np.tanh((hidden * go_on[:, None]) @ w_h.T + frame @ w_x.T + b_h + shift)
        outputs.append(np.tanh(hidden @ w_o.T + b_o))
    return [np.stack(outputs), hidden[None]]


def example(static: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(11)
    cont = np.ones((STEPS, STREAMS))
    cont[0] = 0
    cont[2, 1] = 0
    bottoms = [generator.standard_normal((STEPS, STREAMS, 2, 3)), cont]
    shapes = [(WIDTH, 6), (WIDTH,), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH,)]
    if static:
        bottoms.append(generator.standard_normal((STREAMS, 7)))
        shapes.insert(2, (WIDTH, 7))
    return bottoms, [generator.standard_normal(shape) * 0.5 for shape in shapes]


@pytest.mark.parametrize("static", [False, True])
def test_unrolled_by_hand(static: bool) -> None:
    bottoms, params = example(static)

    def expect(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        given = list(rest)
        first = given.pop(0) if static else None
        return by_loop(x, cont, first, np.zeros((STREAMS, WIDTH)), given)[0]

    check_layer(text('bottom: "b2"' if static else ""), bottoms, params, expect=expect, lowers=False)


@pytest.mark.parametrize("static", [False, True])
def test_with_the_hidden_state_exposed_it_has_an_onnx_form(static: bool) -> None:
    bottoms, params = example(static)
    bottoms[1][0] = 1  # the first step goes on from h_0
    bottoms.append(np.random.default_rng(12).standard_normal((1, STREAMS, WIDTH)))

    def expect(x: np.ndarray, cont: np.ndarray, *rest: np.ndarray) -> list[np.ndarray]:
        given = list(rest)
        first = given.pop(0) if static else None
        return by_loop(x, cont, first, given.pop(0)[0], given)

    more = 'bottom: "b2" bottom: "b3"' if static else 'bottom: "b2"'
    check_layer(text(more, 'top: "h"', "expose_hidden: true"), bottoms, params, expect=expect, gradient=False)


def test_blobs_in_the_original_s_order_and_filled() -> None:
    filled = 'weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 3 }'
    net = build(text('bottom: "b2"', more=filled), (STEPS, STREAMS, 6), (STEPS, STREAMS), (STREAMS, 7, 2))
    shapes = [(WIDTH, 6), (WIDTH,), (WIDTH, 14), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH,)]
    assert [blob.shape for blob in net.params["l"]] == shapes
    assert [float(blob.data.mean()) for blob in net.params["l"]] == [2, 3, 2, 2, 2, 3]
