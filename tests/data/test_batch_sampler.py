from __future__ import annotations

import numpy as np
import pytest

from pycaffe.data.batch_sampler import check_batch_sampler, sample_boxes
from pycaffe.data.boxes import box_coverages, jaccard_overlaps
from pycaffe.errors import LayerError
from pycaffe.proto.prototxt import parse_text
from pycaffe.proto.schema import BatchSampler

OBJECTS = np.array([[0.4, 0.4, 0.6, 0.7], [0, 0, 0.1, 0.1]], np.float32)


def sampler(text: str) -> object:
    return parse_text(BatchSampler(), text, "s")


def sample(*texts: str, objects: np.ndarray = OBJECTS) -> np.ndarray:
    return sample_boxes([sampler(text) for text in texts], objects, np.random.default_rng(3))


def test_parts_have_the_areas_and_aspects_asked_for_and_lie_inside() -> None:
    boxes = sample(
        "sampler { min_scale: 0.3 max_scale: 0.5 min_aspect_ratio: 0.5 max_aspect_ratio: 2 } max_trials: 600"
    )
    assert boxes.shape == (600, 4)
    assert (boxes >= 0).all()
    assert (boxes <= 1 + 1e-6).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    scale, ratio = np.sqrt(width * height), width / height
    for values, low, high in ((scale, 0.3, 0.5), (ratio, 0.5, 2)):
        assert low - 1e-4 <= values.min() < low + 0.05
        assert high - 0.05 < values.max() <= high + 1e-4


@pytest.mark.parametrize(
    ("constraint", "measure"),
    [
        ("jaccard_overlap", lambda boxes: jaccard_overlaps(boxes, OBJECTS)),
        ("sample_coverage", lambda boxes: box_coverages(boxes, OBJECTS)),
        ("object_coverage", lambda boxes: box_coverages(OBJECTS, boxes).T),
    ],
)
def test_parts_keep_their_constraint_with_some_object(constraint: str, measure: object) -> None:
    text = (
        "sampler { min_scale: 0.2 max_aspect_ratio: 3 } sample_constraint { min_%s: 0.3 max_%s: 0.5 } max_trials: 900"
    )
    boxes = sample(text % (constraint, constraint))
    assert 0 < len(boxes) < 900
    values = measure(boxes)  # type: ignore[operator]
    assert ((values >= 0.3) & (values <= 0.5)).any(axis=1).all()


def test_counts() -> None:
    assert len(sample("max_sample: 2", "max_sample: 3 max_trials: 2", "use_original_image: false")) == 4
    assert len(sample("sample_constraint { min_jaccard_overlap: 0.1 }", objects=OBJECTS[:0])) == 0
    assert len(sample("max_sample: 0", "max_trials: 0")) == 0
    assert sample().shape == (0, 4)
    assert len(sample("max_sample: 1 max_trials: 4000000000")) == 1  # ends at the first one


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ("min_scale: 0", r"min_scale\(\) > 0"),
        ("max_scale: 1.5", r"max_scale\(\) <= 1"),
        ("max_scale: 0.5", r"max_scale\(\) >= sampler.min_scale\(\)"),
        ("min_aspect_ratio: 2", r"max_aspect_ratio\(\) >= sampler.min_aspect_ratio"),
        ("min_aspect_ratio: -1", r"min_aspect_ratio\(\) > 0"),
        ("max_aspect_ratio: inf", "FLT_MAX"),
        ("min_scale: nan", "Check failed"),
    ],
)
def test_impossible(fields: str, match: str) -> None:
    with pytest.raises(LayerError, match=match):
        check_batch_sampler(sampler(f"sampler {{ {fields} }}"))
