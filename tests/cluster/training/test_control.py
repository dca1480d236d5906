from __future__ import annotations

import logging

import pytest

from pycaffe.cluster import RunControl
from pycaffe.errors import SolverError


class Asked:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.what: list[object] = []

    def join(self) -> None:
        self.what.append("join")

    def leave(self, rank: int | None = None) -> None:
        self.what.append(("leave", rank))

    def checkpoint_now(self) -> None:
        self.what.append("checkpoint")

    def stop(self) -> None:
        self.what.append("stop")


def test_what_was_asked_is_passed_on_once_and_in_order() -> None:
    control, run = RunControl(), Asked()
    assert not control.pass_on(run)
    control.add_worker()
    control.remove_worker()
    control.remove_worker(3)
    assert not control.pass_on(run)
    control.snapshot()
    control.stop()
    assert control.pass_on(run)
    assert run.what == ["join", ("leave", None), ("leave", 3), "checkpoint", "stop"]
    assert not control.pass_on(run)


class HasNone(Asked):
    """A run whose worker has left meanwhile."""

    def leave(self, rank: int | None = None) -> None:
        raise SolverError(f"No worker has rank {rank}.")


def test_a_rank_that_is_gone_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    control, run = RunControl(), HasNone()
    control.remove_worker(3)
    control.add_worker()
    with caplog.at_level(logging.WARNING, "pycaffe.cluster"):
        assert not control.pass_on(run)
    assert run.what == ["join"]
    assert "No worker has rank 3." in caplog.text
