"""The benchmarks are scripts beside each other; a test imports them as they import one another."""

from __future__ import annotations

import pathlib
import sys

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))
