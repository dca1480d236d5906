"""SSD's batch sampler: parts of an image, drawn so that they hold its objects in a given way (util/sampler.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.data.boxes import Array, box_coverages, jaccard_overlaps
from pycaffe.errors import LayerError

__all__ = ["check_batch_sampler", "sample_boxes"]

TRIALS_AT_ONCE = 256


def check_batch_sampler(param: Any) -> None:
    """Raises LayerError where the BatchSampler's scales or aspect ratios are impossible."""
    sampler = param.sampler
    checks = (
        ("sampler.max_scale() >= sampler.min_scale()", sampler.max_scale >= sampler.min_scale),
        ("sampler.min_scale() > 0.", sampler.min_scale > 0),
        ("sampler.max_scale() <= 1.", sampler.max_scale <= 1),
        (
            "sampler.max_aspect_ratio() >= sampler.min_aspect_ratio()",
            sampler.max_aspect_ratio >= sampler.min_aspect_ratio,
        ),
        ("sampler.min_aspect_ratio() > 0.", sampler.min_aspect_ratio > 0),
        ("sampler.max_aspect_ratio() < FLT_MAX", np.isfinite(sampler.max_aspect_ratio)),
    )
    for sentence, holds in checks:
        if not holds:
            raise LayerError(f"Check failed: {sentence}. Got sampler {{ {' '.join(str(sampler).split())} }}.")


def sample_boxes(samplers: Sequence[Any], objects: Array, generator: np.random.Generator) -> Array:
    """Boxes (n, 4), of each sampler the first `max_sample` of `max_trials` (100) that keep its constraint.

    A trial has an area of scale² of the image, scale and aspect ratio uniform between their limits, and lies uniformly
    inside of the image.

    Args:
        samplers: BatchSampler messages; one without `use_original_image` gives none.
        objects: the boxes of the objects (m, 4).
        generator: what is drawn from.
    """
    found = [np.empty((0, 4), np.float32)]
    for param in samplers:
        if not param.use_original_image:
            continue
        wanted = param.max_sample if param.HasField("max_sample") else param.max_trials
        for start in range(0, param.max_trials, TRIALS_AT_ONCE):
            trials = _trials(param.sampler, min(TRIALS_AT_ONCE, param.max_trials - start), generator)
            kept = trials[_satisfies(trials, objects, param.sample_constraint)][:wanted]
            found.append(kept)
            wanted -= len(kept)
            if wanted == 0:
                break
    return np.concatenate(found)


def _trials(sampler: Any, count: int, generator: np.random.Generator) -> Array:
    draws = generator.random((4, count))
    scale = sampler.min_scale + draws[0] * (sampler.max_scale - sampler.min_scale)
    ratio = sampler.min_aspect_ratio + draws[1] * (sampler.max_aspect_ratio - sampler.min_aspect_ratio)
    ratio = np.clip(ratio, scale**2, 1 / scale**2)  # else it would not fit in
    size = np.minimum(np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)]), 1)
    low = draws[2:] * (1 - size)
    boxes: Array = np.concatenate([low, low + size]).T.astype(np.float32)
    return boxes


def _satisfies(trials: Array, objects: Array, constraint: Any) -> npt.NDArray[np.bool_]:
    """Which trials meet an object as the SampleConstraint wants it.

    Of several kinds of constraints only the first counts, of jaccard overlap, sample coverage, object coverage: where
    an object meets that one, the fork forgets the others.
    """
    kinds = (
        ("jaccard_overlap", lambda: jaccard_overlaps(trials, objects)),
        ("sample_coverage", lambda: box_coverages(trials, objects)),
        ("object_coverage", lambda: box_coverages(objects, trials).T),
    )
    for kind, values in kinds:
        low, high = f"min_{kind}", f"max_{kind}"
        if constraint.HasField(low) or constraint.HasField(high):
            value = values()
            meets = np.ones(value.shape, bool)
            if constraint.HasField(low):
                meets &= value >= np.float32(getattr(constraint, low))
            if constraint.HasField(high):
                meets &= value <= np.float32(getattr(constraint, high))
            satisfied: npt.NDArray[np.bool_] = np.any(meets, axis=1)
            return satisfied
    return np.ones(len(trials), bool)
