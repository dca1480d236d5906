"""What regions of interest with hostile values give: the same on both engines, no crash, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from tests.layers.case import build

LAYERS = {
    "ROIPooling": "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625 }",
    "PSROIPooling": "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.0625 }",
    "ROIAlign": "roi_align_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625 }",
}
HUGE, NAN, INF = 3e38, float("nan"), float("inf")
ENGINES = ["torch", "onnxruntime"]


def run(layer: str, rois: list[list[float]], engine: str) -> np.ndarray:
    text = f'layer {{ name: "l" type: "{layer}" bottom: "b0" bottom: "b1" top: "t0" {LAYERS[layer]} }}'
    net = build(text, (2, 18, 9, 12), (len(rois), 5), engine=engine)
    net.blobs["b0"].data[...] = np.random.default_rng(5).uniform(1, 2, (2, 18, 9, 12))
    net.blobs["b1"].data[...] = np.reshape(rois, (-1, 5))
    net.forward()
    return net.blobs["t0"].data.copy()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_values_that_are_not_finite_give_zeros(layer: str, engine: str) -> None:
    rois = [[0, NAN, 0, 90, 90], [1, 0, 0, INF, 90], [NAN, 0, 0, 90, 90], [1, 0, 0, 90, 90], [0, 0, -INF, 90, 90]]
    assert (run(layer, rois, engine) != 0).any((1, 2, 3)).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("layer", LAYERS)
def test_engines_agree_on_huge_regions(layer: str) -> None:
    rois = [
        [1, -HUGE, -HUGE, HUGE, HUGE],
        [0, -1e9, 10, 1e9, 20],
        [0, HUGE, HUGE, HUGE, HUGE],
        [1, 2e9, 0, -2e9, 50],
        [0, -1e5, -1e5, 1e5, 1e5],
        [0.9, 0, 0, 50, 60],  # an image is read towards zero
    ]
    torch, onnx = (run(layer, rois, engine) for engine in ENGINES)
    assert np.isfinite(torch).all()
    np.testing.assert_allclose(torch, onnx, rtol=1e-5, atol=1e-6)
    assert not torch[2].any()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("image", [-1, 2, 1e30])
def test_an_image_outside_the_batch(layer: str, image: float) -> None:
    rois = [[0, 0, 0, 90, 90], [image, 0, 0, 90, 90]]
    with pytest.raises(InputError, match=r"Check failed: roi_batch_ind .* Region 1 lies in image"):
        run(layer, rois, "torch")
    with pytest.raises(InputError, match="A value is outside of what the layer takes"):
        run(layer, rois, "onnxruntime")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_region_gives_an_empty_top(layer: str, engine: str) -> None:
    assert run(layer, [], engine).shape[0] == 0
