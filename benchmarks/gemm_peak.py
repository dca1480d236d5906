"""The machine's float32 peak: the best matrix product at 3072 x 3072 x 3072, onnxruntime's or numpy's.

numpy runs in a process of its own: its OpenBLAS takes kernels for AVX-512 only where `OPENBLAS_CORETYPE` asks for them
before it is loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from measure import cpu_flags

EXTENT = 3072
FLOPS = 2.0 * EXTENT**3

PROGRAM = """
import sys, time
import numpy as np
extent = int(sys.argv[1])
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((extent, extent), dtype=np.float32) for _ in range(2))
c = a @ b
for _ in sys.stdin:
    start = time.perf_counter()
    np.matmul(a, b, out=c)
    print(time.perf_counter() - start, flush=True)
"""


def onnxruntime_product(threads: int, extent: int = EXTENT) -> Callable[[], Any]:
    """A product by onnxruntime's MatMul, its second factor constant and so packed beforehand."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((extent, extent), dtype=np.float32) for _ in range(2))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, a.shape)],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, a.shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


class NumpyProduct:
    """A process that multiplies when it is told to; a context manager."""

    def __init__(self, threads: int, extent: int = EXTENT) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        environment["OPENBLAS_THREAD_TIMEOUT"] = "20"  # 2^20 cycles of spinning, not 2^26: somebody else comes next
        if "avx512f" in cpu_flags():
            environment["OPENBLAS_CORETYPE"] = "SkylakeX"
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(extent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self) -> float:
        """Multiplies once; the seconds that it took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> NumpyProduct:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
