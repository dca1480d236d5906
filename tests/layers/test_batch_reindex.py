from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import CaffeError, InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs, run_backward

REINDEX = 'layer { name: "l" type: "BatchReindex" bottom: "b0" bottom: "b1" top: "t0" }'


def test_golden() -> None:
    assert run_golden("batch_reindex") == ["torch", "onnxruntime"]


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (3, 7), (3,)])
def test_against_numpy(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    index = [2, 0, 0, 1, 2, 2]
    check_layer(REINDEX, [x, index], expect=lambda x, index: x[index.astype(int)])


def test_the_gradients_of_an_item_picked_twice_add_up() -> None:
    top_diff = np.float32([[1], [20], [300], [4000]])
    x_diff, index_diff = bottom_diffs(REINDEX, [np.zeros((3, 1), np.float32), np.float32([2, 0, 2, 2])], [top_diff])
    np.testing.assert_array_equal(x_diff, [[20], [0], [4301]])
    np.testing.assert_array_equal(index_diff, np.zeros(4))


def test_an_index_that_is_learned_is_an_error() -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "b1" top: "i" scale_param { axis: 0 } }'
    text = f'{scale} layer {{ name: "l" type: "BatchReindex" bottom: "b0" bottom: "i" top: "t0" loss_weight: 1 }}'
    with pytest.raises(LayerError, match="Cannot backprop to index"):
        run_backward(text, [np.zeros((3, 1), np.float32), np.float32([2, 0])], [])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, -1], r"Index specified for reindex layer was negative\. Got -1\.0"),
        ([3, 0], r"Index specified for reindex layer was greater than batch size\. Got 3\.0 for a batch of 3"),
        ([0, np.nan], "Index specified for reindex layer was"),
    ],
)
def test_an_index_out_of_range(index: list[float], message: str) -> None:
    net = build(REINDEX, (3, 2), (2,), engine="torch")
    net.blobs["b1"].data[...] = index
    with pytest.raises(CaffeError, match=message):
        net.forward()


@pytest.mark.parametrize("index", [[0, -1], [3, 0], [0, np.nan], [-0.5, 0]])
def test_an_index_out_of_range_of_a_compiled_net(index: list[float]) -> None:
    net = build(REINDEX, (3, 2), (2,), engine="onnxruntime")
    net.blobs["b1"].data[...] = index
    with pytest.raises(InputError, match=r"outside of what the layer takes.*layer 'l'"):
        net.forward()


def test_the_index_has_one_axis() -> None:
    with pytest.raises(ShapeError, match=r"1 == bottom\[1\]->num_axes\(\) \(1 vs\. 2\)"):
        build(REINDEX, (3, 2), (2, 1))
    with pytest.raises(ShapeError, match="needs a batch axis"):
        build(REINDEX, (), (2,))
