"""The four ways of working, as scripts that run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.workers.tiny_net import expected_scores, write_tiny_net

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def printed(script: str, folder: pathlib.Path) -> list[str]:
    """What an example prints for the tiny net and two images."""
    model, weights = write_tiny_net(folder)
    images = [str(folder / f"{shade}.png") for shade in (10, 200)]
    for path in images:
        cv2.imwrite(path, np.full((4, 5, 3), int(pathlib.Path(path).stem), np.uint8))
    words = [sys.executable, str(EXAMPLES / script), model, weights, *images]
    done = subprocess.run(words, env={**os.environ, "HOME": str(folder)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines(), key=lambda line: pathlib.Path(line.split()[0]).name)


def best_classes(folder: pathlib.Path, shade: int) -> str:
    scores = expected_scores(
        str(folder / "tiny.caffemodel"), str(folder / "tiny.prototxt"), np.full((3, 4, 5), shade, np.float32)
    )
    return " ".join(f"{index}:{scores[index]:.1f}" for index in scores.argsort()[::-1][:3])


@pytest.mark.parametrize("script", ["one_net.py", "pool.py", pytest.param("cluster.py", marks=pytest.mark.slow)])
def test_it_prints_the_best_classes(script: str, tmp_path: pathlib.Path) -> None:
    for line, shade in zip(printed(script, tmp_path), (10, 200), strict=True):
        path, *classes = line.split()
        assert path == str(tmp_path / f"{shade}.png")
        rounded = " ".join(f"{index}:{float(score):.1f}" for index, _, score in (c.partition(":") for c in classes))
        assert rounded == best_classes(tmp_path, shade)


def test_several_devices(tmp_path: pathlib.Path) -> None:
    for line, shade in zip(printed("several_devices.py", tmp_path), (10, 200), strict=True):
        path, device, classes = line.split(" ", 2)
        assert path == str(tmp_path / f"{shade}.png")
        assert device == "cpu" or device.startswith("cuda:")
        assert best_classes(tmp_path, shade)[0] in classes


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_it_has_at_most_forty_lines(script: pathlib.Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 40
