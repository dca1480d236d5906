"""Embed on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError
from pycaffe.net import TEST, Net
from pycaffe.proto.prototxt import parse_net
from tests.layers.case import build, check_layer, run_golden


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "Embed" bottom: "b0" top: "t0" embed_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(13).standard_normal(shape, dtype=np.float32)


def test_golden() -> None:
    assert run_golden("embed") == ["torch", "onnxruntime"]


def test_rows() -> None:
    x = np.array([[0, 5, 2], [2, 2, 4]], np.float32)
    check_layer(
        layer("num_output: 4 input_dim: 6"),
        [x],
        [normal(6, 4), normal(4)],
        expect=lambda x, w, b: w[x.astype(int)] + b,
        gradient=False,
    )
    check_layer(
        layer("num_output: 4 input_dim: 6 bias_term: false"),
        [x],
        [normal(6, 4)],
        expect=lambda x, w: w[x.astype(int)],
        gradient=False,
    )


def test_rows_that_occur_twice_gather_their_gradients() -> None:
    embed = layer("num_output: 2 input_dim: 3").replace("embed_param", "loss_weight: 2 embed_param")
    data = 'layer { name: "b0" type: "Input" top: "b0" input_param { shape { dim: 4 } } }'
    net = Net(parse_net(f"{data} {embed}", "test.prototxt"), TEST)  # no force_backward: an index has no gradient
    net.blobs["b0"].data[...] = [2, 0, 2, 2]
    net.forward()
    net.backward()
    assert net.params["l"][0].diff.tolist() == [[2, 2], [0, 0], [6, 6]]
    assert net.params["l"][1].diff.tolist() == [8, 8]


@pytest.mark.parametrize("index", [-1, 3])
def test_index_outside_the_table(index: int) -> None:
    net = build(layer("num_output: 2 input_dim: 3"), (4,), engine="torch")
    net.blobs["b0"].data[1] = index
    with pytest.raises(LayerError, match=rf"index < K_. Index {index} is outside the table of 3 rows"):
        net.forward()


@pytest.mark.parametrize("index", [-1, 3])
def test_index_outside_the_table_of_a_compiled_net(index: int) -> None:
    net = build(layer("num_output: 2 input_dim: 3"), (4,), engine="onnxruntime")
    net.blobs["b0"].data[1] = index
    with pytest.raises(InputError, match=r"outside of what the layer takes.*layer 'l'"):
        net.forward()


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="EmbedLayer num_output must be positive"):
        build(layer("input_dim: 3"), (4,))
    with pytest.raises(LayerError, match="EmbedLayer input_dim must be positive"):
        build(layer("num_output: 3"), (4,))
    net = build(layer("num_output: 2 input_dim: 3"), (4,))
    net.forward()
    with pytest.raises(LayerError, match="Can't backpropagate to EmbedLayer input"):
        net.backward()
