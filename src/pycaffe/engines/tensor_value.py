"""A blob's values as a tensor of torch, which the blob gets when somebody looks.

Between layers values stay tensors, in the layout and on the device where they were computed: nothing is copied into
blobs that nobody reads. `TensorValue` is what a storage waits for meanwhile (its `pending`).
"""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape, Storage
from pycaffe.layers._torch import Tensor, torch

__all__ = ["TensorValue"]


class TensorValue:
    """The values that a storage has at one moment, as a tensor, whose memory nobody writes to.

    Attributes:
        tensor: the values; after a recorded forward it knows how it was computed (autograd).
        maker: index of the layer that computed them; None where they were read from the storage.
        forms: by blob id, the values as layers that share their bottom's memory (Split, Flatten) gave them to others.
    """

    __slots__ = ("__weakref__", "_storage", "_version", "forms", "maker", "tensor")

    def __init__(self, storage: Storage, tensor: Tensor, maker: int | None = None) -> None:
        self._storage = storage
        self._version = storage.version
        self.tensor = tensor
        self.maker = maker
        self.forms: dict[int, Tensor] = {}

    @classmethod
    def of(cls, storage: Storage, shape: Shape, device: str, blob: int | None = None) -> TensorValue:
        """The present values in a shape, as blob `blob`: the tensor that the storage waits for, or one of its memory.

        Images (four axes) out of memory come channels-last on a CPU, where the kernels for convolution and pooling that
        work so are up to twice as fast (benchmarks/bench_training.py); what is made of them has that layout, too.
        """
        pending = storage.pending
        if isinstance(pending, TensorValue) and pending._serves(shape, device):
            return pending
        if isinstance(pending, TensorValue) and pending.tensor.numel() == math.prod(shape):
            tensor: Tensor = pending.tensor if blob is None else pending.forms.get(blob, pending.tensor)
            if tensor.shape != shape:
                tensor = tensor.reshape(shape)
            if device != "cpu" or not tensor.is_cpu:
                tensor = tensor.to(device)
            return cls(storage, tensor, pending.maker)
        tensor = torch.from_numpy(storage.array()[: math.prod(shape)].reshape(shape))
        storage.touched = False
        if device != "cpu":
            return cls(storage, tensor.to(device))
        return cls(storage, _channels_last(tensor) if len(shape) == 4 else tensor)

    def _serves(self, shape: Shape, device: str) -> bool:
        """Whether these are the values in that shape and place as they stand: so it is at most layers of a CPU."""
        return device == "cpu" and not self.forms and self.tensor.shape == shape and self.tensor.is_cpu

    def hand_over(self) -> None:
        """Makes these the values of the storage: it waits for them, or if a view of it is alive gets them now."""
        storage = self._storage
        storage.version += 1
        self._version = storage.version
        if storage.leased:
            self.fetch()
        else:
            storage.expect(self)
        storage.touched = False

    def fetch(self) -> None:
        """Copies the values into the storage."""
        self._storage.put(np.array(self.tensor.detach().cpu().numpy(), order="C"))

    def edited(self) -> bool:
        """Whether somebody has written other values to the storage since; those of a later layer do not count."""
        storage = self._storage
        if storage.pending is not None or storage.version != self._version:
            return False
        if not (storage.touched or storage.leased):
            return False
        present = storage.array()[: self.tensor.numel()].reshape(self.tensor.shape)
        return not torch.equal(self.tensor.detach().cpu(), torch.from_numpy(present))


def _channels_last(tensor: Tensor) -> Tensor:
    """(N, C, H, W) in the order N, H, W, C, as its strides say even where C is 1 and nothing moves."""
    _, channels, height, width = tensor.shape
    strides = (channels * height * width, 1, channels * width, channels)
    return tensor.contiguous(memory_format=torch.channels_last).as_strided(tensor.shape, strides)
