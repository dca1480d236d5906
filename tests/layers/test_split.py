from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

SPLIT = 'layer { name: "l" type: "Split" bottom: "b0" top: "t0" top: "t1" top: "t2" }'


def test_golden() -> None:
    assert run_golden("split") == ["torch", "onnxruntime"]


def test_every_top_equals_the_bottom() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(SPLIT, [x], expect=lambda x: [x, x, x])


def test_the_gradients_add_up() -> None:
    diffs = np.random.default_rng(1).standard_normal((3, 2, 3)).astype(np.float32)
    (diff,) = bottom_diffs(SPLIT, [np.zeros((2, 3), np.float32)], list(diffs))
    np.testing.assert_allclose(diff, diffs.sum(axis=0), rtol=1e-6)


def test_the_tops_share_the_bottoms_memory() -> None:
    net = build(SPLIT, (2, 3))
    net.forward()
    net.blobs["b0"].data[...] = 5
    np.testing.assert_array_equal(net.blobs["t1"].data, np.full((2, 3), 5, np.float32))


def test_not_in_place() -> None:
    with pytest.raises(LayerError, match="Split Layer does not allow in-place computation"):
        build('layer { name: "l" type: "Split" bottom: "b0" top: "b0" top: "t1" }', (2, 3))
