"""What workers report, put together: losses by iteration, the trace, places in the data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.messages import Checkpoint
from pycaffe.cluster.training.data_position import Place
from pycaffe.cluster.training.run import Run, TraceEvent
from pycaffe.cluster.training.worker_solver import StepReport

__all__ = ["Recorder", "first_batch"]

logger = logging.getLogger("pycaffe.cluster")


class Recorder:
    """The books of what was done.

    Args:
        run: is filled.
        place: where the run begins.
        on_progress: called with each iteration that is done and the mean of its losses; at the end where a worker died
            before it told its own.
        by_arrival: W reports that follow each other are an iteration, whoever sent them; else those of one step.
    """

    def __init__(
        self, run: Run, place: Place, on_progress: Callable[[int, float], Any] | None, by_arrival: bool = False
    ) -> None:
        self.run = run
        self._on_progress = on_progress
        self._by_arrival = by_arrival
        self._places: dict[int, Place] = {place.batch: place}
        self._run_states: dict[int, dict[str, Any]] = {}
        self._losses: dict[int, dict[int, float]] = {}  # by iteration and rank, until all have told
        self._means: dict[int, float] = {}  # by iteration
        self._workers: dict[int, int] = {}  # by generation
        self._begun = 0  # the iteration at which the last generation began
        self._arrived = 0  # reports of it
        self._reported: dict[int, int] = {}  # of it: steps that are reported, by rank

    def begin(self, generation: int, workers: int, iteration: int) -> None:
        """A generation of W workers begins at an iteration; what was done from there on is done again. Repeatable."""
        if generation not in self._workers:
            self._workers[generation], self._begun, self._arrived, self._reported = workers, iteration, 0, {}
            self._losses = {number: losses for number, losses in self._losses.items() if number < iteration}
            self._means = {number: mean for number, mean in self._means.items() if number < iteration}

    def add(self, report: StepReport) -> None:
        """Takes a worker's report of a step."""
        run, traffic = self.run, report.traffic
        who = (report.generation, report.rank, report.clock)
        run.add_to_trace(
            TraceEvent("pull", *who, report.pulled_at), TraceEvent("push", *who, report.pushed_at, report.batches)
        )
        run.bytes_pushed += traffic.pushed
        run.bytes_pulled += traffic.pulled
        if traffic.refused:
            run.refused[report.rank] = run.refused.get(report.rank, 0) + 1
            logger.warning(
                "The gradient of worker %d at iteration %d has NaN or infinity: servers refused %d of its pieces.",
                report.rank, report.iteration - 1, traffic.refused,
            )  # fmt: skip
        self._places[report.place.batch] = report.place
        if report.run_state is not None:
            self._run_states[report.iteration] = report.run_state
        workers = self._workers[report.generation]
        present = report.generation == max(self._workers)
        if present:
            self._reported[report.rank] = max(report.clock + 1, self._reported.get(report.rank, 0))
        if not self._by_arrival:
            if present or report.iteration <= self._begun:
                self._add_loss(report.iteration - 1, report.rank, workers, report.loss)
        elif present:
            self._add_loss(self._begun + self._arrived // workers, self._arrived % workers, workers, report.loss)
            self._arrived += 1

    def _add_loss(self, iteration: int, part: int, parts: int, loss: float) -> None:
        losses = self._losses.setdefault(iteration, {})
        losses[part] = loss
        if len(losses) == parts:
            del self._losses[iteration]
            self._add_mean(iteration, sum(losses.values()) / parts)

    def _add_mean(self, iteration: int, mean: float) -> None:
        self._means[iteration] = mean
        self.run.iter = max(self.run.iter, iteration + 1)
        if self._on_progress is not None:
            self._on_progress(iteration + 1, mean)

    def reported(self, rank: int) -> int:
        """The steps of the last generation that a rank has reported."""
        return self._reported.get(rank, 0)

    def place_before(self, batch: int) -> Place:
        """The last known place that is not behind a batch."""
        return self._places[max(known for known in self._places if known <= batch)]

    def run_state_at(self, iteration: int) -> dict[str, Any] | None:
        """What rank 0 told after that iteration or the last one before it; None where it told nothing."""
        known = [told for told in self._run_states if told <= iteration]
        return self._run_states[max(known)] if known else None

    def keep_state(self, iteration: int, state: dict[str, Any] | None) -> None:
        """Takes what a snapshot held at an iteration as if rank 0 had told it."""
        if state is not None:
            self._run_states[iteration] = state

    def forget_before(self, checkpoint: Checkpoint) -> None:
        """Nobody goes back behind a checkpoint."""
        first = self.place_before(first_batch(checkpoint)).batch
        self._places = {batch: place for batch, place in self._places.items() if batch >= first}
        known = [told for told in self._run_states if told <= checkpoint.iteration]
        for told in sorted(known)[:-1]:
            del self._run_states[told]

    def finish(self, iteration: int) -> None:
        """The run is over at this iteration."""
        # Where a worker died between its push and its report, one loss of the iteration is missing.
        for number, losses in sorted(self._losses.items()):
            if number < iteration:
                self._add_mean(number, sum(losses.values()) / len(losses))
        self._losses = {}
        self.run.iter = iteration
        self.run.losses = [mean for number, mean in sorted(self._means.items()) if number < iteration]


def first_batch(checkpoint: Checkpoint) -> int:
    """The first batch that is not consumed at a checkpoint."""
    assignment: Assignment = checkpoint.assignment
    return assignment.after(checkpoint.clocks, assignment.workers).first
