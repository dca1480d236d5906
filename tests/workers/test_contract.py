"""What every backend promises."""

from __future__ import annotations

import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import pycaffe
from pycaffe import InputError, Pool, PoolError, ProtoError, Result, WeightsError
from pycaffe.workers import processes
from tests.workers import faults, faulty_layer
from tests.workers.tiny_net import expected_scores, write_tiny_net

Make = Callable[..., Pool]
TWO_IN_TWO_OUT = """
layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 2 dim: 3 } } }
layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "double" type: "Power" bottom: "a" top: "double" power_param { scale: 2 } }
layer { name: "next" type: "Power" bottom: "b" top: "next" power_param { shift: 1 } }
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


WORKERS = {"sequential": 1, "thread": 2, "process": 2, "process, spawned": 1}


@pytest.fixture(params=WORKERS)
def make(request: pytest.FixtureRequest, net: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes pools of one backend, and closes them."""
    made: list[Pool] = []
    others = {*threading.enumerate()}  # such as readers of an earlier test's net, which nobody has collected yet
    backend, _, spawned = request.param.partition(", ")
    if spawned:
        monkeypatch.setattr(processes, "start_method", lambda *arguments: "spawn")

    def pool(*files: str, **arguments: Any) -> Pool:
        usual = {"workers": WORKERS[request.param], "backend": backend}
        made.append(Pool(*(files or net), **{**usual, **arguments}))
        return made[-1]

    yield pool
    for each in made:
        each.close()
    assert not [thread for thread in {*threading.enumerate()} - others if thread.name.startswith("pycaffe")]


def assert_right(net: tuple[str, str], results: list[Result], values: dict[int, float]) -> None:
    """The results with these indices are those of data filled with these values."""
    by_index = {result.index: result for result in results}
    assert len(by_index) == len(results)
    for index, value in values.items():
        outputs = by_index[index].outputs
        assert outputs is not None, by_index[index].error
        expected = expected_scores(net[1], net[0], faults.filled(value))
        np.testing.assert_allclose(outputs["score"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_every_item_has_one_result(make: Make, net: tuple[str, str], batch_size: int | None) -> None:
    results = list(make(preprocess=faults.act, batch_size=batch_size).imap_unordered(range(150)))
    assert sorted(result.index for result in results) == list(range(150))
    assert all(result.item == result.index for result in results)
    assert {result.attempts for result in results} == {1}
    assert {result.worker for result in results} <= {0, 1}
    assert min(result.seconds for result in results) > 0
    assert_right(net, results, {index: index for index in range(150)})


def test_rows_are_the_users_own(make: Make) -> None:
    first, second = make(preprocess=faults.act, batch_size=2).map([1, 2])
    before = second.outputs["score"].copy()
    first.outputs["score"][...] = 0
    np.testing.assert_array_equal(second.outputs["score"], before)
    assert first.outputs["score"].base is None


def test_one_job_after_another_in_order(make: Make) -> None:
    workers = make(preprocess=faults.act)
    assert [result.item for result in workers.imap(range(40))] == list(range(40))
    assert [result.item for result in workers.map([5, 3, 4])] == [5, 3, 4]
    assert workers.map([]) == []
    assert list(workers.imap(iter([]))) == []


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_input_is_read_as_it_is_needed_and_may_be_endless(make: Make, method: str) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        while True:
            yield read
            read += 1

    workers = make(preprocess=faults.act, batch_size=3)
    seen = [result.index for result in itertools.islice(getattr(workers, method)(numbers()), 100)]
    assert len(set(seen)) == 100
    assert 100 <= read < 200
    # The job was left in the middle; the next one has nothing of it.
    assert [result.item for result in workers.imap(["none", 2])] == ["none", 2]


def test_an_input_that_raises_raises_and_the_pool_goes_on(make: Make, net: tuple[str, str]) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the list ends here")

    workers = make(preprocess=faults.act)
    with pytest.raises(OSError, match="the list ends here"):
        workers.map(broken())
    assert_right(net, workers.map([2]), {0: 2})


def test_a_consumer_that_raises_leaves_the_pool_usable(make: Make, net: tuple[str, str]) -> None:
    workers = make(preprocess=faults.act)
    with pytest.raises(LookupError):
        for _ in workers.imap_unordered(itertools.count()):
            raise LookupError
    assert_right(net, workers.map([2]), {0: 2})


@pytest.mark.parametrize("batch_size", [1, 4])
def test_items_that_raise_are_errors_and_nothing_else_is_touched(
    make: Make, net: tuple[str, str], batch_size: int
) -> None:
    bad = {
        3: (("raise", "plain"), ValueError, "no good"),
        11: (("sys.exit", 3), PoolError, "SystemExit: 3"),
        21: (("shape", 2, 2), pycaffe.ShapeError, "Input size incompatible"),
    }
    items = [bad[index][0] if index in bad else index for index in range(30)]
    results = make(preprocess=faults.act, batch_size=batch_size).map(items)
    for index, (item, kind, text) in bad.items():
        assert isinstance(results[index].error, kind)
        assert text in str(results[index].error)
        assert results[index].outputs is None
        assert results[index].item is item
    assert_right(net, results, {index: index for index in range(30) if index not in bad})


def test_several_inputs_and_several_outputs(make: Make, tmp_path: pathlib.Path) -> None:
    model = tmp_path / "two.prototxt"
    model.write_text(TWO_IN_TWO_OUT, encoding="utf-8")
    items = [{"a": np.full((2, 3), i, np.float32), "b": np.full(3, 10 * i, np.float32)} for i in range(5)]
    for batch_size in (1, 4):
        for result in make(str(model), batch_size=batch_size).map(items):
            assert result.outputs is not None, result.error
            np.testing.assert_array_equal(result.outputs["double"], np.full((2, 3), 2 * result.index))
            np.testing.assert_array_equal(result.outputs["next"], np.full(3, 10 * result.index + 1))
    (missing,) = make(str(model)).map([{"a": items[0]["a"]}])
    assert str(missing.error) == "Expected values for the inputs ['a', 'b']. Got ['a']."


def test_python_layers_and_what_they_raise(make: Make, tmp_path: pathlib.Path) -> None:
    workers = make(faulty_layer.write_model(tmp_path), preprocess=faulty_layer.preprocess, batch_size=3)
    results = workers.map([1, 2, faulty_layer.item("forward", "raise"), 4, 5])
    assert str(results[2].error) == "no good"
    assert [result.outputs["echo"][1, 2] for result in results if result.outputs is not None] == [1, 2, 4, 5]


def test_paths_bytes_arrays_and_dicts_are_items(make: Make, net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    image = np.full((9, 11, 3), (10, 20, 30), np.uint8)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image)
    data = np.broadcast_to(np.float32([10, 20, 30])[:, None, None], (3, 4, 5))
    expected = expected_scores(net[1], net[0], data)
    for result in make().map([str(path), path.read_bytes(), image, {"data": data}]):
        assert result.outputs is not None, result.error
        np.testing.assert_allclose(result.outputs["score"], expected, rtol=1e-4)


def test_functions_without_a_module_and_what_postprocess_returns(make: Make) -> None:
    factor = 3

    def best(outputs: dict[str, npt.NDArray[np.float32]]) -> tuple[str, int]:
        return "best", int(outputs["score"].argmax())

    workers = make(preprocess=lambda item: faults.filled(factor * item), postprocess=best, batch_size=2)
    plain = make(preprocess=lambda item: faults.filled(factor * item))
    for result, other in zip(workers.map(range(5)), plain.map(range(5))):
        assert result.outputs == ("best", other.outputs["score"].argmax())


def test_what_postprocess_raises_is_the_items_error(make: Make) -> None:
    def fails(outputs: dict[str, npt.NDArray[np.float32]]) -> float:
        return 1 / (1 if outputs["data"][0, 0, 0] else 0)

    results = make(preprocess=faults.act, postprocess=fails, outputs=["data"], batch_size=2).map([1, 0, 2])
    assert [type(result.error) for result in results] == [type(None), ZeroDivisionError, type(None)]


def test_submit_gives_futures_of_results(make: Make, net: tuple[str, str]) -> None:
    with make(preprocess=faults.act) as workers:
        futures = [workers.submit(value) for value in (4, ("raise", "plain"), 6)]
    # The end of the block has waited for them.
    results = [future.result(timeout=0) for future in futures]
    assert_right(net, [results[0]], {0: 4})
    assert_right(net, [results[2]], {0: 6})
    assert isinstance(results[1].error, ValueError)


def test_jobs_of_several_threads_at_a_time(make: Make, net: tuple[str, str]) -> None:
    workers = make(preprocess=faults.act, batch_size=4)
    found: dict[int, list[Result]] = {}

    def work(start: int) -> None:
        found[start] = list(workers.imap(range(start, start + 40)))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100, 200)]
    for thread in threads:
        thread.start()
    future: Future[Result] = workers.submit(7)
    for thread in threads:
        thread.join()
    for start in (0, 100, 200):
        assert [result.item for result in found[start]] == list(range(start, start + 40))
        assert_right(net, found[start], {index: start + index for index in range(40)})
    assert_right(net, [future.result()], {0: 7})


def test_two_pools_side_by_side(make: Make) -> None:
    first, second = make(preprocess=faults.act), make(preprocess=faults.act)
    pairs = list(zip(first.imap(range(30)), second.imap(range(30, 60))))
    assert [(a.item, b.item) for a, b in pairs] == [(i, i + 30) for i in range(30)]


def test_stats(make: Make) -> None:
    workers = make(preprocess=faults.act, batch_size=4)
    workers.map(range(50))
    stats = workers.stats()
    assert sum(worker.items for worker in stats.workers) == 50
    assert {worker.state for worker in stats.workers} <= {"idle", "starting"}, "one may have done all of it"
    assert {(worker.device, worker.restarts) for worker in stats.workers} == {("cpu", 0)}
    assert any(worker.pid for worker in stats.workers)
    assert (stats.queue, stats.unfinished, stats.batch_size) == (0, 0, 4)
    assert sum(size * count for size, count in stats.batch_sizes.items()) == 50
    assert stats.rate > 0


def test_a_net_that_cannot_be_loaded_raises_once_in_the_parent(
    make: Make, net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    bad_model, bad_weights = tmp_path / "bad.prototxt", tmp_path / "bad.caffemodel"
    bad_model.write_text('layer { name: "a" type: Input }', encoding="utf-8")
    bad_weights.write_bytes(b"\xff" * 99)
    for files, error in (((str(bad_model), net[1]), ProtoError), ((net[0], str(bad_weights)), WeightsError)):
        workers = make(*files)
        with pytest.raises(error, match=r"bad\."):
            workers.map([1])
        with pytest.raises(error, match=r"bad\."):
            workers.map([1])
    with pytest.raises(InputError, match="Unknown blob name 'prob'"):
        make(outputs=["prob"]).submit(1).result()


def test_a_pool_that_is_closed(make: Make) -> None:
    workers = make(preprocess=faults.act)
    going = workers.imap_unordered(itertools.count())
    next(going)
    workers.close()
    workers.close()
    with pytest.raises(PoolError, match="The pool is closed"):
        list(going)
    for use in (lambda: workers.map([1]), lambda: workers.submit(1), lambda: workers.imap([1]), workers.stats):
        with pytest.raises(PoolError, match="The pool is closed"):
            use()


def test_arguments_that_make_no_sense(make: Make) -> None:
    for arguments, text in (
        ({"workers": 0}, "workers is at least 1, not 0|has one worker, not 0"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"retries": -1}, "retries is at least 0, not -1"),
        ({"max_wait": -1}, "max_wait is at least 0, not -1"),
        ({"max_wait": float("nan")}, "max_wait is at least 0, not nan"),
        ({"threads_per_worker": 0}, "threads_per_worker is at least 1, not 0"),
        ({"max_items_per_worker": 0}, "max_items_per_worker is at least 1, not 0"),
        ({"item_timeout": 0}, "item_timeout is above 0, not 0"),
        ({"backend": "threads"}, "Unknown backend 'threads'"),
        ({"devices": ["cuda:0"], "gpus": 1}, "Give devices or gpus, not both"),
    ):
        with pytest.raises(InputError, match=text):
            make(**arguments)


@pytest.mark.parametrize("backend", ["sequential", "thread"])
def test_what_only_processes_can_do(net: tuple[str, str], backend: Any) -> None:
    for arguments in ({"item_timeout": 1.0}, {"max_items_per_worker": 9}):
        with pytest.raises(InputError, match=f"need backend='process' or 'ray', not '{backend}'"):
            Pool(*net, backend=backend, **arguments)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_in_order_reads_ahead_of_a_slow_item_by_a_bounded_number(net: tuple[str, str], backend: Any) -> None:
    read = 0

    def numbers() -> Iterator[Any]:
        nonlocal read
        yield ("sleep", 0.5)
        for number in range(1, 2000):
            read = number
            yield number

    with Pool(*net, backend=backend, workers=2, batch_size=2, preprocess=faults.act) as workers:
        results = workers.imap(numbers())
        assert isinstance(next(results), Result)
        assert read < 100, "the others went on while the first one slept"
        assert [result.index for result in itertools.islice(results, 50)] == list(range(1, 51))
