from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from pycaffe.engines import onnxruntime_engine
from pycaffe.engines.session import create_session
from pycaffe.errors import InputError, PoolError, WeightsError
from pycaffe.workers import zygote
from pycaffe.workers.messages import ItemDone, Settings, Timing, picklable_error
from pycaffe.workers.runner import Runner
from tests.workers import faults
from tests.workers.tiny_net import SHAPE, expected_scores, write_tiny_net


def run(runner: Runner, *items: Any) -> list[ItemDone]:
    done = runner.run(list(range(len(items))), list(items))
    return sorted(done.items(), key=lambda done: done.number)


@pytest.fixture
def net(tmp_path: pathlib.Path) -> tuple[str, str]:
    return write_tiny_net(tmp_path)


def runner(net: tuple[str, str], preprocess: Any = faults.act, batch_size: int = 3, **settings: Any) -> Runner:
    return Runner(Settings(*net, preprocess=preprocess, batch_size=batch_size, **settings))


def test_a_batch_has_the_outputs_of_its_items_run_alone(net: tuple[str, str]) -> None:
    random = np.random.default_rng(1)
    items = [{"data": random.standard_normal(SHAPE).astype(np.float32)} for _ in range(3)]
    for done, item in zip(run(runner(net, preprocess=None), *items), items):
        assert done.error is None
        assert done.outputs is not None
        assert done.outputs["score"].shape == (7,)
        np.testing.assert_allclose(done.outputs["score"], expected_scores(net[1], net[0], item["data"]), rtol=1e-4)


def test_a_bad_item_is_an_error_and_its_neighbours_are_as_without_it(net: tuple[str, str]) -> None:
    done = run(runner(net), 1, ("raise", "plain"), 2)
    assert [type(item.error) for item in done] == [type(None), ValueError, type(None)]
    for item, value in ((done[0], 1), (done[2], 2)):
        assert item.outputs is not None
        np.testing.assert_allclose(
            item.outputs["score"], expected_scores(net[1], net[0], faults.filled(value)), rtol=1e-4
        )


def test_an_item_of_a_shape_that_the_net_cannot_take_is_an_error(net: tuple[str, str]) -> None:
    wrong, right = run(runner(net), ("shape", 3, 2, 2), 1)
    assert "Input size incompatible" in str(wrong.error)
    assert right.error is None


def test_inputs_that_the_net_does_not_have(net: tuple[str, str]) -> None:
    (done,) = run(runner(net, preprocess=None), {"image": faults.filled(1)})
    assert str(done.error) == "Expected values for the inputs ['data']. Got ['image']."


def test_an_image_without_preprocess_is_stretched_to_the_input(net: tuple[str, str]) -> None:
    image = np.full((9, 11, 3), (10, 20, 30), np.uint8)
    (done,) = run(runner(net, preprocess=None), image)
    data = np.broadcast_to(np.float32([10, 20, 30])[:, None, None], SHAPE)
    assert done.outputs is not None
    np.testing.assert_allclose(done.outputs["score"], expected_scores(net[1], net[0], data), rtol=1e-4)


def test_outputs_may_be_any_blob(net: tuple[str, str]) -> None:
    (done,) = run(runner(net, outputs=("data",)), 4)
    assert done.outputs is not None
    np.testing.assert_array_equal(done.outputs["data"], faults.filled(4))


def test_a_blob_without_a_row_an_item_makes_items_run_alone(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "loss.prototxt"
    model.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }'
        'layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" }',
        encoding="utf-8",
    )
    done = run(Runner(Settings(str(model), preprocess=faults.act, batch_size=2)), 1, 2)
    values = [item.outputs["sum"] for item in done if item.outputs is not None]
    np.testing.assert_array_equal(values, [60, 120])
    assert values[0].shape == ()


def test_a_net_that_takes_no_other_batch_is_asked_once(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "fixed.prototxt"
    model.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }'
        'layer { name: "flat" type: "Reshape" bottom: "data" top: "flat"'
        " reshape_param { shape { dim: 1 dim: 60 } } }",
        encoding="utf-8",
    )
    made = Runner(Settings(str(model), preprocess=faults.act, batch_size=4))
    for done, value in zip(run(made, 1, 2, 3, 4), (1, 2, 3, 4)):
        assert done.error is None
        np.testing.assert_array_equal(done.outputs["flat"], np.full(60, value))
    assert made.run([1, 2], [1, 2]).timing.batch_limit == 1


@pytest.mark.parametrize("any_batch", [True, False])
def test_a_zygote_makes_all_sessions_that_a_worker_will_use(
    net: tuple[str, str], monkeypatch: pytest.MonkeyPatch, any_batch: bool
) -> None:
    made_for: list[int | None] = []

    def counted(segment: Any, *arguments: Any) -> Any:
        made_for.append(segment.batch)
        return create_session(segment, *arguments)

    monkeypatch.setattr(onnxruntime_engine, "create_session", counted)
    if not any_batch:
        monkeypatch.setattr(onnxruntime_engine.OnnxRuntimeEngine, "_takes_any_batch", lambda self, lowered: False)
    made = runner(net, batch_size=5)
    zygote._prepare(made)
    assert made_for == ([None] if any_batch else [5, 4, 2, 1])
    for count in (5, 3, 1, 4, 2):
        assert all(done.error is None for done in run(made, *range(count)))
    assert len(made_for) == (1 if any_batch else 4), "nothing more"


def test_what_cannot_be_loaded_raises(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.caffemodel"):
        runner((net[0], str(tmp_path / "none.caffemodel")))
    with pytest.raises(InputError, match=r"Unknown blob name 'prob'. The net has \['data', 'score'\]"):
        runner(net, outputs=("prob",))


def test_errors_that_do_not_survive_the_pipe_become_pool_errors() -> None:
    plain = ValueError("no good")
    assert picklable_error(plain) is plain
    for error, text in (
        (faults.UnpicklableError("a", "b"), "UnpicklableError: ab"),
        (SystemExit(3), "SystemExit: 3"),
    ):
        kept = picklable_error(error)
        assert type(kept) is PoolError
        assert str(kept) == text


class NoMemoryAbove:
    """A net's forward on a device that has no memory for more than so many items."""

    def __init__(self, made: Runner, most: int) -> None:
        self.forward, self.most, self.extents = made.net.forward, most, list[int]()
        self.blob = made.net.blobs["data"]

    def __call__(self) -> Any:
        self.extents.append(self.blob.shape[0])
        if self.blob.shape[0] > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.forward()


def test_a_device_without_memory_for_a_batch_gets_halves_and_smaller_batches_from_then_on(
    net: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner(net, batch_size=8)
    device = NoMemoryAbove(made, 3)
    monkeypatch.setattr(made.net, "forward", device)
    answer = made.run(list(range(8)), list(range(8)))
    assert device.extents == [8, 4, 2, 2, 2, 2]
    assert answer.timing == Timing(0, 0.0, 2)
    for done in answer.items():
        assert done.error is None
        expected = expected_scores(net[1], net[0], faults.filled(done.number))
        np.testing.assert_allclose(done.outputs["score"], expected, rtol=1e-4, atol=1e-4)
    device.extents.clear()
    run(made, 1, 2, 3)
    assert device.extents == [2, 1]


def test_a_device_without_memory_for_one_item_gives_its_error(
    net: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner(net)
    monkeypatch.setattr(made.net, "forward", NoMemoryAbove(made, 0))
    assert [str(done.error)[:18] for done in run(made, 1, 2)] == ["CUDA out of memory"] * 2


def test_a_batch_tells_how_long_its_forward_took(net: tuple[str, str]) -> None:
    made = runner(net, batch_size=4)
    assert made.run([1, 2, 3, 4], [1, 2, 3, 4]).timing.extent == 4
    assert made.run([1, 2, 3, 4], [1, ("raise", "plain"), 3, 4]).timing.extent == 0, "3 items need two forwards"
    assert made.run([1], [1]).timing.seconds > 0


def test_steps_are_told_as_they_begin(net: tuple[str, str]) -> None:
    steps: list[tuple[int, ...]] = []
    made = runner(net, batch_size=2, postprocess=lambda outputs: steps.append((-1,)))
    made.run([7, 8], [1, 2], steps.append)
    assert steps == [(7,), (8,), (7, 8), (7,), (-1,), (8,), (-1,)]


def test_activations_are_those_of_the_largest_layer(net: tuple[str, str]) -> None:
    assert runner(net).activations == 4 * (3 * 4 * 5 + 7)
