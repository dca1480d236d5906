"""A worker's actor as a plain object: no Ray."""

from __future__ import annotations

import pathlib

import pytest

from pycaffe.cluster.connection import load_ray
from pycaffe.cluster.training import worker_actor
from pycaffe.cluster.training.exchange import Plan
from pycaffe.cluster.training.worker_actor import Failed, WorkerActor, WorkerSettings, _portable
from pycaffe.errors import ClusterError


def test_news_are_told_again_until_they_are_heard(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker cannot do without its folder is such news; nobody may wait for ever because a link was cut."""
    plan: Plan = None  # type: ignore[assignment]  # it does not come so far
    actor = WorkerActor(WorkerSettings(b"", plan, str(tmp_path / "none"), 1, ()))
    (failed,) = actor.news(0)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ClusterError)
    assert "has no folder" in str(failed.error)
    assert actor.news(0) == [failed]
    monkeypatch.setattr(worker_actor, "TELL_SECONDS", 0.01)
    assert actor.news(1) == []
    assert actor.news(0) == [], "a question that was late"


def test_a_store_that_is_full_is_named_wherever_it_shows() -> None:
    exceptions = load_ray().exceptions
    full = exceptions.OutOfDiskError("no room")
    from_server = exceptions.RayTaskError("exchange", "a traceback", full).as_instanceof_cause()
    for error in (full, from_server):
        told = _portable(error)
        assert isinstance(told, ClusterError)
        assert "is full: no room for gradients and parameters. Ray says: no room." in str(told)
