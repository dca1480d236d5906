from __future__ import annotations

import logging

import numpy as np
import pytest

from pycaffe.errors import SolverError
from pycaffe.net import TEST, Net
from pycaffe.proto.prototxt import parse_net, parse_text
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers import Solver
from pycaffe.solvers.average_precision import DetectionTally, average_precision

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)
TRUE = np.array([1, 0, 1, 1, 0], np.float32)  # precision 1, 1/2, 2/3, 3/4, 3/5 at recall 1/4, 1/4, 2/4, 3/4, 3/4


@pytest.mark.parametrize(
    ("version", "want"),
    [
        ("11point", (3 * 1 + 5 * 0.75) / 11),
        ("MaxIntegral", 0.25 * (1 + 0.75 + 0.75)),
        ("Integral", 0.25 * (1 + 2 / 3 + 3 / 4)),
    ],
)
def test_by_hand(version: str, want: float) -> None:
    order = [3, 0, 4, 2, 1]
    assert average_precision(SCORES[order], TRUE[order], 4, version) == pytest.approx(want)
    assert average_precision(SCORES[:0], TRUE[:0], 4, version) == 0
    assert average_precision(SCORES, TRUE * 0, 0, version) == 0
    assert average_precision(SCORES[:1], TRUE[:1], 1, version) == pytest.approx(1)


def plain(scores: np.ndarray, true: np.ndarray, objects: int, version: str) -> float:
    """ComputeAP as loops."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    found, precision, recall = 0, [], []
    for rank, index in enumerate(order, 1):
        found += int(true[index])
        precision.append(found / rank)
        recall.append(found / objects)
    if version == "11point":
        return sum(max([p for p, r in zip(precision, recall) if r >= j / 10 - 1e-7] or [0]) for j in range(11)) / 11
    if version == "Integral":
        return sum(p * (r - before) for p, r, before in zip(precision, recall, [0.0, *recall]))
    total, best = 0.0, precision[-1]
    for index in range(len(order) - 2, -1, -1):
        best = max(best, precision[index])
        total += best * (recall[index + 1] - recall[index])
    return total + recall[0] * best


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("version", ["11point", "MaxIntegral", "Integral"])
def test_equals_loops(seed: int, version: str) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 30))
    scores, true = generator.permutation(count) / count, generator.integers(0, 2, count)
    objects = int(true.sum() + generator.integers(1, 5))
    assert average_precision(scores, true, objects, version) == pytest.approx(plain(scores, true, objects, version))


EVALUATED = """
layer { name: "rows" type: "Input" top: "rows" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 5 } } }
layer { name: "detection_eval" type: "Power" bottom: "rows" top: "detection_eval" }
"""
ROWS = [
    [-1, 1, 2, -1, -1],
    [-1, 2, 1, -1, -1],
    [0, 1, 0.9, 1, 0],
    [0, 1, 0.8, 0, 1],
    [0, 1, 0.7, 0, 0],
    [1, 1, 0.6, 1, 0],
]


def test_the_mean_over_batches_and_classes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Two batches: class 1 has 4 objects, precision 1, 1, 2/3, 3/4, ... by score; class 2 no detection."""
    net = Net(parse_net(EVALUATED, "t"), TEST)
    param = parse_text(SolverParameter(), 'ap_version: "Integral" show_per_class_result: true', "s")
    tally = DetectionTally(net, param)
    for shift in (0, 0.05):
        net.blobs["rows"].data[...] = np.array(ROWS) - np.outer([0, 0, 1, 1, 1, 1], [0, 0, shift, 0, 0])
        net.forward()
        tally.add()
    with caplog.at_level(logging.INFO, "pycaffe.solver"):
        tally.log()
    value = 0.25 * (1 + 1 + 3 / 5 + 4 / 6)
    assert caplog.messages == [
        f"class1: {value:g}",
        "Missing true_pos for label: 2",
        f"    Test net output #0: detection_eval = {value / 2:g}",
    ]


def test_what_is_no_evaluation() -> None:
    net = Net(parse_net('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 } } }', "t"), TEST)
    with pytest.raises(SolverError, match=r"width\(\) == 5.*'x' has the shape \(3,\).*Silence"):
        DetectionTally(net, SolverParameter()).add()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ('eval_type: "segmentation"', "Unknown evaluation type: segmentation"),
        (
            'eval_type: "detection" ap_version: "12point"',
            "Unknown ap_version: 12point .*11point, MaxIntegral",
        ),
    ],
)
def test_unknown_names(fields: str, match: str) -> None:
    text = f'net_param {{ }} base_lr: 1 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false {fields}'
    with pytest.raises(SolverError, match=match):
        Solver(parse_text(SolverParameter(), text, "s"))
