"""What a run by all-reduce reports, attempt by attempt."""

from __future__ import annotations

from pycaffe.cluster.training.journal import Attempt, Journal, Report
from pycaffe.cluster.training.run import TraceEvent
from pycaffe.errors import DataError, SolverError


def test_reports_add_up_until_they_are_taken() -> None:
    journal = Journal("")
    attempt = journal.begin(2)
    assert attempt == Attempt(1, 2, "")
    events = [TraceEvent("reduce", 0, 0, clock, 10.0 + clock) for clock in range(2)]
    journal.report(1, Report(records=[{"msg": "a"}], losses=[(0, 2.5)], trace=events[:1], bytes_reduced=48))
    journal.report(
        1, Report(losses=[(1, 2.25)], snapshots=["x_iter_2.solverstate"], trace=events[1:], bytes_reduced=32)
    )
    taken = Report([{"msg": "a"}], [(0, 2.5), (1, 2.25)], ["x_iter_2.solverstate"], events, 80)
    assert journal.take() == (attempt, taken)
    assert journal.take() == (attempt, Report())


def test_an_attempt_goes_on_from_the_newest_snapshot() -> None:
    journal = Journal("given.solverstate")
    assert journal.begin(2) == Attempt(1, 2, "given.solverstate")
    journal.report(1, Report(snapshots=["a.solverstate", "b.solverstate"]))
    assert journal.begin(1) == Attempt(2, 1, "b.solverstate")
    journal.report(2, Report(snapshots=["c.solverstate"]))
    assert journal.take()[0].snapshot == "b.solverstate"  # where it began, whatever has come since


def test_an_earlier_attempt_is_not_heard() -> None:
    journal = Journal("")
    journal.begin(2)
    journal.begin(2)
    journal.ask(1)
    assert journal.report(1, Report(losses=[(7, 1.0)], snapshots=["late.solverstate"])) == []
    assert journal.take() == (Attempt(2, 2, ""), Report())
    assert journal.report(2, Report()) == [1]
    assert journal.begin(2) == Attempt(3, 2, "")


def test_an_action_is_asked_for_once() -> None:
    journal = Journal("")
    journal.begin(2)
    journal.ask(2)
    journal.ask(1)
    assert journal.report(1, Report()) == [2, 1]
    assert journal.report(1, Report()) == []


def test_the_first_failure_counts() -> None:
    journal = Journal("")
    assert journal.failure() is None
    first = DataError("no data")
    journal.fail(first)
    journal.fail(SolverError("a consequence"))
    assert journal.failure() is first


def test_an_empty_report_is_false() -> None:
    assert not Report()
    assert Report(outcome=({}, 3))
