"""Modes."""

from __future__ import annotations

import pytest

from pycaffe.cluster.protocol.messages import Mode, parse_mode
from pycaffe.errors import SolverError


def test_modes() -> None:
    assert parse_mode("sync") == Mode("sync", 0)
    assert parse_mode("async") == Mode("async", None)
    assert parse_mode("ssp", 2) == Mode("ssp", 2)


@pytest.mark.parametrize(
    ("name", "staleness", "message"),
    [
        ("synch", None, "mode is 'sync', 'async', 'ssp' or 'allreduce'; got 'synch'"),
        ("sync", 2, "staleness=2 is of mode 'ssp' only; got mode='sync'"),
        ("async", 0, "staleness=0 is of mode 'ssp' only"),
        ("ssp", None, "Mode 'ssp' needs staleness, a number of steps >= 0; got None"),
        ("ssp", -1, "got -1"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, staleness: int | None, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        parse_mode(name, staleness)
