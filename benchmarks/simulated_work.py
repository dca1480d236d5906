"""What is simulated: a net's computing, and what its gradients and values cost on their way."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bucket", "Compression", "MessageCosts", "Workload"]


@dataclass(frozen=True)
class Bucket:
    """Layers that travel together.

    Attributes:
        bytes: of their float32 parameters.
        forward, backward: seconds of computing.
        blobs: how many; all-reduce has a call for each.
        layers: bytes of each, which the servers divide; () for one.
    """

    bytes: float
    forward: float
    backward: float
    blobs: int = 1
    layers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Workload:
    """A net on one worker: its buckets, bottom first, and the images of a worker's batch."""

    name: str
    batch: int
    buckets: tuple[Bucket, ...]

    @property
    def bytes(self) -> float:
        """Of all parameters."""
        return sum(bucket.bytes for bucket in self.buckets)

    @property
    def seconds(self) -> float:
        """Of computing one step."""
        return sum(bucket.forward + bucket.backward for bucket in self.buckets)


@dataclass(frozen=True)
class Compression:
    """What travels instead of a float32, as a part of it, and the worker's seconds for each byte before packing."""

    name: str = "none"
    push: float = 1.0
    pull: float = 1.0
    seconds_per_byte: float = 0.0


@dataclass(frozen=True)
class MessageCosts:
    """Processor seconds of a gradient that is pushed and the values that are pulled with it, the update apart.

    Attributes:
        points: (bytes of the gradient, seconds in the worker, in the server, in the store), by bytes; straight lines
            between them, and beyond.
    """

    points: tuple[tuple[float, float, float, float], ...] = ((0.0, 0.0, 0.0, 0.0),)

    def at(self, size: float) -> tuple[float, float, float]:
        """Seconds in the worker, in the server and in the store."""
        points = self.points
        if len(points) == 1:
            return points[0][1:]
        above = next((at for at in range(1, len(points) - 1) if points[at][0] >= size), len(points) - 1)
        (left, *low), (right, *high) = points[above - 1], points[above]
        part = (size - left) / (right - left)
        worker, server, store = (max(0.0, a + (b - a) * part) for a, b in zip(low, high))
        return worker, server, store
