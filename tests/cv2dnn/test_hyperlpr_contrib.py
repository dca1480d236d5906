"""The same program on `opencv-contrib-python-headless` 5, which has what OpenCV 5 moved out of its main modules.

The distributions of OpenCV overwrite each other, so this one is kept in a folder of its own, and runs in a process that
finds it first.
"""

from __future__ import annotations

import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
REQUIREMENT = "opencv-contrib-python-headless==5.0.0.93"
PROGRAM = """
import sys, cv2, pytest
assert cv2.__version__.startswith("5") and hasattr(cv2, "CascadeClassifier") and cv2.__file__.startswith(sys.argv[1])
assert not hasattr(cv2.dnn, "readNetFromCaffe")
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/cv2dnn/test_hyperlpr.py"]))
"""


def opencv_contrib() -> pathlib.Path:
    """The folder that holds it, made once."""
    cache: pathlib.Path = runpy.run_path(str(ROOT / "scripts" / "fetch_models"))["cache_folder"]()
    target = cache / f"{REQUIREMENT}-{sys.version_info.major}.{sys.version_info.minor}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            made = pathlib.Path(temporary) / "packages"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*command, "--only-binary", ":all:", "--target", str(made), REQUIREMENT], check=True)
            made.rename(target)  # whole or not at all
    return target


@pytest.mark.slow
def test_hyperlpr_reads_what_it_read_on_opencv_4() -> None:
    target = str(opencv_contrib())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, target],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": target, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "6 passed" in done.stdout
