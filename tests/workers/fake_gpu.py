"""GPUs that are not there: what the pool decides about them is real, and so are processes, threads and deaths."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pycaffe.workers import runner
from tests.workers import faults

SLOW = "cuda:1"


class FakeTransfer:
    def __init__(self, link: FakeLink, number: int, values: torch.Tensor) -> None:
        self.link, self.number, self.values = link, number, values.clone()

    def wait(self) -> None:
        self.link.log.append(f"wait {self.number}")

    def arrived(self) -> torch.Tensor:
        self.link.log.append(f"arrived {self.number}")
        if self.link.device == SLOW:
            time.sleep(0.02)
        return self.values


class FakeLink:
    """Copies at once, and remembers what it was asked for."""

    def __init__(self, device: str = "cuda:0", room: int = 10**9) -> None:
        self.device, self.room, self.log = device, room, list[str]()
        self.copies = 0

    def buffer(self, count: int) -> torch.Tensor:
        self.log.append(f"buffer {count}")
        return torch.empty(count)

    def begin(self, values: torch.Tensor) -> FakeTransfer:
        if len(values) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.copies += 1
        self.log.append(f"begin {self.copies}")
        return FakeTransfer(self, self.copies, values)


class OnFakeGpus:
    """A `preprocess` as `faults.act`; the process that unpickles it has GPUs."""

    def __reduce__(self) -> Any:
        return _become_a_gpu_worker, ()

    def __call__(self, item: Any) -> Any:
        return faults.act(item)


def _become_a_gpu_worker() -> Callable[[Any], Any]:
    make: Any = runner.Net
    runner.CudaLink = FakeLink  # type: ignore[assignment, misc]
    runner.Net = lambda *arguments, device, **settings: make(*arguments, device="cpu", **settings)  # type: ignore[misc]
    return act_in_a_thread_of_its_own


def act_in_a_thread_of_its_own(item: Any) -> npt.NDArray[np.float32]:
    assert threading.current_thread() is not threading.main_thread()
    data: npt.NDArray[np.float32] = faults.act(item)
    return data


def who(outputs: dict[str, Any]) -> Any:
    """A `postprocess`: the process beside the outputs."""
    return os.getpid(), outputs["score"]
