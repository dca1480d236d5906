from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs, run_backward

FILTER = 'layer { name: "l" type: "Filter" bottom: "b0" bottom: "b1" bottom: "b2" top: "t0" top: "t1" }'
ONE = 'layer { name: "l" type: "Filter" bottom: "b0" bottom: "b1" top: "t0" }'


def test_golden() -> None:
    assert run_golden("filter") == ["torch"]


@pytest.mark.parametrize("selector", [[1, 0, 1, -2, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0.5, 0]])
def test_against_numpy(selector: list[float]) -> None:
    generator = np.random.default_rng(1)
    a, b = generator.standard_normal((5, 3, 2, 4)), generator.standard_normal((5, 6))
    for shape in [(5,), (5, 1), (5, 1, 1, 1)]:
        check_layer(
            FILTER,
            [a, b, np.reshape(selector, shape)],
            expect=lambda a, b, s: [a[s.ravel() != 0], b[s.ravel() != 0]],
            lowers=False,
            gradient=False,  # a step in the selector selects other items
        )


def test_after_set_up_the_tops_are_as_long_as_the_bottoms_and_then_as_long_as_the_selection() -> None:
    net = build(FILTER, (5, 3), (5, 2, 4), (5, 1))
    assert (net.blobs["t0"].shape, net.blobs["t1"].shape) == ((5, 3), (5, 2, 4))
    for selected in (2, 0, 5):
        net.blobs["b2"].data[...] = 0
        net.blobs["b2"].data[:selected] = 1
        net.forward()
        assert (net.blobs["t0"].shape, net.blobs["t1"].shape) == ((selected, 3), (selected, 2, 4))


def test_layers_after_it_get_the_selection() -> None:
    text = ONE + 'layer { name: "f" type: "Reduction" bottom: "t0" top: "y" reduction_param { operation: MEAN } }'
    net = build(text, (4, 2), (4,))
    net.blobs["b0"].data[...] = [[1, 2], [3, 4], [5, 6], [7, 8]]
    net.blobs["b1"].data[...] = [0, 1, 0, 1]
    assert net.forward()["y"] == np.float32(5.5)
    net.blobs["b1"].data[...] = [1, 0, 0, 0]
    assert net.forward()["y"] == np.float32(1.5)


def test_what_was_left_out_gets_no_gradient() -> None:
    x, selector = np.zeros((4, 2), np.float32), np.float32([0, 1, 0, 1])
    diff, selector_diff = bottom_diffs(ONE, [x, selector], [np.float32([[1, 2], [3, 4]])])
    np.testing.assert_array_equal(diff, [[0, 0], [1, 2], [0, 0], [3, 4]])
    np.testing.assert_array_equal(selector_diff, np.zeros(4))


def test_a_selector_that_is_learned_is_an_error() -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "b1" top: "c" scale_param { axis: 0 } }'
    text = f'{scale} layer {{ name: "l" type: "Filter" bottom: "b0" bottom: "c" top: "t0" loss_weight: 1 }}'
    with pytest.raises(LayerError, match="Filter Layer cannot backpropagate to filter index inputs"):
        run_backward(text, [np.zeros((3, 1), np.float32), np.float32([2, 0, 1])], [])


def test_one_top_less_than_bottoms() -> None:
    text = 'layer { name: "l" type: "Filter" bottom: "b0" bottom: "b1" top: "t0" top: "t1" }'
    with pytest.raises(LayerError, match=r"top\.size\(\) == bottom\.size\(\) - 1 \(2 vs\. 1\)"):
        build(text, (3, 2), (3,))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 2), (3, 2)], r"Selector blob dimensions must be singletons \(1\), except the first\. Got shape \(3, 2\)"),
        ([(3, 2), (4,)], "Each bottom should have the same 0th dimension as the selector blob"),
        ([(), ()], "Each bottom should have the same 0th dimension as the selector blob"),
    ],
)
def test_shapes_that_do_not_fit(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(ONE, *shapes)
