"""SSD in training: the fork's own steps, and a toy that learns, is evaluated and deployed from one prototxt."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

import caffe
from pycaffe.net import TEST, Net
from pycaffe.solvers import Solver
from tests.solvers.test_golden import GOLDEN, assert_steps
from tests.solvers.toy_ssd import CLASSES, draw_shapes, net_text, solver_text, write_shapes


@pytest.mark.parametrize("name", ["ssd_sgd", "ssd_sgd_multistep"])
def test_the_forks_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "forks" / "solvers")
    monkeypatch.setenv("PYCAFFE_DIALECT", "ssd")
    answers = dict(np.load(f"{name}.npz"))
    steps = [int(key[4:]) for key in answers if key.startswith("loss")]
    assert sorted(steps) == list(range(1, 7))
    solver = caffe.get_solver(f"{name}.prototxt")
    for key, value in answers.items():
        kind, *where = key.split("/")
        if kind == "in":
            solver.net.blobs[where[0]].data[...] = value
        elif kind == "start":
            solver.net.params[where[0]][int(where[1])].data[...] = value
    assert_steps(solver, answers, range(1, 7))


def overlap(a: np.ndarray, b: tuple[int, ...]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


@pytest.mark.slow
def test_a_toy_learns_shapes_and_deploys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shapes(tmp_path, "train", 300, seed=1)
    write_shapes(tmp_path, "test", 64, seed=2)
    (tmp_path / "net.prototxt").write_text(net_text(tmp_path), encoding="utf-8")
    (tmp_path / "solver.prototxt").write_text(solver_text(tmp_path, iterations=400, tests=4), encoding="utf-8")
    with caplog.at_level(logging.INFO, "pycaffe.solver"):
        Solver(tmp_path / "solver.prototxt").solve()
    (line,) = (message for message in caplog.messages if "detection_eval" in message)
    assert float(re.fullmatch(r"    Test net output #0: detection_eval = (.*)", line)[1]) >= 0.9
    assert [message[:6] for message in caplog.messages if message.startswith("class")] == ["class1", "class2", "class3"]

    net = Net(tmp_path / "net.prototxt", TEST, weights=tmp_path / "toy_iter_400.caffemodel", stages=["deploy"])
    generator, found, there = np.random.default_rng(3), 0, 0
    for _ in range(40):
        image, objects = draw_shapes(generator)
        net.blobs["data"].data[0] = (image.transpose(2, 0, 1) - np.float32(90)) * np.float32(0.01)
        detections = net.forward()["detections"][0, 0]
        boxes, scores, labels = detections[:, 3:] * 64, detections[:, 2], detections[:, 1].astype(int)
        for name, box in objects:
            there += 1
            found += any(
                s > 0.3 and CLASSES[label - 1] == name and overlap(b, box) > 0.5
                for b, s, label in zip(boxes, scores, labels)
            )
    assert found >= 0.85 * there
