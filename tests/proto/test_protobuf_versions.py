"""The messages and the text reader under the oldest and the newest protobuf."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "test_protobuf_versions"


@pytest.mark.slow
@pytest.mark.parametrize("requirement", ["protobuf==4.25.*", "protobuf"])
def test_tests_pass_with(requirement):
    done = subprocess.run([sys.executable, str(SCRIPT), requirement], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"passed: {requirement}" in done.stdout
