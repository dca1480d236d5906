"""Sessions that use weights where they lie."""

from __future__ import annotations

import errno
import tempfile
from typing import Any

import numpy as np
import pytest

from pycaffe.engines import session as session_module
from pycaffe.engines.segment import lower_segment
from pycaffe.engines.session import create_session
from pycaffe.net import Net
from tests.net.nets import data, fill_params, ip, layer, net_of, normal

LARGE = data(2, 3, 20, 30) + ip("fc", "data", 200) + layer("relu", "ReLU", "fc", "fc") + ip("out", "fc", 5)


def values_of(segment: Any) -> list[np.ndarray]:
    return [storage.array().reshape(shape) for _, storage, shape in segment.parameters]


def in_place(net: Net) -> set[str]:
    segment = lower_segment(net._graph, 0, len(net._graph.nodes) - 1)
    arrays = dict(zip((name for name, _, _ in segment.parameters), values_of(segment)))
    return session_module._used_in_place(segment.model, arrays)


def test_only_large_matrices_of_a_gemm_are_used_in_place() -> None:
    assert in_place(net_of(LARGE)) == {"fc/param0"}


def test_a_matrix_that_two_layers_read_is_handed_over() -> None:
    name = 'param { name: "shared" }'
    text = data(2, 3, 20, 30) + ip("fc", "data", 200, name) + ip("again", "data", 200, name)
    assert in_place(net_of(text)) == set()


@pytest.mark.parametrize("batch", [1, 2])
def test_the_session_computes_with_the_values(batch: int) -> None:
    net = net_of(LARGE)
    fill_params(net)
    net.blobs["data"].reshape(batch, 3, 20, 30)
    net.reshape()
    segment = lower_segment(net._graph, 0, len(net._graph.nodes) - 1, {net._blob_names.index("out")})
    assert segment.batch == batch
    values = values_of(segment)
    x = normal(batch, 3, 20, 30)
    (got,) = create_session(segment, values, threads=1).run(None, {"blob/data": x})
    hidden = np.maximum(x.reshape(batch, -1) @ values[0].T + values[1], 0)
    np.testing.assert_allclose(got, hidden @ values[2].T + values[3], rtol=1e-4, atol=1e-3)


def test_values_that_the_optimiser_asks_for_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    text = data(2, 16, 9, 11) + layer(
        "conv", "Convolution", "data", rest="convolution_param { num_output: 64 kernel_size: 3 }"
    )
    net = net_of(text)
    fill_params(net)
    segment = lower_segment(net._graph, 0, 1)
    values = values_of(segment)
    monkeypatch.setattr(session_module, "_used_in_place", lambda model, arrays: {"conv/param0"})
    x = normal(2, 16, 9, 11)
    (got,) = create_session(segment, values, threads=1).run(None, {"blob/data": x})
    torch = net_of(text, engine="torch")
    torch.share_with(net)
    torch.blobs["data"].data[...] = x
    np.testing.assert_allclose(got, torch.forward()["conv"], rtol=1e-4, atol=1e-4)


def test_a_session_leaves_unaligned_weights_where_they_are() -> None:
    net = net_of(LARGE)
    fill_params(net)
    segment = lower_segment(net._graph, 0, len(net._graph.nodes) - 1, {net._blob_names.index("out")})
    values = values_of(segment)
    buffer = np.zeros(values[0].nbytes + 3, np.uint8)
    buffer[3:] = values[0].view(np.uint8).reshape(-1)
    unaligned = buffer[3:].view(np.float32).reshape(values[0].shape)
    assert not unaligned.flags.aligned
    x = normal(2, 3, 20, 30)
    (want,) = create_session(segment, values, threads=1).run(None, {"blob/data": x})
    (got,) = create_session(segment, [unaligned, *values[1:]], threads=1).run(None, {"blob/data": x})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", ["folder", "space"])
def test_without_temporary_files_the_values_go_through_memory(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(LARGE)
    fill_params(net)
    segment = lower_segment(net._graph, 0, len(net._graph.nodes) - 1, {net._blob_names.index("out")})
    values = values_of(segment)
    x = normal(2, 3, 20, 30)
    (want,) = create_session(segment, values, threads=1).run(None, {"blob/data": x})

    class Full(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
        def __init__(self, **options: Any) -> None:
            if missing == "folder":
                raise FileNotFoundError("No usable temporary directory found")
            super().__init__(**options)

    def write(array: np.ndarray) -> np.ndarray:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Full)
    if missing == "space":
        monkeypatch.setattr(np, "ascontiguousarray", write)
    (got,) = create_session(segment, values, threads=1).run(None, {"blob/data": x})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
