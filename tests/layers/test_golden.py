"""Every golden case of reference Caffe, on torch and, where the net lowers, on onnxruntime."""

import pytest

from tests.layers.case import GOLDEN, run_golden

CASES = sorted(path.stem for path in GOLDEN.glob("*.prototxt"))


def test_cases_are_there():
    assert len(CASES) == 152


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert "torch" in run_golden(name)
