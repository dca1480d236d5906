"""SoftmaxWithLossOHEM is SoftmaxWithLoss with the third top of R-FCN."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError
from tests.layers.case import build, check_layer
from tests.layers.test_softmax_with_loss import example, softmax

TEXT = """layer {
  name: "l" type: "SoftmaxWithLossOHEM" bottom: "b0" bottom: "b1" top: "loss" top: "prob" top: "each"
  loss_param { ignore_label: 2 }
}"""


def expected(scores: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    prob, each = softmax(scores, 1), np.zeros(labels.shape)
    for n, _, h, w in np.ndindex(labels.shape):
        label = int(labels[n, 0, h, w])
        each[n, 0, h, w] = 0 if label == 2 else -np.log(prob[n, label, h, w])
    return [np.asarray(each.sum() / (labels != 2).sum()), prob, each]


def test_values() -> None:
    check_layer(TEXT, example((3, 5, 2, 4), (3, 1, 2, 4), 1), expect=expected, gradient=False)


def test_gradient_is_that_of_the_loss() -> None:
    scores, labels = example((3, 5, 2, 4), (3, 1, 2, 4), 1)
    net = build(TEXT, scores.shape, labels.shape, engine="torch")
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = scores, labels
    net.forward()
    net.blobs["each"].diff[...] = 7
    net.backward()
    onehot = (np.arange(5)[None, :, None, None] == labels).astype(float)
    want = np.where(labels == 2, 0, softmax(scores, 1) - onehot) / (labels != 2).sum()
    np.testing.assert_allclose(net.blobs["b0"].diff, want, atol=1e-7)


def test_bad_input() -> None:
    net = build(TEXT, (1, 3, 1, 2), (1, 1, 1, 2), engine="torch")
    net.blobs["b1"].data[...] = 3
    with pytest.raises(InputError, match="Label 3 is out of range"):
        net.forward()
