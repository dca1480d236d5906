from __future__ import annotations

import numpy as np

from pycaffe.data.boxes import box_coverages, box_sizes, clip_boxes, jaccard_overlaps, project_boxes

BOXES = np.array([[0, 0, 0.5, 0.4], [0.25, 0, 0.75, 0.4], [0.5, 0.4, 0.2, 0.1], [-0.5, 0.5, 0.5, 1.5]], np.float32)


def test_sizes_and_limits() -> None:
    np.testing.assert_allclose(box_sizes(BOXES), [0.2, 0.2, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(clip_boxes(BOXES)[3], [0, 0.5, 0.5, 1])


def test_overlaps_and_coverages() -> None:
    np.testing.assert_allclose(jaccard_overlaps(BOXES[:1], BOXES), [[1, 1 / 3, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(box_coverages(BOXES[[0, 3]], BOXES[[1, 3]]), [[0.5, 0], [0, 1]], rtol=1e-6)


def test_projection_clips_and_says_what_is_left() -> None:
    source = np.array([0.25, 0, 0.75, 0.8], np.float32)
    boxes, kept = project_boxes(np.concatenate([BOXES, [[0.75, 0, 1, 1]]]).astype(np.float32), source)
    assert kept.tolist() == [True, True, False, True, False]
    np.testing.assert_allclose(boxes[[0, 1, 3]], [[0, 0, 0.5, 0.5], [0, 0, 1, 0.5], [0, 0.625, 0.5, 1]], rtol=1e-6)
