"""CenterLoss: values, the gradient, the centres' own rule, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str = "num_output: 4", more: str = "") -> str:
    return (
        'layer { name: "l" type: "CenterLoss" bottom: "b0" bottom: "b1" top: "loss" '
        f"{more} center_loss_param {{ {param} }} }}"
    )


def expected(x: np.ndarray, label: np.ndarray, centers: np.ndarray) -> np.ndarray:
    total = 0.0
    for n in range(len(x)):
        total += ((x[n].ravel().astype(np.float64) - centers[int(label.ravel()[n])]) ** 2).sum()
    return np.asarray(total / 2 / len(x))


@pytest.mark.parametrize("label_shape", [(5,), (5, 1), (5, 1, 1, 1)])
def test_loop(label_shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(8)
    bottoms = [generator.standard_normal((5, 2, 3, 6)), generator.integers(0, 4, label_shape)]
    centers = generator.standard_normal((4, 36))
    check_layer(layer(), bottoms, [centers], expect=expected, gradient=False)


def test_gradient_of_the_features_in_double_precision() -> None:
    generator = np.random.default_rng(8)
    x, centers = (torch.from_numpy(generator.standard_normal(shape)) for shape in ((5, 6), (4, 6)))
    label = torch.tensor([0.0, 3, 1, 1, 2], dtype=torch.float64)
    loss_layer = build(layer(), x.shape, label.shape)._graph.nodes[-1].layer
    torch.autograd.gradcheck(lambda x: loss_layer.forward([x, label], [centers])[0], x.requires_grad_())
    loss_layer.forward([x, label], [centers])[0].backward()
    (diff, _), _ = loss_layer.backward([torch.tensor(1.0)], [], [x.detach(), label], [centers], [True, False])
    torch.testing.assert_close(diff, x.grad)


def test_by_hand() -> None:
    net = build(layer("num_output: 3 center_filler { value: 1 }", "loss_weight: 10"), (3, 2), (3,), engine="torch")
    net.blobs["b0"].data[...] = [[1, 3], [5, 1], [1, 1]]
    net.blobs["b1"].data[...] = [2, 2, 0]
    assert net.forward()["loss"] == pytest.approx((4 + 16) / 2 / 3)
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, np.array([[0, 2], [4, 0], [0, 0]]) * 10 / 3, rtol=1e-6)
    # (c - x) summed over a class, divided by one more than its items, and not by the loss weight
    np.testing.assert_allclose(net.params["l"][0].diff, [[0, 0], [0, 0], [-4 / 3, -2 / 3]], rtol=1e-6)
    net.backward()
    np.testing.assert_allclose(net.params["l"][0].diff[2], [-8 / 3, -4 / 3], rtol=1e-6)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="Check failed: num_output > 0"):
        build(layer(""), (3, 2), (3,))
    with pytest.raises(ShapeError, match="Expected one label an item, got shape"):
        build(layer(), (3, 2), (3, 2))
    with pytest.raises(ShapeError, match="same first dimension"):
        build(layer(), (3, 2), (4,))
    with pytest.raises(ShapeError, match=r"values from axis 2 on, got \(3, 2, 5\)"):
        build(layer("num_output: 4 axis: 2"), (3, 2, 5), (3,))
    net = build(layer(), (1, 2), (1,), engine="torch")
    net.blobs["b1"].data[...] = 4
    with pytest.raises(InputError, match="Label 4 is out of range"):
        net.forward()
