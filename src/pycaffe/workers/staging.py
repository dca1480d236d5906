"""How the inputs of a batch reach a GPU while it computes the batch before.

    preparing    items → preprocess → rows of a pinned buffer ─ copy, in a stream of its own ─→ device memory
    computing    forward of the batch before ...............; the device waits for that copy; forward; answer

From ordinary memory the driver would copy twice, and the thread that asks would wait for it. Each input has two
buffers: one is filled while the other travels. (See `overlapped.py` for the two threads.)

What decides, `Staging`, is tested with a fake link. `CudaLink` has not run on a GPU yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pycaffe.errors import DeviceError
from pycaffe.layers._torch import Tensor, torch

__all__ = ["CudaLink", "Link", "Staging", "Transfer"]

BUFFERS = 2  # of each input


class Transfer(Protocol):
    """A copy on its way to the device."""

    def wait(self) -> None:
        """Until the memory that it is read from may be written again."""

    def arrived(self) -> Tensor:
        """The values on the device. What the device is asked to do with them from now on waits for them, not we."""


class Link(Protocol):
    """The way from host memory to one device."""

    def buffer(self, count: int) -> Tensor:
        """(count,) float32 in host memory that the device can read by itself."""

    def begin(self, values: Tensor) -> Transfer:
        """Begins to copy a buffer's values, and does not wait for it."""


class _Buffer:
    """Host memory of one input of one batch, and the copy that was last made of it."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.transfer: Transfer | None = None


class Staging:
    """Gathers the rows of batches in buffers, and sends each on its way.

    Args:
        link: to the device.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._buffers: dict[str, list[_Buffer]] = {}

    def begin(self, rows: Sequence[dict[str, npt.NDArray[np.float32]]]) -> dict[str, Transfer]:
        """A batch's inputs by blob name, on their way. All rows have the same shapes.

        Raises:
            RuntimeError: the device has no memory for them.
        """
        return {name: self._begin(name, [row[name] for row in rows]) for name in rows[0]}

    def _begin(self, name: str, rows: list[npt.NDArray[np.float32]]) -> Transfer:
        ring = self._buffers.setdefault(name, [_Buffer() for _ in range(BUFFERS)])
        buffer = ring.pop(0)
        ring.append(buffer)
        if buffer.transfer is not None:
            buffer.transfer.wait()
        count = len(rows) * rows[0].size
        if buffer.memory is None or math.prod(buffer.memory.shape) < count:
            buffer.memory = self._link.buffer(count)
        values = buffer.memory[:count].reshape(len(rows), *rows[0].shape)
        np.stack(rows, out=values.numpy())
        buffer.transfer = self._link.begin(values)
        return buffer.transfer


class CudaLink:
    """Pinned memory, and copies in a stream beside the one that computes.

    Args:
        device: "cuda:N".

    Raises:
        DeviceError: torch cannot use the device.
    """

    def __init__(self, device: str) -> None:
        if not torch.cuda.is_available():
            raise DeviceError(f"Device {device!r}: this installation of torch has no CUDA, or finds no driver for it.")
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def buffer(self, count: int) -> Tensor:
        """See `Link`."""
        return torch.empty(count, dtype=torch.float32, pin_memory=True)

    def begin(self, values: Tensor) -> Transfer:
        """See `Link`."""
        with torch.cuda.stream(self._stream):
            there = values.to(self._device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        return _CudaTransfer(there, event)


class _CudaTransfer:
    def __init__(self, there: Tensor, event: Any) -> None:
        self._there, self._event = there, event

    def wait(self) -> None:
        self._event.synchronize()

    def arrived(self) -> Tensor:
        computing = torch.cuda.current_stream(self._there.device)
        computing.wait_event(self._event)
        # It was allocated for the other stream: it must not be used again there before this one has read it.
        self._there.record_stream(computing)
        return self._there
