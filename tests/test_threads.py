"""How many threads a forward may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import caffe
from pycaffe.engines import onnxruntime_engine
from pycaffe.errors import InputError
from pycaffe.threads import available_cores, default_threads, set_num_threads
from tests.net.nets import data, ip, net_of


@pytest.fixture(autouse=True)
def default_again() -> Iterator[None]:
    yield
    set_num_threads(None)


def threads_of_sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads of every session that is made from now on."""
    made: list[int] = []
    original = onnxruntime_engine.create_session

    def create(segment: Any, values: Any, device: str, threads: int) -> Any:
        made.append(threads)
        return original(segment, values, device, threads)

    monkeypatch.setattr(onnxruntime_engine, "create_session", create)
    return made


def test_the_default_is_a_thread_for_each_core_that_may_be_used() -> None:
    assert default_threads() == available_cores() == len(os.sched_getaffinity(0))


def test_nets_follow_the_default_from_their_next_forward_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = threads_of_sessions(monkeypatch)
    net, own = net_of(data(2, 3) + ip("fc", "data", 4)), net_of(data(2, 3) + ip("fc", "data", 4), threads=3)
    caffe.set_num_threads(1)
    net.forward()
    net.forward()
    own.forward()
    assert made == [1, 3]
    caffe.set_num_threads(2)
    net.forward()
    own.forward()
    assert made == [1, 3, 2]


def test_torch_has_the_same_number() -> None:
    import torch

    set_num_threads(1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        set_num_threads(threads)
    with pytest.raises(InputError, match="at least 1"):
        net_of(data(2, 3), threads=threads)
