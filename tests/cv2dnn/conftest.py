"""Nets for the tests, each read once a session from its files."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

import pytest

from tests.conftest import fetch
from tests.cv2dnn.nets import files_of

Files = Callable[[str], tuple[pathlib.Path, pathlib.Path]]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Prototxt and caffemodel of a net by name (tests/cv2dnn/nets.py)."""
    folder = tmp_path_factory.mktemp("cv2dnn")
    return functools.cache(lambda name: files_of(name, folder, fetch))


@pytest.fixture(scope="session")
def toy(files: Files) -> tuple[str, str]:
    """The paths of the toy net of answers.py."""
    prototxt, weights = files("toy")
    return str(prototxt), str(weights)
