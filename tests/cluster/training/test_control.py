from __future__ import annotations

from pycaffe.cluster import RunControl


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
