from __future__ import annotations

import pytest

from pycaffe.errors import LayerError
from pycaffe.layers import layer_types
from pycaffe.layers._neuron import NeuronLayer
from pycaffe.layers._registry import layer_class
from tests.layers.case import build

NEURONS = [name for name in layer_types() if issubclass(layer_class(name), NeuronLayer)]
TEXT = {"Clip": "clip_param { min: -1 max: 1 }"}


def test_the_elementwise_layers_are_found() -> None:
    assert {"AbsVal", "BNLL", "Dropout", "PReLU", "ReLU", "Sigmoid", "Threshold"} <= set(NEURONS)


@pytest.mark.parametrize("name", NEURONS)
def test_the_top_has_the_shape_of_the_bottom(name: str) -> None:
    net = build(f'layer {{ name: "l" type: "{name}" bottom: "b0" top: "t0" {TEXT.get(name, "")} }}', (2, 3, 5, 4))
    net.blobs["b0"].reshape(7, 3, 1, 2)
    net.forward()
    assert net.blobs["t0"].shape == (7, 3, 1, 2)


@pytest.mark.parametrize("name", NEURONS)
def test_there_is_exactly_one_bottom_and_one_top(name: str) -> None:
    with pytest.raises(LayerError, match=r"1 bottom"):
        build(f'layer {{ name: "l" type: "{name}" bottom: "b0" bottom: "b1" top: "t0" }}', (2, 3), (2, 3))
