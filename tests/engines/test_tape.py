"""Backward over stretches of layers gives what backward layer by layer gives, whatever a user did in between."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pycaffe.engines.tensor_value import TensorValue
from pycaffe.errors import InputError
from pycaffe.net import TRAIN, Net
from tests.net.nets import data, fill_params, ip, layer, net_of, normal

TEXT = (
    data(2, 3, 5, 7)
    + data(2, name="label")
    + layer("conv", "Convolution", "data", rest="convolution_param { num_output: 4 kernel_size: 3 pad: 1 }")
    + layer("relu", "ReLU", "conv", "conv")
    + layer("drop", "Dropout", "conv", "conv")
    + layer("left", "Pooling", "conv", "left", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
    + layer("right", "Pooling", "conv", "right", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
    + layer("sum", "Concat", "left right", "sum")
    + layer("norm", "LRN", "sum", "norm")
    + layer("flat", "Flatten", "norm", "flat")
    + layer("tanh", "TanH", "flat", "flat")
    + ip("side", "flat", 3)
    + layer("side_loss", "HingeLoss", "side label", rest="loss_weight: 0.3")
    + ip("fc", "flat", 3)
    + layer("loss", "SoftmaxWithLoss", "fc label")
)
DIFFS = ["conv", "left", "right", "sum", "norm", "flat", "side", "fc"]


def make(by_layer: bool) -> Net:
    net = net_of(TEXT, TRAIN)
    fill_params(net, 3)
    next(layer for layer in net.layers if layer.type == "Dropout").generator = np.random.default_rng(4)
    net.blobs["data"].data[...] = normal(2, 3, 5, 7)
    net.blobs["label"].data[...] = [0, 2]
    if by_layer:
        net.before_backward(lambda index: None)
    return net


def runs_of_autograd(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    import torch

    calls: list[Any] = []
    original = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(a) or original(*a, **k))
    return calls


def test_layers_that_hang_together_take_one_run_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make(by_layer=False)
    net.forward()
    calls = runs_of_autograd(monkeypatch)
    net.backward()
    assert len(calls) == 2  # above and below the side loss, whose backward is its own


def test_old_values_and_diffs_go_before_new_ones_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    net = make(by_layer=False)
    net.forward()
    net.backward()
    blobs = [net.blobs[name] for name in ("conv", "norm", "fc")]
    values = [weakref.ref(blob.data_storage.pending) for blob in blobs]
    diff = weakref.ref(net.blobs["fc"].diff_storage.pending)
    seen: list[Any] = []

    def noting(function: Callable[..., Any], old: list[Any]) -> Callable[..., Any]:
        return lambda *a, **k: seen.append([reference() for reference in old]) or function(*a, **k)

    convolution = next(layer for layer in net.layers if layer.type == "Convolution")
    monkeypatch.setattr(convolution, "forward", noting(convolution.forward, values))
    monkeypatch.setattr(torch.autograd, "grad", noting(torch.autograd.grad, [diff]))
    net.forward()
    net.backward()
    assert seen == [[None] * 3, [None], [None]]  # as the first layer begins; autograd runs twice


def test_a_forward_that_fails_leaves_zeros_in_what_it_did_not_reach() -> None:
    net = make(by_layer=False)
    net.forward()
    net.blobs["label"].data[...] = [0, 9]
    with pytest.raises(InputError, match="Label 9 is out of range"):
        net.forward()
    assert net.blobs["side"].data.any()
    assert not net.blobs["loss"].data.any()


def nothing(net: Net) -> None:
    pass


def look(net: Net) -> None:
    for blob in net.blobs.values():
        blob.data.sum()
        blob.diff.sum()


def edit_images(net: Net) -> None:
    net.blobs["data"].data[...] *= 2


def edit_pooled(net: Net) -> None:
    net.blobs["sum"].data[...] += 1


def edit_what_is_drawn_from(net: Net) -> None:
    net.blobs["conv"].data[0] = 0.5


def run_a_part_again(net: Net) -> None:
    net.forward(start="left", end="sum")


def run_in_place_again(net: Net) -> None:
    net.forward(start="tanh", end="tanh")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "between",
    [nothing, look, edit_images, edit_pooled, edit_what_is_drawn_from, run_a_part_again, run_in_place_again],
)
def test_stretches_give_what_single_layers_give(between: Callable[[Net], None], times: int) -> None:
    nets = [make(by_layer) for by_layer in (True, False)]
    for net in nets:
        net.forward()
        between(net)
        net.clear_param_diffs()
        for _ in range(times):
            net.backward()
    want, got = nets
    for name in DIFFS:
        np.testing.assert_allclose(got.blobs[name].diff, want.blobs[name].diff, rtol=1e-4, atol=1e-6, err_msg=name)
        assert got.blobs[name].diff.any(), name
    for name, blobs in want.params.items():
        for mine, other in zip(got.params[name], blobs):
            np.testing.assert_allclose(mine.diff, other.diff, rtol=1e-4, atol=1e-6, err_msg=name)


def test_an_edit_between_forward_and_backward_counts() -> None:
    net = net_of(data(2, 3, 4, 4) + layer("conv", "Convolution", "data", rest="convolution_param { num_output: 1 "
                 "kernel_size: 4 }") + layer("loss", "Reduction", "conv", "loss", "loss_weight: 1"), TRAIN)  # fmt: skip
    net.forward(data=normal(2, 3, 4, 4))
    net.blobs["data"].data[...] = edited = normal(2, 3, 4, 4, seed=5)
    net.clear_param_diffs()
    net.backward()
    np.testing.assert_allclose(net.params["conv"][0].diff, edited.sum(0, keepdims=True), rtol=1e-5, atol=1e-6)


def test_a_part_of_the_range_reads_diffs_where_it_begins() -> None:
    net = make(by_layer=False)
    net.forward()
    net.backward()
    whole = net.params["conv"][0].diff.copy()
    net.clear_param_diffs()
    net.blobs["norm"].diff[...] *= 2
    net.backward(start="norm")
    np.testing.assert_allclose(net.params["conv"][0].diff, 2 * whole, rtol=1e-4, atol=1e-6)


def test_work_in_place_that_is_run_by_itself_keeps_no_record_of_earlier_runs() -> None:
    net = net_of("force_backward: true " + data(2, 3) + ip("fc", "data", 4) + layer("t", "TanH", "fc", "fc"), TRAIN)
    net._forward(0, 2)  # what `forward` returns would be a look
    pending = net.blobs["fc"].data_storage.pending
    assert isinstance(pending, TensorValue)
    first = weakref.ref(pending.tensor)
    del pending
    for _ in range(2):
        net._forward(2, 2)
    gc.collect()
    assert first() is None


def test_no_blob_between_layers_takes_memory_in_training() -> None:
    net = make(by_layer=False)
    net.forward()
    net.backward()
    for name in ("conv", "left", "sum", "fc"):
        assert not net.blobs[name].data_storage.allocated
        assert not net.blobs[name].diff_storage.allocated
    assert net.blobs["left"].data.flags.c_contiguous
    assert net.blobs["left"].shape == (2, 4, 2, 3)
