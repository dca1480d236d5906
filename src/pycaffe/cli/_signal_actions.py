"""Signals → what the solver is asked to do: `--sigint_effect` and `--sighup_effect` (signal_handler.cpp)."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycaffe.solvers import Action

__all__ = ["EFFECTS", "on_signals"]

EFFECTS = ("stop", "snapshot", "none")


@contextmanager
def on_signals(sigint_effect: str, sighup_effect: str, ask: Callable[[Action], None]) -> Iterator[None]:
    """Within the block, calls `ask` when SIGINT or SIGHUP comes; the effect `none` ignores the signal.

    `ask` runs between two instructions of the main thread, so it may do little: set a flag, write to a pipe.
    """
    from pycaffe.solvers import Action

    actions = {"stop": Action.STOP, "snapshot": Action.SNAPSHOT}

    def listen(name: str, effect: str) -> Any:
        action = actions.get(effect)
        return signal.signal(
            getattr(signal, name), signal.SIG_IGN if action is None else lambda number, frame: ask(action)
        )

    effects = {"SIGINT": sigint_effect, "SIGHUP": sighup_effect}
    before = {name: listen(name, effect) for name, effect in effects.items() if hasattr(signal, name)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
