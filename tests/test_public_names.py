"""`import pycaffe`: its names, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pycaffe
from pycaffe import errors


def test_names_are_there_and_loaded_at_their_first_use() -> None:
    assert [name for name in pycaffe.__all__ if getattr(pycaffe, name, None) is None] == []
    assert set(pycaffe.__all__) <= set(dir(pycaffe))
    assert pycaffe.WorkerDied is errors.WorkerDied
    with pytest.raises(AttributeError, match="module 'pycaffe' has no attribute 'Pol'"):
        _ = pycaffe.Pol  # type: ignore[attr-defined]


def test_every_error_is_public() -> None:
    public = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
    assert [name for name in public if name not in pycaffe.__all__] == []


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, pycaffe; print('numpy' in sys.modules, 'google.protobuf' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]
