from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.net import Net
from tests.layers.case import FORKS, build, check_gradient, run_fork_golden
from tests.layers.test_boxes import plain_match

CASES = sorted(path.stem for path in FORKS.glob("multiboxloss_*.prototxt"))
BATCH, PRIORS, CLASSES, OBJECTS = 3, 11, 4, 5


def layer(param: str, more: str = "") -> str:
    bottoms = " ".join(f'bottom: "b{index}"' for index in range(4))
    return (
        f'layer {{ name: "l" type: "MultiBoxLoss" {bottoms} top: "loss" multibox_loss_param {{ {param} }} '
        f"propagate_down: true propagate_down: true propagate_down: false propagate_down: false {more} }}"
    )


def net(param: str, more: str = "", classes: int = CLASSES, locations: int = 1) -> Net:
    shapes = ((BATCH, PRIORS * 4 * locations), (BATCH, PRIORS * classes), (1, 2, PRIORS * 4), (1, 1, OBJECTS, 8))
    return build(layer(param, more), *shapes)


def fill(net: Net, seed: int, classes: int = CLASSES) -> list[np.ndarray]:
    """Random predictions, priors and objects; the middle image has none."""
    generator = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        center, size = generator.uniform(0.2, 0.8, (count, 2)), generator.uniform(0.2, 0.5, (count, 2))
        return np.concatenate([center - size / 2, center + size / 2], 1)

    objects = np.zeros((OBJECTS, 8))
    objects[:, 0] = [0, 0, 2, 2, 2]
    objects[:, 1] = generator.integers(1, classes, OBJECTS)
    objects[:, 3:7] = boxes(OBJECTS)
    objects[1, 7] = 1
    arrays = [
        generator.standard_normal(net.blobs["b0"].data.shape),
        2 * generator.standard_normal(net.blobs["b1"].data.shape),
        np.stack([boxes(PRIORS).reshape(-1), np.tile([0.1, 0.1, 0.2, 0.2], PRIORS)])[None],
        objects[None, None],
    ]
    for index, array in enumerate(arrays):
        net.blobs[f"b{index}"].data[...] = array
    return [np.asarray(array, np.float32).astype(np.float64) for array in arrays]


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch"]


def test_cases_are_there() -> None:
    assert len(CASES) == 31


# -- against loops


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(width * height / (sum(areas) - width * height))


def center_code(box: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
    width, height = prior[2] - prior[0], prior[3] - prior[1]
    code = [
        ((box[0] + box[2]) / 2 - (prior[0] + prior[2]) / 2) / width,
        ((box[1] + box[3]) / 2 - (prior[1] + prior[3]) / 2) / height,
        np.log((box[2] - box[0]) / width),
        np.log((box[3] - box[1]) / height),
    ]
    return np.array(code) / variance


def confidence(scores: np.ndarray, label: int, logistic: bool) -> float:
    if not logistic:
        return float(np.log(np.exp(scores).sum()) - scores[label])
    return float(sum(np.log1p(np.exp(s)) - s * (c == label) for c, s in enumerate(scores)))


def plain_loss(arrays: list[np.ndarray], mining: str, logistic: bool, ratio: float, threshold: float | None) -> float:
    """SMOOTH_L1, CENTER_SIZE, priors matched, VALID; without mining only SOFTMAX."""
    locations, scores = arrays[0].reshape(BATCH, PRIORS, 4), arrays[1].reshape(BATCH, PRIORS, -1)
    priors, variances = arrays[2].reshape(2, PRIORS, 4)
    table = arrays[3].reshape(-1, 8)
    total, matches = 0.0, 0
    for image in range(BATCH):
        own = [row for row in table if row[0] == image]
        found, best = [-1] * PRIORS, [0.0] * PRIORS
        if own:
            found, best = plain_match(np.array([[overlap(p, row[3:7]) for row in own] for p in priors]), threshold)
        labels = [int(own[match][1]) if match >= 0 else 0 for match in found]
        conf = [confidence(scores[image, p], labels[p], logistic) for p in range(PRIORS)]
        loc = [0.0] * PRIORS
        for p in (p for p in range(PRIORS) if found[p] >= 0):
            for error in np.abs(locations[image, p] - center_code(own[found[p]][3:7], priors[p], variances[p])):
                loc[p] += 0.5 * error**2 if error < 1 else error - 0.5
        positive = {p for p in range(PRIORS) if found[p] >= 0}
        if mining == "NONE":
            negative = set(range(PRIORS)) - positive
        elif not own:
            continue
        elif mining == "MAX_NEGATIVE":
            candidates = sorted((-conf[p], p) for p in range(PRIORS) if p not in positive and best[p] < 0.5)
            negative = {p for _, p in candidates[: int(len(positive) * ratio)]}
        else:
            chosen = {p for _, p in sorted((-(conf[p] + loc[p]), p) for p in range(PRIORS))[:6]}
            negative, positive = chosen - positive, positive & chosen
        matches += len(positive)
        total += sum(loc[p] + conf[p] for p in positive) + sum(conf[p] for p in negative)
    return total / max(1, matches)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mining", ["NONE", "MAX_NEGATIVE", "HARD_EXAMPLE"])
@pytest.mark.parametrize("logistic", [False, True])
@pytest.mark.parametrize("match", ["BIPARTITE", "PER_PREDICTION"])
def test_equals_loops(seed: int, mining: str, logistic: bool, match: str) -> None:
    if logistic and mining == "NONE":
        mining = "HARD_EXAMPLE"  # there the fork's targets are shifted; golden cases hold that
    param = (
        f"num_classes: 4 code_type: CENTER_SIZE mining_type: {mining} sample_size: 6 neg_pos_ratio: 1.5 match_type: "
        f"{match} overlap_threshold: 0.3 conf_loss_type: {'LOGISTIC' if logistic else 'SOFTMAX'}"
    )
    made = net(param)
    arrays = fill(made, seed)
    made.forward()
    want = plain_loss(arrays, mining, logistic, 1.5, 0.3 if match == "PER_PREDICTION" else None)
    np.testing.assert_allclose(made.blobs["loss"].data, want, rtol=2e-5)


@pytest.mark.parametrize(
    "param",
    [
        "code_type: CENTER_SIZE",
        "code_type: CORNER_SIZE loc_loss_type: L2 loc_weight: 3 conf_loss_type: LOGISTIC",
        "mining_type: NONE share_location: false match_type: BIPARTITE",
        "mining_type: NONE conf_loss_type: LOGISTIC bp_inside: true",
        "mining_type: HARD_EXAMPLE sample_size: 5 code_type: CENTER_SIZE",
        "code_type: CENTER_SIZE use_prior_for_matching: false overlap_threshold: 0.3 use_difficult_gt: false",
    ],
)
def test_gradient(param: str) -> None:
    shared = "share_location: false" not in param
    made = net(f"num_classes: 4 {param}", locations=1 if shared else CLASSES)
    fill(made, 4)
    made.forward()
    check_gradient(made)


def test_variance_in_the_target_does_not_divide_the_gradient() -> None:
    """The fork's gradient is that of prediction / variance, taken at face value."""
    made = net("num_classes: 4 encode_variance_in_target: true loc_loss_type: L2")
    arrays = fill(made, 1)
    made.forward()
    made.backward()
    locations, (priors, variances) = arrays[0].reshape(BATCH, PRIORS, 4), arrays[2].reshape(2, PRIORS, 4)
    diff = made.blobs["b0"].diff.reshape(BATCH, PRIORS, 4)
    rows = arrays[3].reshape(-1, 8)
    (image, prior), *_ = np.argwhere(diff.any(axis=2))
    overlaps = [overlap(priors[prior], row[3:7]) if row[0] == image else -1 for row in rows]
    own = rows[int(np.argmax(overlaps))]
    matches = int(diff.any(axis=2).sum())
    want = (locations[image, prior] - (own[3:7] - priors[prior])) / variances[prior] / matches
    np.testing.assert_allclose(diff[image, prior], want, rtol=1e-4)


def test_without_objects_the_loss_is_0_under_mining_and_all_background_without() -> None:
    for mining, background in (("MAX_NEGATIVE", False), ("NONE", True)):
        made = net(f"num_classes: 4 mining_type: {mining}")
        arrays = fill(made, 2)
        made.blobs["b3"].data[...] = -1
        made.forward()
        made.backward()
        scores = arrays[1].reshape(-1, CLASSES)
        want = sum(confidence(row, 0, False) for row in scores) if background else 0
        np.testing.assert_allclose(made.blobs["loss"].data, want, rtol=1e-5)
        assert not made.blobs["b0"].diff.any()
        assert made.blobs["b1"].diff.any() == background


def test_a_term_whose_gradient_is_stopped_is_left_out() -> None:
    both, one = net("num_classes: 4"), net("num_classes: 4 loc_weight: 0")
    text = layer("num_classes: 4").replace(
        "propagate_down: true propagate_down: true", "propagate_down: false propagate_down: true"
    )
    stopped = build(text, *(both.blobs[f"b{i}"].data.shape for i in range(4)))
    losses = []
    for made in (both, one, stopped):
        fill(made, 3)
        made.forward()
        losses.append(float(made.blobs["loss"].data))
    assert losses[0] > losses[1] == losses[2]


def test_a_clipped_probability_still_has_a_gradient() -> None:
    made = net("num_classes: 4 mining_type: NONE")
    fill(made, 3)
    made.blobs["b3"].data[...] = -1
    made.blobs["b1"].data.reshape(BATCH, PRIORS, CLASSES)[...] = [-200, 0, 0, 0]
    made.forward()
    made.backward()
    np.testing.assert_allclose(made.blobs["loss"].data, 87.33655 * BATCH * PRIORS, rtol=1e-5)
    np.testing.assert_allclose(made.blobs["b1"].diff.reshape(-1, CLASSES)[0], [-1, 1 / 3, 1 / 3, 1 / 3], rtol=1e-5)


# -- what is wrong


@pytest.mark.parametrize(
    ("param", "match"),
    [
        ("", "Must provide num_classes"),
        ("num_classes: 0", "num_classes should not be less than 1"),
        ("num_classes: 4 share_location: false", "only support negative mining if share_location is true"),
        ("num_classes: 4 background_label_id: 4", "background_label_id should be within"),
        ("num_classes: 4 background_label_id: 4000000000", "background_label_id should be within"),
        ("num_classes: 4 do_neg_mining: false", "do_neg_mining_ == "),
        ("num_classes: 4 mining_type: HARD_EXAMPLE sample_size: 0", r"sample_size > 0 \(0 vs. 0\)"),
        ("num_classes: 4 map_object_to_agnostic: true", r"num_classes == 2 \(4 vs. 2\)"),
    ],
)
def test_impossible_parameters(param: str, match: str) -> None:
    with pytest.raises(LayerError, match=match):
        net(param)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"priors must match number of confidence predictions.*\(3, 33\)"):
        net("num_classes: 3")
    with pytest.raises(ShapeError, match="priors must match number of confidence predictions"):
        net("num_classes: 1000000000")
    with pytest.raises(ShapeError, match="priors must match number of location predictions"):
        net("num_classes: 4", locations=2)
    with pytest.raises(ShapeError, match="objects"):
        build(layer("num_classes: 4"), (3, 44), (3, 44), (1, 2, 44), (1, 1, 5, 7))
    with pytest.raises(ShapeError, match="same first dimension"):
        build(layer("num_classes: 4"), (3, 44), (2, 44), (1, 2, 44), (1, 1, 5, 8))


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        (1, 0, "Found background label in the dataset"),
        (1, 4, r"label < 4 \(4\).*0 .. num_classes - 1: 3"),
        (1, -2, r"label >= 0 \(-2 vs. 0\)"),
        (3, np.nan, "Row 2 of the ground truth is not finite"),
    ],
)
def test_wrong_objects(column: int, value: float, match: str) -> None:
    made = net("num_classes: 4")
    fill(made, 0)
    made.blobs["b3"].data[0, 0, 2, column] = value
    with pytest.raises(InputError, match=match):
        made.forward()


def test_wrong_priors() -> None:
    made = net("num_classes: 4 code_type: CENTER_SIZE")
    fill(made, 0)
    made.blobs["b2"].data[0, 1] = 0
    with pytest.raises(InputError, match=r"prior_variance\[i\] > 0"):
        made.forward()


def test_inverted_objects_match_nothing() -> None:
    made = net("num_classes: 4 code_type: CENTER_SIZE")
    fill(made, 0)
    objects: Any = made.blobs["b3"].data
    objects[..., [3, 5]] = objects[..., [5, 3]]
    made.forward()
    assert made.blobs["loss"].data == 0
