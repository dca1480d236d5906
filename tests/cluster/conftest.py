"""One Ray for all tests of this folder. It ends with them: elsewhere tests count the processes that they leave."""

from __future__ import annotations

import os
import pathlib
import secrets
from collections.abc import Iterator

import pytest

from pycaffe.cluster.connection import Connection, connect
from pycaffe.threads import set_num_threads

HERE = pathlib.Path(__file__).parent
_held: list[Connection] = []


@pytest.fixture(autouse=True)
def threads_again() -> Iterator[None]:
    """Actors that a test runs in its own process set the threads of that process."""
    yield
    set_num_threads(None)


@pytest.fixture
def local_ray() -> Connection:
    """Ray on this machine, which says that it has eight CPUs."""
    if not _held:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # else Ray writes one into the home folder
        _held.append(connect(cpus=8))
    return _held[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if _held and (nextitem is None or HERE not in nextitem.path.parents):
        _held.pop().close()
