"""The pool's contract on Ray: the tests of tests/workers/test_contract.py, with pools of that backend."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pycaffe import InputError, Pool
from pycaffe.cluster.connection import Connection
from tests.workers import test_contract
from tests.workers.test_contract import Make
from tests.workers.tiny_net import write_tiny_net

# Each test starts actors, a second or two each; test_pool_backend.py has what is particular to Ray.
pytestmark = pytest.mark.slow
ABOUT_OTHER_BACKENDS = {"test_what_only_processes_can_do"}
globals().update(
    {name: test for name, test in vars(test_contract).items() if name.startswith("test_")}, net=test_contract.net
)
for name in ABOUT_OTHER_BACKENDS:
    del globals()[name]


@pytest.fixture
def make(local_ray: Connection, net: tuple[str, str]) -> Iterator[Make]:
    """Makes pools with one worker, and closes them."""
    made: list[Pool] = []
    others = {*threading.enumerate()}  # such as readers of an earlier test's net, which nobody has collected yet

    def pool(*files: str, **arguments: Any) -> Pool:
        made.append(Pool(*(files or net), **{"workers": 1, "backend": "ray", **arguments}))
        return made[-1]

    yield pool
    for each in made:
        each.close()
    assert not [thread for thread in {*threading.enumerate()} - others if thread.name.startswith("pycaffe")]


def test_an_address_is_for_ray(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="address='a:1' needs backend='ray', not 'process'"):
        Pool(*write_tiny_net(tmp_path), address="a:1")
