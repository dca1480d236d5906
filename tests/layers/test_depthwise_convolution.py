from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_fork_golden


@pytest.mark.parametrize("name", [*(f"depthwise_{i}" for i in range(6)), "depthwise_two"])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "DepthwiseConvolution" bottom: "b0" top: "t0" convolution_param {{ {param} }} }}'


def test_by_hand_a_filter_of_ones_adds_up_a_window_of_its_own_channel() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    weight = np.ones((3, 1, 1, 2), np.float32) * np.array([1, 10, 100], np.float32).reshape(3, 1, 1, 1)
    check_layer(
        layer("num_output: 3 group: 3 kernel_h: 1 kernel_w: 2 bias_term: false"),
        [x],
        [weight],
        expect=lambda x, w: (x[..., :-1] + x[..., 1:]) * w[:, 0, :, :1],
    )


def test_group_says_how_many_channels_a_filter_sees() -> None:
    net = build(layer("num_output: 4 group: 2 kernel_size: 3"), (2, 6, 4, 5))
    assert [blob.shape for blob in net.params["l"]] == [(4, 3, 3, 3), (4,)]
    assert build(layer("num_output: 4 kernel_size: 3"), (2, 6, 4, 5)).params["l"][0].shape == (4, 6, 3, 3)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"channels_ % group_ == 0. Got 6 channels and group 4"):
        build(layer("num_output: 4 group: 4 kernel_size: 3"), (2, 6, 4, 5))
