from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build, check_layer

TEXT = (
    'layer {{ name: "l" type: "ContrastiveLoss" bottom: "b0" bottom: "b1" bottom: "b2" top: "loss" '
    "contrastive_loss_param {{ {param} }} }}"
)


@pytest.mark.parametrize(("param", "margin", "legacy"), [("", 1, False), ("margin: 3 legacy_version: true", 3, True)])
@pytest.mark.parametrize(("shape", "label_shape"), [((6, 4), (6,)), ((6, 4, 1, 1), (6, 1, 1, 1))])
def test_pairs_as_in_a_loop(
    param: str, margin: float, legacy: bool, shape: tuple[int, ...], label_shape: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(8)
    a, b = generator.standard_normal(shape) * 0.4, generator.standard_normal(shape) * 0.4
    similar = np.reshape([0, 1, 0.9, 2, 0, -1], label_shape)  # 0.9 is cut to 0

    def expect(a: np.ndarray, b: np.ndarray, similar: np.ndarray) -> np.ndarray:
        total = 0.0
        for x, y, s in zip(a.reshape(6, 4), b.reshape(6, 4), similar.reshape(6)):
            squared = float(((x - y) ** 2).sum())
            if int(s):
                total += squared
            else:
                total += max(margin - squared, 0.0) if legacy else max(margin - squared**0.5, 0.0) ** 2
        return np.asarray(total / 12)

    check_layer(TEXT.format(param=param), [a, b, similar], expect=expect)


def test_hand_made_gradients() -> None:
    for param, want in (
        ("margin: 2", [0.5, -1.5 / (0.5 + 1e-4) * 0.25]),
        ("margin: 2 legacy_version: true", [0.5, -0.25]),
    ):
        net = build(TEXT.format(param=param), (2, 1), (2, 1), (2,))
        net.blobs["b0"].data[...] = [[1], [0.5]]
        net.blobs["b2"].data[...] = [1, 0]
        net.forward()
        net.backward()
        assert net.blobs["b0"].diff.reshape(-1).tolist() == pytest.approx(want, rel=1e-6)
        assert net.blobs["b1"].diff.reshape(-1).tolist() == pytest.approx([-w for w in want], rel=1e-6)
        assert not net.blobs["b2"].diff.any()


def test_a_dissimilar_pair_at_distance_zero_has_gradient_zero() -> None:
    net = check_layer(
        TEXT.format(param=""), [[[1, 2]], [[1, 2]], [0]], expect=lambda *_: np.asarray(0.5), gradient=False
    )
    net.backward()
    assert not net.blobs["b0"].diff.any()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((6, 4), (6, 5), (6,)), r"bottom\[1\]->channels\(\) == 4 \(5 vs. 4\)"),
        (((6, 4, 2, 1), (6, 4), (6,)), r"bottom\[0\]->height\(\) == 1 \(2 vs. 1\)"),
        (((6, 4), (6, 4), (6, 2)), r"bottom\[2\]->channels\(\) == 1 \(2 vs. 1\)"),
        (((6, 4), (6, 4), (5,)), r"Expected 6 similarity labels, got shape \(5,\)"),
        (((6, 4, 1, 1, 1), (6, 4), (6,)), "Cannot use legacy accessors on Blobs with > 4 axes"),
    ],
)
def test_wrong_shapes(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(TEXT.format(param=""), *shapes)
