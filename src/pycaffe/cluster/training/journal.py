"""What a run by all-reduce reports to the process that started it, and what that asks of the run.

    worker of rank 0 ── begin, report, fail ──▶ Journal ── take ──▶ the user's process
                     ◀── asked, newest snapshot ──      ◀── ask ──

Ray Train starts all workers anew when one dies. Each such attempt has a number, and what an earlier attempt still
reports is refused: on a node that was cut off, its rank 0 may live on. No Ray in here; an actor holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pycaffe.cluster.training.run import TraceEvent
from pycaffe.errors import CaffeError

__all__ = ["Attempt", "Journal", "Report"]


@dataclass(frozen=True)
class Attempt:
    """A group of workers that runs from its start to its end or its death.

    Attributes:
        number: from 1; 0 before the first.
        workers: how many they are.
        snapshot: the solver state that they go on from, or an empty string.
    """

    number: int
    workers: int
    snapshot: str


@dataclass
class Report:
    """What has happened since the report before.

    Attributes:
        records: log records, as `logging.makeLogRecord` takes them.
        losses: (iteration, its loss), in order.
        trace: when each iteration's gradients were averaged.
        bytes_reduced: of gradients, of all workers together.
        snapshots: the names of solver states that were written.
        outcome: parameters by layer and the iteration that was reached, at the end.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    trace: list[TraceEvent] = field(default_factory=list)
    bytes_reduced: int = 0
    outcome: tuple[dict[str, list[Any]], int] | None = None

    def add(self, other: Report) -> None:
        """Takes a later report in."""
        self.records += other.records
        self.losses += other.losses
        self.snapshots += other.snapshots
        self.trace += other.trace
        self.bytes_reduced += other.bytes_reduced
        self.outcome = other.outcome or self.outcome

    def __bool__(self) -> bool:
        return bool(self.records or self.losses or self.snapshots or self.trace or self.outcome)


class Journal:
    """The state of one run.

    Args:
        snapshot: the solver state that the run goes on from, or an empty string.
    """

    def __init__(self, snapshot: str) -> None:
        self._snapshot = snapshot
        self._attempt = Attempt(0, 0, snapshot)
        self._report = Report()
        self._asked: list[int] = []
        self._failure: CaffeError | None = None

    def begin(self, workers: int) -> Attempt:
        """A new attempt of so many, which goes on from the newest snapshot that was reported."""
        self._attempt = Attempt(self._attempt.number + 1, workers, self._snapshot)
        return self._attempt

    def report(self, attempt: int, report: Report) -> list[int]:
        """Takes a report of the attempt with this number; returns the values of the actions asked for since."""
        if attempt != self._attempt.number:
            return []
        self._report.add(report)
        if report.snapshots:
            self._snapshot = report.snapshots[-1]
        asked, self._asked = self._asked, []
        return asked

    def ask(self, action: int) -> None:
        """Asks rank 0 for an action (`Action.value`)."""
        self._asked.append(action)

    def fail(self, error: CaffeError) -> None:
        """Notes an error that would come again in another attempt; the first counts."""
        self._failure = self._failure or error

    def failure(self) -> CaffeError | None:
        """The error that ends the run."""
        return self._failure

    def take(self) -> tuple[Attempt, Report]:
        """The attempt that is under way, and what was reported since the last time."""
        report, self._report = self._report, Report()
        return self._attempt, report
