"""CtcLoss and CTCLoss: values by all paths, gradients by finite differences, labels that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, NetError, ShapeError
from pycaffe.net import TRAIN, Net
from tests.layers.case import build, check_layer
from tests.layers.paths import likelihood, softmax

LABELLED = (
    'layer {{ name: "l" type: "CtcLoss" bottom: "b0" bottom: "b1" top: "loss" {weight}'
    "ctc_loss_param {{ alphabet_size: 4 time_step: {steps} {more} }} }}"
)
INDICATED = (
    'layer {{ name: "l" type: "CTCLoss" bottom: "b0" bottom: "b1" bottom: "b2" top: "loss" '
    "ctc_loss_param {{ {param} }} }}"
)


def labelled(steps: int = 5, more: str = "", weight: str = "") -> str:
    return LABELLED.format(steps=steps, more=more, weight=weight)


def scores(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 2, shape).astype(np.float32)


def cost(x: np.ndarray, labels: list[int], blank: int, merge: bool = True) -> float:
    return -np.log(likelihood(softmax(x), labels, blank, merge))


def run(text: str, *bottoms: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss and the gradient of the scores."""
    net = build(text, *(np.shape(b) for b in bottoms), phase=TRAIN, engine="torch")
    for i, bottom in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = bottom
    net.forward()
    net.backward()
    return float(net.blobs["loss"].data), net.blobs["b0"].diff.copy()


def check_gradient_of_the_sum(text: str, *bottoms: np.ndarray) -> None:
    """The layer's backward in float64 against finite differences of N times its loss."""
    import torch

    net: Net = build(text, *(np.shape(b) for b in bottoms), phase=TRAIN, engine="torch")
    layer = net._graph.nodes[net._layer_names.index("l")].layer
    x = [torch.from_numpy(np.asarray(b, np.float64)) for b in bottoms]
    (top,) = layer.forward(x, [])
    assert top.dtype == torch.float64
    (gradient, *others), _ = layer.backward([torch.ones(())], [top], x, [], [True] + [False] * (len(x) - 1))
    assert others == [None] * (len(x) - 1)
    rng = np.random.default_rng(3)
    for _ in range(4):
        step = torch.from_numpy(rng.standard_normal(x[0].shape))
        up, down = (layer.forward([x[0] + 1e-5 * sign * step, *x[1:]], [])[0] for sign in (1, -1))
        slope = float((up - down) / 2e-5) * x[0].shape[1]
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-6)


# -- CtcLoss


@pytest.mark.parametrize(
    "blank, rows", [(0, [[1, 2, 0], [3, 0, 3], [0, 0, 1]]), (3, [[1, 2, 3], [0, 3, 0], [3, 3, 1]])]
)
@pytest.mark.parametrize("steps", [5, 4])
def test_values_of_labels_with_blanks_in_places_not_used(blank: int, rows: list[list[int]], steps: int) -> None:
    def expect(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        rows = [[int(label) for label in row if label != blank] for row in labels]
        return np.array(np.mean([cost(x[:steps, n], row, blank) for n, row in enumerate(rows)]))

    text = labelled(steps, f"blank_label: {blank}")
    check_layer(text, [scores(5, 3, 4), np.array(rows)], expect=expect, lowers=False, gradient=False)
    check_gradient_of_the_sum(text, scores(5, 3, 4), np.array(rows))


def test_one_step_by_hand() -> None:
    x = np.log(np.array([[[0.5, 0.25, 0.125, 0.125]]]))
    loss, gradient = run(labelled(1), x, np.array([[2]]))
    assert loss == pytest.approx(np.log(8), rel=1e-6)
    np.testing.assert_allclose(gradient, [[[0.5, 0.25, -0.875, 0.125]]], atol=1e-6)


def test_loss_weight_counts() -> None:
    x, labels = scores(5, 2, 4), np.array([[1, 2], [3, 0]])
    np.testing.assert_allclose(
        run(labelled(weight="loss_weight: 0.5 "), x, labels)[1], run(labelled(), x, labels)[1] / 2, rtol=1e-6
    )


def test_labels_that_do_not_fit_cost_nothing() -> None:
    x, labels = scores(3, 2, 4), np.array([[1, 1, 0], [2, 2, 2]])
    loss, gradient = run(labelled(3), x, labels)
    assert loss == pytest.approx(cost(x[:, 0], [1, 1], 0) / 2, rel=1e-5)
    assert not gradient[:, 1].any() and gradient[:, 0].all()


@pytest.mark.parametrize(
    "text, shapes, error, message",
    [
        (labelled(0), ((5, 2, 4), (2, 3)), LayerError, "The time step should be greater than 0. Got 0"),
        (labelled(6), ((5, 2, 4), (2, 3)), ShapeError, "do not fit alphabet_size 4 and time_step 6"),
        (labelled(5), ((5, 2, 3), (2, 3)), ShapeError, "do not fit alphabet_size 4"),
        (labelled(5), ((5, 2, 4), (3, 3)), ShapeError, "The input blobs should have same dimensions"),
        (labelled(5).replace("alphabet_size: 4", ""), ((5, 2, 4), (2, 3)), LayerError, "The size of alphabeta"),
    ],
)
def test_bad_parameters(text: str, shapes: tuple[tuple[int, ...], ...], error: type[NetError], message: str) -> None:
    with pytest.raises(error, match=message):
        build(text, *shapes)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([[4, 0], [1, 0]], "Label 4 of sequence 0"),
        ([[-1, 0], [1, 0]], "Label -1"),
        ([[0, 0]] * 2, "total length should"),
    ],
)
def test_bad_labels(labels: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(labelled(), scores(5, 2, 4), np.array(labels))


# -- CTCLoss

INDICATORS = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 1]])
LABELS = np.array([[1, 0, -1], [1, 2, 2], [2, -1, 2], [-1, 1, 0], [-1, 1, -1]])


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("delay", [0, 1])
def test_values_of_sequences_of_their_own_lengths(merge: bool, collapse: bool, delay: int) -> None:
    """Sequence 0 has 5 steps and labels 1 1 2; 1 has 3 steps and 0 2; 2 has 1 step and no labels."""

    def expect(x: np.ndarray, indicators: np.ndarray, labels: np.ndarray) -> np.ndarray:
        first = [1, 2] if collapse else [1, 1, 2]
        costs = [cost(x[delay:5, 0], first, 3, merge), cost(x[delay:3, 1], [0, 2], 3, merge), 0]
        return np.array(np.mean(costs))

    param = f"output_delay: {delay} ctc_merge_repeated: {str(merge).lower()} "
    text = INDICATED.format(param=param + f"preprocess_collapse_repeated: {str(collapse).lower()}")
    bottoms = [scores(5, 3, 4), INDICATORS, LABELS]
    check_layer(text, bottoms, expect=expect, lowers=False, gradient=False)
    check_gradient_of_the_sum(text, *bottoms)


@pytest.mark.parametrize("index, blank", [(0, 0), (2, 2), (-1, 3)])
def test_blank_index(index: int, blank: int) -> None:
    labels = np.full((5, 1), -1)
    labels[:2, 0] = 1, 1
    x = scores(5, 1, 4)
    loss, _ = run(INDICATED.format(param=f"blank_index: {index}"), x, np.ones((5, 1)), labels)
    assert loss == pytest.approx(cost(x[:, 0], [1, 1], blank), rel=1e-5)


def test_no_path_costs_infinity_and_pulls_all_scores_down() -> None:
    x = scores(3, 1, 4)
    loss, gradient = run(INDICATED.format(param=""), x, np.ones((3, 1)), np.array([[1], [1], [1]]))
    assert loss == np.inf
    np.testing.assert_allclose(gradient, softmax(x), rtol=1e-5)


def test_a_class_that_is_none_ends_the_labels() -> None:
    x = scores(5, 1, 4)
    loss, _ = run(INDICATED.format(param=""), x, np.ones((5, 1)), np.array([[1], [3], [7], [-1], [-1]]))
    assert loss == pytest.approx(cost(x[:, 0], [1], 3), rel=1e-5)


@pytest.mark.parametrize(
    "indicators, labels, message",
    [
        ([0, 1, 1], [-1, -1, -1], r"seq_len\[n\] <= 1 \(3 vs. 1\)"),
        ([0, 1, 0], [0, 1, 2], "The label length must be smaller or equals the sequence length!"),
        ([0, 1, 1], [0, 3, 2], "Saw a non-null label following a null label, sequence number 0"),
    ],
)
def test_bad_sequences(indicators: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(INDICATED.format(param=""), scores(3, 1, 4), np.array([indicators]).T, np.array([labels]).T)


@pytest.mark.parametrize(
    "param, shapes, message",
    [
        ("", ((5, 2, 4), (5, 3), (5, 2)), "The sequence indicators must be"),
        ("", ((5, 2, 4), (5, 2), (4, 2)), "The labels must be"),
        ("output_delay: 5", ((5, 2, 4), (5, 2), (5, 2)), "output_delay must be in 0 .. 4. Got 5"),
    ],
)
def test_bad_shapes(param: str, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(INDICATED.format(param=param), *shapes)


def test_labels_get_no_gradient() -> None:
    text = (
        'layer { name: "p" type: "Power" bottom: "b1" top: "p" } '
        'layer { name: "l" type: "CtcLoss" bottom: "b0" bottom: "p" top: "loss" '
        "ctc_loss_param { alphabet_size: 4 time_step: 5 } propagate_down: true propagate_down: true }"
    )
    with pytest.raises(LayerError, match="cannot backpropagate to label inputs"):
        run(text, scores(5, 2, 4), np.array([[1, 2], [3, 0]]))
