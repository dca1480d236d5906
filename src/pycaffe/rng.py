"""The process's random numbers: one seed for fillers, DummyData, Dropout and stochastic pooling.

As in original Caffe, `caffe.set_random_seed` is process-wide. Every consumer draws a child generator when it is set up,
so what one layer draws does not depend on when another one is looked at.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

__all__ = ["child_generator", "generator_in_state", "seed"]

_lock = threading.Lock()
_root = np.random.SeedSequence()


def _renew_lock_in_child() -> None:
    """Another thread may have held it at the fork."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)


def seed(value: int) -> None:
    """Restarts the sequence of generators; negative values ask for an unpredictable one, as in common.cpp."""
    global _root
    with _lock:
        _root = np.random.SeedSequence(value if value >= 0 else None)


def child_generator() -> np.random.Generator:
    """A new generator, independent of all others and determined by `seed` and the number of earlier calls."""
    with _lock:
        (child,) = _root.spawn(1)
    return np.random.default_rng(child)


def generator_in_state(state: Any) -> np.random.Generator:
    """A new generator that goes on from another one's `bit_generator.state`, which survives JSON.

    Each generator has a lock. To set the state of one that was inherited through a fork could wait for it for ever.

    Raises:
        KeyError, TypeError, ValueError: this is no such state.
    """
    bit_generator = np.random.PCG64(0)
    bit_generator.state = state
    return np.random.Generator(bit_generator)
