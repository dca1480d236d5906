"""The state of one worker, and the only ways in which it changes (anything else raises).

            ready             sent              emptied: answered, and nothing stands behind
starting ───────────→ idle ──────────→ busy ─────────────────────────────→ idle
    │                  │                │ ▲ sent, answered │
    │                  │                │ └────────────────┘
    │                  └──────┬─────────┘
    │ died                    ▼ retired: it has run enough items, or ran past an item's time
    │                      draining
    ▼                         ▼ died (so do idle and busy)
   dead ←─────────────────────┘
    └──started──→ starting
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pycaffe.errors import PoolError
from pycaffe.workers.batch_size import LARGEST
from pycaffe.workers.batches import Batch, Item

__all__ = ["State", "TRANSITIONS", "WorkerState"]

State = Literal["starting", "idle", "busy", "draining", "dead"]
Event = Literal["started", "ready", "sent", "answered", "emptied", "retired", "died"]

TRANSITIONS: dict[tuple[State, Event], State] = {
    ("dead", "started"): "starting",
    ("starting", "ready"): "idle",
    ("idle", "sent"): "busy",
    ("busy", "sent"): "busy",
    ("busy", "answered"): "busy",
    ("busy", "emptied"): "idle",
    ("idle", "retired"): "draining",
    ("busy", "retired"): "draining",
    ("starting", "died"): "dead",
    ("idle", "died"): "dead",
    ("busy", "died"): "dead",
    ("draining", "died"): "dead",
}


@dataclass
class WorkerState:
    """A worker, over all the processes that take its place one after another.

    batch_limit: its device takes no more items at once.
    extents: of forwards that it has run at least once.
    step: the items that it works on at this moment, where it tells; else those of its oldest batch.
    step_since: when it began with them.
    taken: items sent to the present process. items: that were answered, by all. restarts: processes after the first.
    """

    number: int
    device: str
    state: State = "dead"
    pid: int | None = None
    queue: deque[Batch] = field(default_factory=deque)
    batch_limit: int = LARGEST
    extents: set[int] = field(default_factory=set)
    step: tuple[int, ...] | None = None
    step_since: float = 0.0
    taken: int = 0
    items: int = 0
    restarts: int = -1

    @property
    def overlaps(self) -> bool:
        """Whether it prepares a batch while it runs the one before; see worker.py."""
        return self.device != "cpu"

    def change(self, event: Event) -> None:
        """Enters the state that TRANSITIONS gives."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise PoolError(f"Worker {self.number} is {self.state!r}, where {event!r} cannot happen.")
        self.state = after

    def step_items(self) -> list[Item]:
        """The items that it works on at this moment."""
        items = self.queue[0].items if self.queue else []
        return items if self.step is None else [item for item in items if item.number in self.step] or items
