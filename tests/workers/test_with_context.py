from __future__ import annotations

from typing import Any

import pytest

from pycaffe import Pool, WithContext
from pycaffe.errors import InputError
from tests.workers import faults
from tests.workers.tiny_net import write_tiny_net


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


class Unpicklable:
    def __init__(self, item: int) -> None:
        self.item = item

    def __reduce__(self) -> Any:
        raise TypeError("it stays where it is")


@pytest.mark.parametrize("backend", ["sequential", "thread", "process"])
def test_what_preprocess_knows_comes_to_postprocess(net: tuple[str, str], backend: Any) -> None:
    def preprocess(item: int) -> Any:
        inputs = faults.filled(item)
        return WithContext(inputs, Unpicklable(item)) if item % 3 else inputs

    def postprocess(outputs: dict[str, Any], context: Any = None) -> tuple[int | None, float]:
        return context and context.item, float(outputs["data"].max())

    settings = {"preprocess": preprocess, "postprocess": postprocess, "outputs": ["data"], "batch_size": 4}
    with Pool(*net, backend=backend, **settings) as pool:
        results = pool.map(range(1, 8))
    assert [result.outputs for result in results] == [(item if item % 3 else None, item) for item in range(1, 8)]


def test_without_postprocess_the_context_is_dropped(net: tuple[str, str]) -> None:
    with Pool(*net, backend="sequential", preprocess=lambda item: WithContext(faults.filled(item), item)) as pool:
        (result,) = pool.map([2])
    assert result.outputs is not None
    assert list(result.outputs) == ["score"]


def test_inputs_that_do_not_fit_are_said(net: tuple[str, str]) -> None:
    with Pool(*net, backend="sequential", preprocess=lambda item: WithContext({"other": item}, None)) as pool:
        (result,) = pool.map([2])
    with pytest.raises(InputError, match=r"Expected values for the inputs \['data'\]\. Got \['other'\]"):
        raise result.error or AssertionError
