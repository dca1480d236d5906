"""CTCDecoder: labels by item, and the most probable ones section by section."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build
from tests.layers.paths import labelling_probabilities, softmax
from tests.layers.test_ctc_greedy_decoder import INDICATORS, PATHS, expected, layer, run, scores


@pytest.mark.parametrize("name", ["CTCDecoder", "CtcDecoder"])
def test_best_path(name: str) -> None:
    x = scores(PATHS)
    labels, score = run(layer(2, 2, name=name), x, INDICATORS)
    np.testing.assert_array_equal(labels, expected([5, 3, 5], 3)[:, :, None, None])
    best = x.max(2)
    np.testing.assert_allclose(score.ravel(), [best[:, 0].prod(), best[:3, 1].prod(), best[:, 2].prod()], rtol=1e-6)


def test_most_probable_labels_of_each_section() -> None:
    y = softmax(np.random.default_rng(8).normal(0, 1.5, (7, 2, 3)))
    y[3, 0], y[4, 0], y[0, 1] = [0.01, 0.01, 0.98], [0.02, 0.03, 0.95], [0.005, 0.005, 0.99]
    indicators = np.ones((7, 2))
    labels, score = run(layer(2, 2, "decoding: 1 blank_threshold: 0.9", "CTCDecoder"), y, indicators)
    for n, sections in enumerate([[slice(0, 3), slice(5, 7)], [slice(1, 7)]]):
        found, probability = [], 1.0
        for section in sections:
            every = labelling_probabilities(y[section, n].astype(np.float32), 2)
            best = max(every, key=lambda key: every[key])
            found, probability = [*found, *best], probability * every[best]
        assert labels[n].ravel().tolist() == found + [-1] * (7 - len(found))
        assert float(score[n].squeeze()) == pytest.approx(probability, rel=1e-5)


def test_accuracy_is_the_last_top() -> None:
    truth = np.full((5, 3), -1)
    truth[:3, 0], truth[:1, 1], truth[:4, 2] = [1, 1, 2], [2], [2, 0, 1, 1]
    *_, accuracy = run(layer(3, 3, name="CTCDecoder"), scores(PATHS), INDICATORS, truth)
    assert float(accuracy.squeeze()) == pytest.approx(0.5)


def test_another_decoding() -> None:
    with pytest.raises(LayerError, match=r"decode method must be 0 or 1\. Got decoding 2"):
        build(layer(1, 1, "decoding: 2", "CTCDecoder"), (5, 3, 4))
