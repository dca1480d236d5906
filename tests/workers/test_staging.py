from __future__ import annotations

import pathlib
import threading
from typing import Any

import numpy as np
import pytest

from pycaffe.errors import DeviceError
from pycaffe.workers import worker
from pycaffe.workers.messages import Settings
from pycaffe.workers.runner import Runner
from pycaffe.workers.staging import CudaLink, Staging
from tests.workers import faults
from tests.workers.fake_gpu import FakeLink
from tests.workers.tiny_net import expected_scores, write_tiny_net


def rows(count: int, value: float = 1.0) -> list[dict[str, Any]]:
    return [{"data": np.full((2, 3), value + row, np.float32)} for row in range(count)]


def test_two_buffers_in_turn_and_none_is_written_before_it_has_been_read() -> None:
    link = FakeLink()
    staging = Staging(link)
    for _ in range(4):
        staging.begin(rows(5))
    assert link.log == ["buffer 30", "begin 1", "buffer 30", "begin 2", "wait 1", "begin 3", "wait 2", "begin 4"]


def test_buffers_grow_and_serve_smaller_batches() -> None:
    link = FakeLink()
    staging = Staging(link)
    for count in (2, 2, 5, 1):
        staging.begin(rows(count))
    assert [entry for entry in link.log if entry.startswith("buffer")] == ["buffer 12", "buffer 12", "buffer 30"]


def test_the_rows_of_several_inputs_arrive_in_order() -> None:
    items = [{"a": np.full((2, 3), i, np.float32), "b": np.full(4, -i, np.float32)} for i in range(5)]
    sent = Staging(FakeLink()).begin(items)
    for name in ("a", "b"):
        np.testing.assert_array_equal(sent[name].arrived().numpy(), np.stack([item[name] for item in items]))


@pytest.fixture
def net(tmp_path: pathlib.Path) -> tuple[str, str]:
    return write_tiny_net(tmp_path)


def assert_answers(made: Runner, net: tuple[str, str], values: list[Any]) -> None:
    answers = sorted(made.run(list(range(len(values))), values).items(), key=lambda done: done.number)
    for done, value in zip(answers, values):
        assert done.error is None, done.error
        want = expected_scores(net[1], net[0], faults.filled(value))
        np.testing.assert_allclose(done.outputs["score"], want, rtol=1e-4, atol=1e-4)


def test_a_net_computes_with_what_has_arrived(net: tuple[str, str]) -> None:
    link = FakeLink()
    made = Runner(Settings(*net, preprocess=faults.act, batch_size=4), link)
    for values in ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [11, 12, 13, 14]):
        assert_answers(made, net, values)
    assert link.log[-2:] == ["begin 4", "arrived 4"]
    assert link.log.count("buffer 240") == 2


def test_a_device_without_memory_for_the_inputs_gets_them_in_parts(net: tuple[str, str]) -> None:
    link = FakeLink(room=3)
    made = Runner(Settings(*net, preprocess=faults.act, batch_size=4), link)
    assert_answers(made, net, [1, 2, 3, 4])
    assert_answers(made, net, [5, 6])


def test_out_of_memory_in_the_forward_halves_the_batch_and_drops_what_was_sent(
    net: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Runner(Settings(*net, preprocess=faults.act, batch_size=4), FakeLink())
    forward, blob, extents = made.net.forward, made.net.blobs["data"], list[int]()

    def limited() -> Any:
        extents.append(blob.shape[0])
        if blob.shape[0] > 2:
            raise RuntimeError("CUDA error: out of memory")
        return forward()

    monkeypatch.setattr(made.net, "forward", limited)
    assert_answers(made, net, [1, 2, 3, 4])
    assert (extents, made.batch_limit) == ([4, 2, 2], 2)


def test_the_next_batch_is_prepared_while_one_runs() -> None:
    prepared, numbers = threading.Semaphore(0), iter(range(10))

    def prepare() -> int:
        number = next(numbers)
        prepared.release()
        return number

    take = worker._ahead(prepare)
    assert take() == 0
    for _ in range(3):  # the one that is taken, one that is ready, and one that waits for its place
        assert prepared.acquire(timeout=30)
    assert not prepared.acquire(blocking=False), "no further"
    assert [take(), take()] == [1, 2]


def test_a_torch_without_cuda() -> None:
    with pytest.raises(DeviceError, match="'cuda:0': this installation of torch has no CUDA"):
        CudaLink("cuda:0")
