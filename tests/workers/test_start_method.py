from __future__ import annotations

import pytest

from pycaffe.workers.start_method import start_method


def test_forked_on_a_linux_cpu() -> None:
    assert start_method(platform="linux", implementation="cpython") == "zygote"
    assert start_method(precision="int8", platform="linux", implementation="cpython") == "zygote"


@pytest.mark.parametrize(
    "changed",
    [
        {"platform": "darwin"},
        {"platform": "win32"},
        {"device": "cuda:0"},
        {"device": "cuda:1"},
        {"precision": "bfloat16"},
        {"threads": 2},
        {"implementation": "pypy"},
    ],
    ids=str,
)
def test_spawned_everywhere_else(changed: dict) -> None:
    assert start_method(**{"platform": "linux", "implementation": "cpython", **changed}) == "spawn"
