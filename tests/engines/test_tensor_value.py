from __future__ import annotations

import numpy as np
import pytest
import torch

from pycaffe.blob import Blob
from pycaffe.engines.tensor_value import TensorValue


def held(shape: tuple[int, ...] = (2, 3, 4, 5)) -> tuple[Blob, torch.Tensor]:
    blob = Blob(shape)
    tensor = torch.arange(float(blob.count)).reshape(shape)
    if len(shape) == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    TensorValue(blob.data_storage, tensor, 7).hand_over()
    return blob, tensor


def test_a_storage_gets_the_values_at_the_first_look_in_its_own_memory_and_order() -> None:
    blob, tensor = held()
    assert not blob.data_storage.allocated
    np.testing.assert_array_equal(blob.data.ravel(), np.arange(120))
    blob.data[...] = 0
    assert tensor.sum() == 119 * 60


def test_a_view_that_is_alive_gets_them_at_once() -> None:
    blob = Blob((2, 3))
    view = blob.data
    TensorValue(blob.data_storage, torch.ones(2, 3)).hand_over()
    assert (view == 1).all()


def test_a_larger_storage_gets_the_first_elements() -> None:
    blob = Blob((4, 3))
    blob.data[...] = 5
    blob.reshape(2, 3)
    TensorValue(blob.data_storage, torch.ones(2, 3)).hand_over()
    assert (blob.data == 1).all()
    blob.reshape(4, 3)
    assert (blob.data[2:] == 5).all()


def test_the_next_layer_reads_the_tensor_itself() -> None:
    blob, tensor = held()
    value = TensorValue.of(blob.data_storage, blob.shape, "cpu")
    assert value.tensor is tensor
    assert value.maker == 7
    flat = TensorValue.of(blob.data_storage, (2, 60), "cpu").tensor
    np.testing.assert_array_equal(flat.ravel().numpy(), np.arange(120))
    assert not blob.data_storage.allocated


def test_a_sharing_blob_reads_its_form() -> None:
    blob, tensor = held((2, 3))
    form = tensor.view_as(tensor)
    blob.data_storage.pending.forms[4] = form  # type: ignore[union-attr]
    assert TensorValue.of(blob.data_storage, (2, 3), "cpu", 4).tensor is form
    assert TensorValue.of(blob.data_storage, (2, 3), "cpu", 5).tensor is tensor


@pytest.mark.parametrize("channels", [1, 3])
def test_images_out_of_memory_come_channels_last(channels: int) -> None:
    blob = Blob((2, channels, 4, 5))
    blob.data.ravel()[:] = np.arange(blob.count)
    value = TensorValue.of(blob.data_storage, blob.shape, "cpu")
    assert value.tensor.stride() == (20 * channels, 1, 5 * channels, channels)
    assert value.maker is None
    np.testing.assert_array_equal(value.tensor.numpy(), blob.data)


def test_edits_are_noticed_and_looks_are_none() -> None:
    blob, _ = held()
    value = TensorValue.of(blob.data_storage, blob.shape, "cpu")
    assert not value.edited()
    blob.data.sum()
    assert not value.edited()
    blob.data[1, 2, 3, 4] = -1
    assert value.edited()
    TensorValue(blob.data_storage, torch.zeros(blob.shape)).hand_over()
    blob.data.sum()
    assert not value.edited(), "a later layer's values are no edit"
