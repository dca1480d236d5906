"""What is saved beside a solver state: each layer goes on bit for bit."""

from __future__ import annotations

import json
import pathlib
import random

import numpy as np
import pytest

from pycaffe.net import TRAIN, Net
from pycaffe.solvers.run_state import restore_layers, restore_python_random, save_layers, save_python_random
from tests.net.nets import data, layer, net_of

LSTM = 'recurrent_param { num_output: 3 weight_filler { type: "xavier" } }'
STOCHASTIC = "pooling_param { pool: STOCHASTIC kernel_size: 2 }"
GAUSSIAN = 'dummy_data_param { shape { dim: 3 dim: 2 } data_filler { type: "gaussian" } }'
CARRIERS = {
    "Dropout": data(5, 7) + layer("l", "Dropout", "data", "out"),
    "Pooling": data(2, 3, 6, 4) + layer("l", "Pooling", "data", "out", STOCHASTIC),
    "SPP": data(2, 3, 6, 4) + layer("l", "SPP", "data", "out", "spp_param { pool: STOCHASTIC pyramid_height: 2 }"),
    "LSTM": data(4, 2, 5) + data(4, 2, name="cont") + layer("l", "LSTM", "data cont", "out", LSTM),
    "DummyData": layer("l", "DummyData", "", "out", GAUSSIAN),
}


def fed(text: str) -> Net:
    net, rng = net_of(text, TRAIN), np.random.default_rng(1)
    for name in net.inputs:
        net.blobs[name].data[...] = 1 if name == "cont" else np.abs(rng.standard_normal(net.blobs[name].shape))
    return net


@pytest.mark.parametrize("layer_type", CARRIERS)
def test_a_layer_goes_on_where_it_was(layer_type: str) -> None:
    net = fed(CARRIERS[layer_type])
    assert layer_type in [node.type for node in net._graph.nodes]
    for _ in range(3):
        net.forward()
    saved = json.loads(json.dumps(save_layers(net)))
    want = [net.forward()["out"].copy() for _ in range(3)]
    other = fed(CARRIERS[layer_type])
    for target, source in zip(other.params.values(), net.params.values()):
        for blob, values in zip(target, source):
            blob.data[...] = values.data
    first = other.forward()["out"].copy()
    restore_layers(other, saved)
    got = [other.forward()["out"].copy() for _ in range(3)]
    np.testing.assert_array_equal(got, want)
    assert (first != want[0]).any()


def test_layers_that_carry_nothing_are_not_saved() -> None:
    net = net_of(data(2, 3) + layer("relu", "ReLU", "data") + layer("drop", "Dropout", "relu"))
    assert save_layers(net) == {}  # Dropout in TEST draws nothing


def test_layers_of_other_names_stay_as_they_are() -> None:
    net = fed(CARRIERS["Dropout"])
    want = save_layers(net)
    restore_layers(net, {"another": {"generator": {}}})
    assert save_layers(net) == want


def test_data_that_have_changed_begin_anew_with_a_warning(tmp_path: pathlib.Path) -> None:
    import cv2

    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((2, 3, 3), i, np.uint8))
    lines = [f"{tmp_path}/{i}.png {i}\n" for i in range(3)]
    (tmp_path / "list").write_text("".join(lines))
    text = layer("l", "ImageData", "", "x y", f'image_data_param {{ source: "{tmp_path}/list" batch_size: 1 }}')
    net = net_of(text, TRAIN)
    net.forward()
    saved = save_layers(net)
    (tmp_path / "list").write_text("".join(lines[:2]))
    fewer = net_of(text, TRAIN)
    with pytest.warns(RuntimeWarning, match="cannot go on reading.*Layer 'l' begins its data anew"):
        restore_layers(fewer, saved)
    assert fewer.forward()["y"] == 0


def test_the_process_wide_generators_of_python_layers() -> None:
    saved = json.loads(json.dumps(save_python_random()))
    want = (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn())
    restore_python_random(saved)
    assert (random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()) == want
