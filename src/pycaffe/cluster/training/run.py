"""What came of a run on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.assignment import CountedSteps

__all__ = ["Run", "TraceEvent"]

TRACE_EVENTS = 1 << 19  # at least so many are kept, the latest; a hundred bytes each


@dataclass(frozen=True)
class TraceEvent:
    """One worker had all values for a step, or sent its gradients; or all workers have the mean of theirs.

    Attributes:
        kind: "pull" or "push"; of an all-reduce "reduce".
        generation: of the run; clocks of one are comparable. Of an all-reduce: how often its workers were started anew.
        worker: the rank; of an all-reduce 0, which tells for all.
        clock: the step within the generation's run of clocks.
        time: seconds since the epoch, by the worker's clock: of a pull when the last value came, of a push when the
            first gradient was about to be sent, of an all-reduce when the mean had come.
        batches: of a push: the numbers of the batches that it comes from, counted from the run's begin.
    """

    kind: str
    generation: int
    worker: int
    clock: int
    time: float
    batches: tuple[int, ...] = ()


@dataclass
class Run:
    """What came of a run.

    Attributes:
        iter: the iteration that was reached.
        losses: by iteration, from the run's begin: the mean over the workers; of an all-reduce that of rank 0.
        params: by layer name, the arrays of its parameters.
        trace: every pull and push, of an all-reduce every mean, that a worker came to tell of; of a long run the last
            half million at least.
        counted: of parameter servers: the steps whose gradients are in `params`, as the servers counted them. It has
            the last steps of a worker that died before it told of them, none that going back to a checkpoint undid, and
            those that were refused.
        bytes_pushed, bytes_pulled: payload, of all workers together; of an all-reduce the gradients that workers gave,
            and their means, which are as long. What a ring of W workers sends for it is (W - 1) / W of their sum.
        restarts: how many processes were started in place of dead ones.
        snapshots: the solver states that were written, in order.
        refused: by rank, how many of its gradients were not finite and therefore not taken.
    """

    iter: int
    losses: list[float] = field(default_factory=list)
    params: dict[str, list[FloatArray]] = field(default_factory=dict)
    trace: list[TraceEvent] = field(default_factory=list)
    bytes_pushed: int = 0
    bytes_pulled: int = 0
    restarts: int = 0
    snapshots: list[str] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    counted: tuple[CountedSteps, ...] = ()

    def add_to_trace(self, *events: TraceEvent) -> None:
        """Takes what happened next, and forgets the oldest of a long run."""
        if len(self.trace) >= 2 * TRACE_EVENTS:
            del self.trace[:TRACE_EVENTS]
        self.trace += events

    @property
    def batches(self) -> list[int]:
        """The numbers of the batches whose gradients are in `params`, ascending, as often as they count."""
        return sorted(batch for steps in self.counted for batch in steps.batches())
