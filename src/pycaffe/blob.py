"""Blobs: N-dimensional float32 arrays with a gradient beside them, as views that stay live.

A `Blob` is a shape over two `Storage` buffers, data and diff. Buffers are allocated (and parameters filled) at the
first look, so that a net whose weights come from a file never computes its fillers. Every array that leaves through
`data` is a view that holds a lease on its storage; the lease is what tells an engine that parameters may have been
written.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pycaffe.errors import ShapeError

__all__ = ["Blob", "FloatArray", "Pending", "Shape", "Storage", "Watcher", "shape_changes", "structure_changes"]

FloatArray = npt.NDArray[np.float32]
Shape = tuple[int, ...]
MAX_AXES = 32  # kMaxBlobAxes of blob.hpp
INT_MAX = 2**31 - 1

_allocation = threading.RLock()
_structure_changes = 0
_shape_changes = 0


def shape_changes() -> int:
    """Counts, over all blobs, new shapes and buffers that became shared.

    While the count stands still, layers that were asked for their tops' shapes need not be asked again.
    """
    return _shape_changes


def structure_changes() -> int:
    """Counts, over all blobs, what may make a repeated forward differ in more than its inputs' values.

    These are new shapes and buffers, views of watched parameters, and values that stop waiting without being fetched.
    While the count stands still, an engine need not look at each blob again.
    """
    return _structure_changes


def _count_change() -> None:
    global _structure_changes
    _structure_changes += 1


def _count_shape_change() -> None:
    global _shape_changes
    _shape_changes += 1
    _count_change()


def _renew_lock_in_child() -> None:
    """Another thread may have held it at the fork."""
    global _allocation
    _allocation = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)


def _lease(array: FloatArray) -> FloatArray:
    """A flat view of `array` that numpy keeps alive as `base` of every view taken of it, and of views of those.

    Of a view of a view numpy keeps the array at the bottom alone; at a memoryview it stops, so that this is the bottom.
    """
    return np.frombuffer(memoryview(array), np.float32)  # type: ignore[arg-type]


ALIGNMENT = 64  # of a buffer's first byte: a cache line, and the widest vector


def _aligned_zeros(count: int) -> FloatArray:
    """Zeros that begin at a multiple of ALIGNMENT.

    Sums of a matrix product are grouped by where its operands lie: with arbitrary places two runs of one program would
    differ in the last bits.
    """
    room = np.zeros(count + ALIGNMENT // 4, np.float32)
    first = -room.ctypes.data % ALIGNMENT // 4
    return room[first : first + count]


class Pending(Protocol):
    """Values that exist elsewhere: a forward that ran compiled and did not hand out this blob."""

    def fetch(self) -> None:
        """Puts the values into the storages that wait for them."""


class Watcher(Protocol):
    """Who has compiled the values of a storage into something."""

    def before_change(self) -> None:
        """The values are about to be forgotten: whatever still has to be computed with them must be computed now."""


class Storage:
    """A flat float32 buffer that blobs may share; it knows who may write to it, and whether its values are here.

    The states of the original's SyncedMemory: UNINITIALIZED (no buffer yet, perhaps a filler), AT_HOST (the buffer),
    and AT_ENGINE (`pending`: the next look fetches the values).

    A parameter that an engine compiled is watched: when a view of it is handed out a snapshot is taken, and
    `current_version` compares the two for as long as the view lives, and once more after that.

    Attributes:
        version: counts the changes of a watched storage.
        touched: somebody looked since an engine last set this to False.
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_fill",
        "_lease",
        "_pending",
        "_snapshot",
        "_watchers",
        "capacity",
        "touched",
        "version",
    )

    def __init__(self, capacity: int, fill: Callable[[FloatArray], None] | None = None) -> None:
        self.capacity = capacity
        self.version = 0
        self.touched = False
        self._fill = fill
        self._array: FloatArray | None = None
        self._lease: weakref.ref[FloatArray] | None = None
        self._pending: Pending | None = None
        self._watchers: weakref.WeakSet[Watcher] | None = None
        self._snapshot: FloatArray | None = None

    @property
    def allocated(self) -> bool:
        """Whether the buffer exists: nobody has looked at it otherwise."""
        return self._array is not None

    @property
    def leased(self) -> bool:
        """Whether a view that was handed out is still alive."""
        return self._lease is not None and self._lease() is not None

    def array(self) -> FloatArray:
        """The buffer itself, flat, for engines: takes no lease. Fetches what is pending."""
        self.touched = True
        while self._pending is not None:  # another thread's forward may have come between
            self._pending.fetch()
        if self._array is None:
            self._allocate()
        return self._array  # type: ignore[return-value]

    def _allocate(self) -> None:
        with _allocation:  # two threads may take the first look together
            if self._array is None:
                array = _aligned_zeros(self.capacity)
                if self._fill is not None:
                    self._fill(array)
                self._array, self._fill = array, None

    def view(self, shape: Shape) -> FloatArray:
        """A live view of the first elements in that shape. Takes a lease."""
        lease = self._lease() if self._lease is not None else None
        if lease is None:
            lease = _lease(self.array())
            if self._watchers:
                _count_change()
                if self._snapshot is None:
                    self._snapshot = self.array().copy()
            self._lease = weakref.ref(lease)
        self.touched = True
        return lease[: math.prod(shape)].reshape(shape)

    # -- values from files and engines

    def adopt(self, array: FloatArray) -> bool:
        """Takes a flat array as the buffer if nobody has looked yet; else copies it in. True where it was adopted."""
        self._warn_watchers()
        _count_change()
        self.version += 1
        self._pending = None
        if self._array is None and array.size == self.capacity:
            self._array, self._fill = array, None
            return True
        self.array()[: array.size] = array
        if self._snapshot is not None:
            self._snapshot = self.array().copy()
        return False

    def put(self, array: FloatArray) -> None:
        """Takes an engine's result: as the buffer where no view lives, else by copying it under the views."""
        if self._pending is not None:
            _count_change()
            self._pending = None
        flat = array.reshape(-1)
        if flat.size == self.capacity and not self.leased and flat.flags.writeable:
            self._array, self._fill = flat, None
        else:
            self.array()[: flat.size] = flat

    @property
    def compared(self) -> bool:
        """Whether writes through views have to be looked for: `current_version` does."""
        return self._snapshot is not None

    @property
    def pending(self) -> Pending | None:
        """Who holds the values, where they are not here."""
        return self._pending

    # -- training

    def own(self) -> None:
        """Moves values that lie in a mapped file into aligned memory of this process, unless a view is alive."""
        values = self.array()
        if values.ctypes.data % ALIGNMENT and not self.leased:
            self._array = _aligned_zeros(self.capacity)
            self._array[...] = values
            _count_change()

    def clear(self) -> None:
        """Makes all values 0. Without a view buffer and pending go, so that gradients may come as it (`put`)."""
        if self.leased:
            self.array()[...] = 0
        else:
            self._array, self._pending = None, None

    def release(self) -> None:
        """Lets go of values that are about to be replaced, unless a view is alive. Until then all are 0."""
        if not self.leased:
            if self._pending is not None:
                _count_change()
            self._array, self._pending = None, None

    def changing(self) -> FloatArray:
        """The buffer for a solver, which is about to write to it: watchers are told, and the version counts it."""
        values = self.array()
        self._warn_watchers()
        _count_change()
        self.version += 1
        return values

    def expect(self, pending: Pending) -> None:
        """From now on the values are `pending`'s. No view may be alive."""
        if self._pending is not None and self._pending is not pending:
            _count_change()
        self._pending = pending
        self._fill = None

    # -- parameters that an engine compiled

    def watch(self, watcher: Watcher) -> int:
        """Asks that changes be noticed, and announced to `watcher` before; returns the version of this moment."""
        if self._watchers is None:
            self._watchers = weakref.WeakSet()
        self._watchers.add(watcher)
        version = self.current_version()  # somebody else may watch already, and a view have been written to
        if self.leased and self._snapshot is None:
            self._snapshot = self.array().copy()
        return version

    def current_version(self) -> int:
        """The version after a look for writes through views: costs nothing where none was handed out."""
        if self._snapshot is not None:
            alive = self.leased
            if not np.array_equal(self._snapshot.view(np.uint32), self.array().view(np.uint32)):
                self._warn_watchers()
                self.version += 1
                self._snapshot = self.array().copy() if alive else None
            elif not alive:
                self._snapshot = None
        return self.version

    def values_of_version(self) -> FloatArray:
        """The values that `version` stands for: a private copy where views could have changed the buffer since."""
        return self.array() if self._snapshot is None else self._snapshot

    def _warn_watchers(self) -> None:
        for watcher in list(self._watchers or ()):
            watcher.before_change()


class Blob:
    """An N-dimensional array of float32 with its gradient (blob.hpp).

    `data` and `diff` are live, writable views with the blob's shape. `reshape` keeps the buffer while it is large
    enough, as in the original; otherwise it takes a new one, and views of the old one keep their old values.
    """

    __slots__ = ("__weakref__", "_data", "_diff", "_shape")

    def __init__(self, shape: Sequence[int] = (), fill: Callable[[FloatArray], None] | None = None) -> None:
        self._shape: Shape = _checked_shape(shape)
        count = math.prod(self._shape)
        self._data = Storage(count, fill)
        self._diff = Storage(count)

    @property
    def shape(self) -> Shape:
        """The extent of each axis."""
        return self._shape

    @property
    def count(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        """Legacy name of axis 0; 1 where it is missing."""
        return self._legacy_extent(0)

    @property
    def channels(self) -> int:
        """Legacy name of axis 1; 1 where it is missing."""
        return self._legacy_extent(1)

    @property
    def height(self) -> int:
        """Legacy name of axis 2; 1 where it is missing."""
        return self._legacy_extent(2)

    @property
    def width(self) -> int:
        """Legacy name of axis 3; 1 where it is missing."""
        return self._legacy_extent(3)

    def _legacy_extent(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise ShapeError(
                f"Cannot use legacy accessors on Blobs with > 4 axes. This one has shape {self._shape!r}; use `shape`."
            )
        return self._shape[axis] if axis < len(self._shape) else 1

    @property
    def data(self) -> FloatArray:
        """The values: a live, writable view."""
        return self._data.view(self._shape)

    @property
    def diff(self) -> FloatArray:
        """The gradient: a live, writable view."""
        return self._diff.view(self._shape)

    @property
    def data_storage(self) -> Storage:
        """The buffer of `data`, for engines."""
        return self._data

    @property
    def diff_storage(self) -> Storage:
        """The buffer of `diff`, for engines."""
        return self._diff

    def raw_data(self) -> FloatArray:
        """`data` without a lease, for engines: must not be handed to users."""
        return self._data.array()[: self.count].reshape(self._shape)

    def raw_diff(self) -> FloatArray:
        """`diff` without a lease, for engines."""
        return self._diff.array()[: self.count].reshape(self._shape)

    def reshape(self, *shape: int) -> None:
        """Changes the shape; the data keep their place in the buffer.

        Raises:
            ShapeError: an extent is negative, there are more than 32 axes or more than 2^31 - 1 elements.
        """
        if shape == self._shape:  # most of the time: every layer reshapes its tops at each forward
            return
        new = _checked_shape(shape)
        count = math.prod(new)
        if count > self._data.capacity:
            self._data = Storage(count)
        if count > self._diff.capacity:
            self._diff = Storage(count)
        if new != self._shape:
            self._shape = new
            _count_shape_change()

    def share_data(self, other: Blob) -> None:
        """Uses the data buffer of `other` from now on (both must have the same count)."""
        if self.count != other.count:
            raise ShapeError(f"Check failed: count_ == other.count() ({self.count} vs. {other.count}).")
        self._data = other._data
        _count_shape_change()

    def share_diff(self, other: Blob) -> None:
        """Uses the diff buffer of `other` from now on (both must have the same count)."""
        if self.count != other.count:
            raise ShapeError(f"Check failed: count_ == other.count() ({self.count} vs. {other.count}).")
        self._diff = other._diff

    def __repr__(self) -> str:
        return f"<Blob {' x '.join(map(str, self._shape)) or 'scalar'}>"


def _checked_shape(shape: Sequence[int]) -> Shape:
    new = tuple(int(extent) for extent in shape)
    if len(new) > MAX_AXES:
        raise ShapeError(f"Check failed: shape.size() <= kMaxBlobAxes ({len(new)} vs. {MAX_AXES}).")
    if any(extent < 0 for extent in new):
        raise ShapeError(f"Check failed: shape[i] >= 0. Got shape {new!r}.")
    count = 1
    for extent in new:  # axis by axis, as Blob::Reshape does: what follows a 0 is not looked at
        if count and extent > INT_MAX // count:
            raise ShapeError(f"blob size exceeds INT_MAX. Got shape {new!r}; at most {INT_MAX} elements.")
        count *= extent
    return new
