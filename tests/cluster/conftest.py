"""One Ray for all tests of this folder. It ends with them: elsewhere tests count the processes that they leave."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from pycaffe.cluster.connection import Connection, connect


@pytest.fixture(scope="package")
def local_ray() -> Iterator[Connection]:
    """Ray on this machine, which says that it has eight CPUs."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # else Ray writes one into the home folder
    with connect(cpus=8) as connection:
        yield connection
