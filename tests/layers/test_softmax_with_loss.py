from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import assert_close, build, check_layer, run_fork_golden

TEXT = 'layer {{ name: "l" type: "SoftmaxWithLoss" bottom: "b0" bottom: "b1" top: "loss" {more} }}'


def softmax(scores: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(scores.astype(np.float64) - scores.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def total_and_count(scores: np.ndarray, labels: np.ndarray, axis: int, ignore: int | None) -> tuple[float, int]:
    rows = np.moveaxis(softmax(scores, axis), axis, -1).reshape(-1, scores.shape[axis])
    total, count = 0.0, 0
    for row, label in zip(rows, labels.reshape(-1).astype(int)):
        if label != ignore:
            total -= np.log(max(row[label], np.finfo(np.float32).tiny))
            count += 1
    return total, count


def example(shape: tuple[int, ...], label_shape: tuple[int, ...], axis: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    return generator.standard_normal(shape), generator.integers(0, shape[axis], label_shape)


@pytest.mark.parametrize(
    ("more", "ignore", "divisor"),
    [
        ("", None, 24),
        ("loss_param { ignore_label: 2 }", 2, None),
        ("loss_param { ignore_label: 2 normalization: FULL }", 2, 24),
        ("loss_param { ignore_label: 2 normalization: VALID }", 2, None),
        ("loss_param { normalization: VALID }", None, 24),
        ("loss_param { ignore_label: 2 normalization: BATCH_SIZE }", 2, 3),
        ("loss_param { normalization: NONE }", None, 1),
        ("loss_param { ignore_label: 2 normalize: true }", 2, None),
        ("loss_param { normalize: false }", None, 3),
        ("loss_param { normalize: false normalization: FULL }", None, 24),
    ],
)
def test_normalization(more: str, ignore: int | None, divisor: int | None) -> None:
    def expect(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        total, count = total_and_count(scores, labels, 1, ignore)
        return np.asarray(total / (divisor or count))

    check_layer(TEXT.format(more=more), example((3, 5, 2, 4), (3, 1, 2, 4), 1), expect=expect)


@pytest.mark.parametrize(
    ("shape", "label_shape", "axis"),
    [((4, 5), (4,), 1), ((4, 5), (4, 1, 1, 1), -1), ((3, 2, 4, 5), (3, 2, 4), 3), ((3, 2, 5, 4), (3, 8), 2)],
)
def test_axis(shape: tuple[int, ...], label_shape: tuple[int, ...], axis: int) -> None:
    def expect(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        total, count = total_and_count(scores, labels, axis, None)
        return np.asarray(total / count)

    text = TEXT.format(more=f"softmax_param {{ axis: {axis} }}")
    check_layer(text, example(shape, label_shape, axis), expect=expect)


def test_is_zero_where_every_label_is_ignored() -> None:
    text = TEXT.format(more="loss_param { ignore_label: 255 }")
    check_layer(text, [np.ones((2, 3)), [255, 255]], expect=lambda *_: np.asarray(0.0))


@pytest.mark.parametrize("weights", ["", "loss_weight: 1 loss_weight: 0", "loss_weight: 0.5 loss_weight: 0"])
def test_the_second_top_is_the_softmax_and_no_gradient_flows_through_it(weights: str) -> None:
    scores, labels = example((2, 5, 3), (2, 3), 1)

    def expect(scores: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        total, count = total_and_count(scores, labels, 1, None)
        return [np.asarray(total / count), softmax(scores, 1)]

    net = check_layer(TEXT.format(more=f'top: "p" {weights}'), [scores, labels], expect=expect, gradient=False)
    net.blobs["p"].diff[...] = 100
    net.backward()
    onehot = np.moveaxis(np.eye(5)[labels], -1, 1)
    weight = 0.5 if "0.5" in weights else 1
    assert_close("diff", weight * (softmax(scores, 1) - onehot) / 6, net.blobs["b0"].diff, rtol=1e-4, atol=1e-6)


def test_a_clipped_loss_keeps_its_gradient() -> None:
    smallest = -np.log(np.finfo(np.float32).tiny)
    net = check_layer(
        TEXT.format(more=""), [[[300, 0, 0]], [1]], expect=lambda *_: np.asarray(smallest), gradient=False
    )
    net.backward()
    assert net.blobs["b0"].diff.tolist() == [[1, -1, 0]]
    assert not net.blobs["b1"].diff.any()


@pytest.mark.parametrize(("label", "check"), [(5, "label_value < num_labels (5 vs. 5)"), (-1, "label_value >= 0")])
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_label_outside_the_classes(label: int, check: str, engine: str) -> None:
    net = build(TEXT.format(more=""), (2, 5), (2,), engine=engine)
    net.blobs["b1"].data[...] = [4, label]
    if engine == "onnxruntime":  # it says where and that an index is out of bounds, in its own words
        with pytest.raises(Exception, match="l/GatherElements"):
            net.forward()
        return
    with pytest.raises(InputError, match=rf"Label {label} is out of range: labels must be in 0 .. 4\. .*'l'") as caught:
        net.forward()
    assert check in str(caught.value)


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match="The data and label should have the same first dimension"):
        build(TEXT.format(more=""), (3, 5), (2,))
    with pytest.raises(
        ShapeError, match=r"\(24 vs. 21\) Number of labels must match number of predictions; .* softmax axis"
    ):
        build(TEXT.format(more=""), (3, 5, 2, 4), (3, 7))
    with pytest.raises(LayerError, match="out of range"):
        build(TEXT.format(more="softmax_param { axis: 2 }"), (3, 5), (3,))


def test_refuses_to_backpropagate_to_labels() -> None:
    net = build(
        'layer { name: "i" type: "InnerProduct" bottom: "b1" top: "t" inner_product_param { num_output: 1 } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "b0" bottom: "t" top: "loss" }',
        (2, 5),
        (2, 3),
    )
    net.forward()
    with pytest.raises(LayerError, match="SoftmaxWithLoss Layer cannot backpropagate to label inputs"):
        net.backward()


@pytest.mark.parametrize("name", [f"softmaxloss_weighted_{i}" for i in range(5)])
def test_segnet_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def test_class_weights_do_not_change_the_divisor() -> None:
    more = "loss_param { ignore_label: 1 weight_by_label_freqs: true class_weighting: 0.5 class_weighting: 9 "
    more += "class_weighting: 3 }"

    def expect(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        prob, weights, total = softmax(scores, 1), (0.5, 9, 3), 0.0
        for n, _, h, w in np.ndindex(labels.shape):
            label = int(labels[n, 0, h, w])
            total -= 0 if label == 1 else weights[label] * np.log(prob[n, label, h, w])
        return np.asarray(total / (labels != 1).sum())

    check_layer(TEXT.format(more=more), example((2, 3, 4, 5), (2, 1, 4, 5), 1), expect=expect)


def test_bad_weights() -> None:
    with pytest.raises(ShapeError, match="Number of class weight values does not match the number of classes"):
        build(TEXT.format(more="loss_param { weight_by_label_freqs: true class_weighting: 1 }"), (2, 3), (2,))
    with pytest.raises(LayerError, match="Unknown normalization mode: PRE_FIXED"):
        build(TEXT.format(more="loss_param { normalization: PRE_FIXED }"), (2, 3), (2,))
