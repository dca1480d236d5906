"""onnxruntime starts no thread for usage reports, and the environment stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import os, psutil, numpy
from pycaffe.engines.runtime import load_onnxruntime
before, threads = dict(os.environ), psutil.Process().num_threads()
load_onnxruntime().InferenceSession
assert dict(os.environ) == before, "the environment changed"
print(psutil.Process().num_threads() - threads)
"""


def test_no_thread_and_no_trace_in_the_environment() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    child = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True)
    assert int(child.stdout) == 0
