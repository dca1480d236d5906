"""The blocked layout is onnxruntime's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pycaffe.engines.rewrites import blocked_layout
from pycaffe.engines.rewrites.blocked_layout import DOMAIN, block_size, blocked_weight

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("outputs, channels, group", [(32, 48, 1), (32, 16, 2), (48, 1, 48)])
def test_a_convolution_reads_its_weights_so(outputs: int, channels: int, group: int) -> None:
    weight = RANDOM.standard_normal((outputs, channels, 3, 2)).astype(np.float32)
    x = RANDOM.standard_normal((2, channels * group, 5, 4)).astype(np.float32)
    plain = helper.make_node("Conv", ["x", "w"], ["y"], group=group, kernel_shape=[3, 2])
    blocked = [
        helper.make_node("ReorderInput", ["x"], ["a"], domain=DOMAIN),
        helper.make_node("Conv", ["a", "w"], ["b"], domain=DOMAIN, group=group, kernel_shape=[3, 2]),
        helper.make_node("ReorderOutput", ["b"], ["y"], domain=DOMAIN, channels=outputs),
    ]
    expected = run([plain], x, weight)
    got = run(blocked, x, blocked_weight(weight, block_size()))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def run(nodes: list[Any], x: Any, weight: Any) -> Any:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_a_release_without_these_operators_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_layout, "DOMAIN", "com.microsoft.unknown")
    assert block_size.__wrapped__() == 1
