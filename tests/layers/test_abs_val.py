from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

ABS = 'layer { name: "l" type: "AbsVal" bottom: "b0" top: "t0" }'


def test_golden() -> None:
    assert run_golden("absval") == ["torch", "onnxruntime"]


def test_against_numpy() -> None:
    check_layer(ABS, [np.random.default_rng(1).standard_normal((2, 3, 5, 4))], expect=np.abs)


def test_the_gradient_at_zero_is_zero() -> None:
    (diff,) = bottom_diffs(ABS, [np.float32([-2, 0, 3])], [np.float32([5, 6, 7])])
    np.testing.assert_array_equal(diff, [-5, 0, 7])


def test_not_in_place() -> None:
    with pytest.raises(LayerError, match=r"AbsVal Layer does not allow in-place computation\..*'b0'"):
        build('layer { name: "l" type: "AbsVal" bottom: "b0" top: "b0" }', (2, 3))
