from __future__ import annotations

import pytest

from pycaffe import rng


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same initial parameters: a ReLU that happens to be dead would prove nothing."""
    rng.seed(1)
