from __future__ import annotations

import pytest

from tests.detection.tiny_detector import write_tiny_detector
from tests.workers.tiny_net import write_tiny_net


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Prototxt and weights of the tiny detector."""
    return write_tiny_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Prototxt and weights of a net that detects nothing."""
    return write_tiny_net(tmp_path_factory.mktemp("net"))
