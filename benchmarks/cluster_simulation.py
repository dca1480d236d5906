"""A discrete-event simulation of data-parallel training: who waits for whom, for which link, for which processor.

    worker:  forward, a bucket of layers at a time, each once its values are there
             → backward, from the last bucket to the first; behind it the gradient travels, a message to each server
             that holds a part of the bucket
    server:  takes a message off its link → counts it → when the rule allows, sends the values of the next step
    link:    out of and into each machine, first come, first served; the switch between them is never the bottleneck

The rule is the protocol's own: values for clock c are sent when every worker's gradients of clocks up to c - s - 1 have
been counted (s = 0: sync; s = staleness: ssp; s = infinity: async). Ring all-reduce has no servers: a bucket's ring
begins when the last worker has its gradient and the ring before it has ended, and takes 2 (W - 1) steps.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Bucket", "Cluster", "Compression", "Outcome", "Straggling", "Workload", "simulate"]

WITH_SERVERS = ("sync", "ssp", "async")


@dataclass(frozen=True)
class Bucket:
    """Layers that travel together: bytes of their float32 parameters, seconds of their forward and backward."""

    bytes: float
    forward: float
    backward: float


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
class Straggling:
    """How steps take longer than usual.

    Attributes:
        spread: standard deviation of the logarithm of a step's seconds; 0.05 is a quiet machine.
        probability, factor: so often a step takes so many times as long.
        slow_workers: so many workers always take `slow_factor` times as long.
    """

    spread: float = 0.0
    probability: float = 0.0
    factor: float = 1.0
    slow_workers: int = 0
    slow_factor: float = 1.0


@dataclass(frozen=True)
class Cluster:
    """The machines.

    Attributes:
        bandwidth: bytes a second of a link, each way.
        latency: seconds from one machine to another, of an empty message.
        message_seconds: of a server's processor for a message; they are taken one after the other.
        update_seconds_per_byte: of a server's processor, for counting a gradient and updating.
        cores: None where each worker and server has a machine; else all run on one machine with so many.
        copy_seconds_per_byte: of a processor at each end of a message; counts where `cores` is given.
        servers_apart: whether servers have machines of their own; else server i shares the links of worker i.
        straggling: of the workers.
    """

    bandwidth: float
    latency: float = 50e-6
    message_seconds: float = 100e-6
    update_seconds_per_byte: float = 0.25e-9
    cores: int | None = None
    copy_seconds_per_byte: float = 0.0
    servers_apart: bool = False
    straggling: Straggling = Straggling()


@dataclass(frozen=True)
class Outcome:
    """What a run did once it had warmed up.

    Attributes:
        images_per_second: of all workers together.
        efficiency: that, over as many times what one worker alone computes.
        bytes_per_step: pushed and pulled by a worker in a step.
        lead: how many steps the fastest worker was ahead of the slowest, at most.
    """

    images_per_second: float
    efficiency: float
    bytes_per_step: float
    lead: int


def simulate(
    workload: Workload,
    cluster: Cluster,
    workers: int,
    *,
    servers: int = 1,
    mode: str = "sync",
    staleness: int = 0,
    compression: Compression = Compression(),
    steps: int = 12,
    seed: int = 1,
) -> Outcome:
    """Runs until the workers have done `steps` steps on average; the first quarter warms up and does not count.

    Args:
        mode: "sync", "ssp" (with `staleness`), "async", "allreduce" (in rings) or "tree" (to a root, and back).

    Raises:
        ValueError: another mode.
    """
    if mode not in ("sync", "ssp", "async", "allreduce", "tree"):
        raise ValueError(f"Unknown mode {mode!r}. Expected sync, ssp, async, allreduce or tree.")
    bound = {"sync": 0.0, "ssp": float(staleness), "async": math.inf}.get(mode, 0.0)
    run = _Run(workload, cluster, workers, compression, steps, seed)
    exchange = _Servers(run, servers, bound) if mode in WITH_SERVERS else _AllReduce(run, tree=mode == "tree")
    run.train(exchange)
    return run.outcome(exchange.bytes_per_step)


class _Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def run(self) -> None:
        events = self._events
        while events:
            self.now, _, action = heapq.heappop(events)
            action()


class _Processors:
    """Cores that everything on one machine shares; without a number each job has its own."""

    def __init__(self, clock: _Clock, cores: int | None) -> None:
        self._clock = clock
        self._free = [0.0] * cores if cores else None

    def run(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls `then` when a job is done, that begins when a core is free."""
        start = self._clock.now
        if self._free is not None:
            start = max(start, heapq.heappop(self._free))
            heapq.heappush(self._free, start + seconds)
        self._clock.at(start + seconds, then)


class _Link:
    """One direction of a machine's link."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When a message is through that asks now."""
        self._free = max(self._free, now) + seconds
        return self._free


@dataclass
class _Worker:
    rank: int
    step: int = 0
    bucket: int = 0
    slowness: float = 1.0
    waiting: bool = False
    ready: list[int] = field(default_factory=list)  # of each bucket: up to which step its values are here
    ends: list[float] = field(default_factory=list)


class _Run:
    """The workers: compute, and wait for values."""

    def __init__(
        self, workload: Workload, cluster: Cluster, workers: int, compression: Compression, steps: int, seed: int
    ) -> None:
        self.workload, self.cluster, self.compression = workload, cluster, compression
        self.clock = _Clock()
        self.processors = _Processors(self.clock, cluster.cores)
        self.workers = [_Worker(rank, ready=[0] * len(workload.buckets)) for rank in range(workers)]
        self.steps = steps
        self.lead = 0
        self._done = self._slowest = 0
        self._at_step: dict[int, int] = defaultdict(int, {0: workers})
        self._begun: float | None = None
        self._ended = 0.0
        self._random = random.Random(seed)

    def train(self, exchange: _Servers | _AllReduce) -> None:
        self._exchange = exchange
        for worker in self.workers:
            self._begin(worker)
        self.clock.run()

    def _begin(self, worker: _Worker) -> None:
        if self._begun is None and self._done >= self.steps // 4 * len(self.workers):
            self._begun = self.clock.now
        if self._done >= self.steps * len(self.workers):
            self._ended = self._ended or self.clock.now
            return
        straggling = self.cluster.straggling
        worker.slowness = math.exp(self._random.gauss(0.0, straggling.spread)) if straggling.spread else 1.0
        if straggling.probability and self._random.random() < straggling.probability:
            worker.slowness *= straggling.factor
        if worker.rank < straggling.slow_workers:
            worker.slowness *= straggling.slow_factor
        worker.bucket = 0
        self._forward(worker)

    def _forward(self, worker: _Worker) -> None:
        if worker.bucket == len(self.workload.buckets):
            worker.bucket -= 1
            self._backward(worker)
        elif worker.ready[worker.bucket] < worker.step:
            worker.waiting = True
        else:
            seconds = self.workload.buckets[worker.bucket].forward * worker.slowness
            worker.bucket += 1
            self.processors.run(seconds, lambda: self._forward(worker))

    def _backward(self, worker: _Worker) -> None:
        seconds = self.workload.buckets[worker.bucket].backward * worker.slowness
        self.processors.run(seconds, lambda: self._after_backward(worker, worker.bucket))

    def _after_backward(self, worker: _Worker, bucket: int) -> None:
        step = worker.step
        packing = self.workload.buckets[bucket].bytes * self.compression.seconds_per_byte
        self.processors.run(packing, lambda: self._exchange.send(worker.rank, bucket, step))
        if bucket > 0:
            worker.bucket = bucket - 1
            self._backward(worker)
            return
        worker.ends.append(self.clock.now)
        worker.step += 1
        self._done += 1
        self._at_step[worker.step - 1] -= 1
        self._at_step[worker.step] += 1
        while not self._at_step[self._slowest]:
            self._slowest += 1
        self.lead = max(self.lead, worker.step - self._slowest)
        self._begin(worker)

    def arrived(self, rank: int, bucket: int, step: int) -> None:
        """The values of a bucket for a step are with a worker."""
        worker = self.workers[rank]
        worker.ready[bucket] = step
        if worker.waiting and worker.bucket == bucket:
            worker.waiting = False
            self._forward(worker)

    def outcome(self, bytes_per_step: float) -> Outcome:
        """Images of the steps that ended after the warming up and before the first worker stopped, over that time."""
        begun = self._begun or 0.0
        counted = [[time for time in worker.ends if begun <= time <= self._ended] for worker in self.workers]
        # From a worker's first such step to its last: no part of a step is lost at either edge.
        rates = [(len(times) - 1) / (times[-1] - times[0]) for times in counted if len(times) > 1]
        rate = sum(rates) * self.workload.batch
        alone = self.workload.batch / self.workload.seconds
        return Outcome(rate, rate / (alone * len(self.workers)), bytes_per_step, self.lead)


class _Servers:
    """A parameter server: even bytes on each, in the order of the parameters."""

    def __init__(self, run: _Run, servers: int, bound: float) -> None:
        self._run, self._bound = run, bound
        self._pieces = _pieces([bucket.bytes for bucket in run.workload.buckets], servers)
        self._sizes = {(bucket, at): size for bucket, parts in enumerate(self._pieces) for at, size in parts}
        self._out = [_Link() for _ in run.workers]
        self._in = [_Link() for _ in run.workers]
        apart = run.cluster.servers_apart
        self._server_out = [_Link() if apart or at >= len(self._out) else self._out[at] for at in range(servers)]
        self._server_in = [_Link() if apart or at >= len(self._in) else self._in[at] for at in range(servers)]
        self._server_busy = [_Link() for _ in range(servers)]
        self._counted: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._version: dict[tuple[int, int], int] = defaultdict(int)  # how many steps all have been counted for
        self._asked: dict[tuple[int, int], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # by clock
        self._missing: dict[tuple[int, int, int], int] = {}
        self.bytes_per_step = run.workload.bytes * (run.compression.push + run.compression.pull)

    def send(self, rank: int, bucket: int, step: int) -> None:
        """A worker's gradient sets out, and asks for the values of the step after."""
        self._missing[rank, bucket, step + 1] = len(self._pieces[bucket])
        pieces = self._pieces[bucket]
        first = rank % len(pieces)  # not all to the same server at once
        for server, size in pieces[first:] + pieces[:first]:
            self._travel(
                size * self._run.compression.push,
                None if self._same_machine(rank, server) else (self._out[rank], self._server_in[server]),
                self._counting(rank, bucket, step, server, size),
            )

    def _same_machine(self, rank: int, server: int) -> bool:
        return rank == server and not self._run.cluster.servers_apart

    def _travel(self, size: float, links: tuple[_Link, _Link] | None, then: Callable[[], None]) -> None:
        run, cluster = self._run, self._run.cluster
        if cluster.cores:  # one machine: no link, but both ends copy
            copying = 2 * size * cluster.copy_seconds_per_byte
            run.processors.run(copying, lambda: run.clock.at(run.clock.now + cluster.latency, then))
            return
        if links is None:
            run.clock.at(run.clock.now, then)
            return
        out, into = links
        seconds = size / cluster.bandwidth
        through = out.take(run.clock.now, seconds)

        def first_byte() -> None:
            run.clock.at(max(into.take(run.clock.now, seconds), through + cluster.latency), then)

        run.clock.at(through - seconds + cluster.latency, first_byte)

    def _counting(self, rank: int, bucket: int, step: int, server: int, size: float) -> Callable[[], None]:
        run, cluster = self._run, self._run.cluster
        seconds = cluster.message_seconds + size * cluster.update_seconds_per_byte

        def arrived() -> None:
            if cluster.cores:
                run.processors.run(seconds, lambda: self._count(rank, bucket, step, server))
            else:
                done = self._server_busy[server].take(run.clock.now, seconds)
                run.clock.at(done, lambda: self._count(rank, bucket, step, server))

        return arrived

    def _count(self, rank: int, bucket: int, step: int, server: int) -> None:
        piece = bucket, server
        counted = self._counted[piece]
        counted[step] += 1
        while counted[self._version[piece]] == len(self._run.workers):
            del counted[self._version[piece]]
            self._version[piece] += 1
        allowed = self._version[piece] + self._bound  # values for clock c need c - s steps of all
        asked = self._asked[piece]
        asked[step + 1].append(rank)
        for clock in sorted(clock for clock in asked if clock <= allowed):
            for who in asked.pop(clock):
                self._answer(who, bucket, clock, server)

    def _answer(self, rank: int, bucket: int, clock: int, server: int) -> None:
        pull = self._sizes[bucket, server] * self._run.compression.pull
        links = None if self._same_machine(rank, server) else (self._server_out[server], self._in[rank])
        self._travel(pull, links, lambda: self._pulled(rank, bucket, clock))

    def _pulled(self, rank: int, bucket: int, clock: int) -> None:
        self._missing[rank, bucket, clock] -= 1
        if not self._missing[rank, bucket, clock]:
            del self._missing[rank, bucket, clock]
            self._run.arrived(rank, bucket, clock)


class _AllReduce:
    """All-reduce, a bucket after the other; each worker updates all parameters itself."""

    def __init__(self, run: _Run, tree: bool) -> None:
        self._run, self._tree = run, tree
        self._ready: dict[tuple[int, int], int] = defaultdict(int)
        self._network = _Link()
        workers = len(run.workers)
        self.bytes_per_step = 2 * run.workload.bytes * 2 * (workers - 1) / workers * run.compression.push

    def send(self, rank: int, bucket: int, step: int) -> None:
        """A worker has its gradient of a bucket."""
        run = self._run
        self._ready[bucket, step] += 1
        if self._ready[bucket, step] < len(run.workers):
            return
        del self._ready[bucket, step]
        update = run.workload.buckets[bucket].bytes * run.cluster.update_seconds_per_byte
        through = self._network.take(run.clock.now, self._seconds(bucket))
        run.clock.at(through + update, lambda: self._arrive(bucket, step + 1))

    def _seconds(self, bucket: int) -> float:
        run, cluster, workers = self._run, self._run.cluster, len(self._run.workers)
        part = run.workload.buckets[bucket].bytes * run.compression.push / workers
        if self._tree:
            return 2 * math.ceil(math.log2(workers)) * (cluster.latency + workers * part / cluster.bandwidth)
        if cluster.cores:  # the workers' steps of a ring share the cores
            each = cluster.latency + 2 * part * cluster.copy_seconds_per_byte
            return 2 * (workers - 1) * each * max(1.0, workers / cluster.cores)
        return 2 * (workers - 1) * (cluster.latency + part / cluster.bandwidth)

    def _arrive(self, bucket: int, step: int) -> None:
        for worker in self._run.workers:
            self._run.arrived(worker.rank, bucket, step)


def _pieces(sizes: Sequence[float], servers: int) -> list[list[tuple[int, float]]]:
    """Of each bucket: the servers that hold a part of it, and how many bytes. Every server holds as much."""
    share = sum(sizes) / servers
    pieces: list[list[tuple[int, float]]] = []
    server, room = 0, share
    for size in sizes:
        parts: list[tuple[int, float]] = []
        left = size
        while left > 1e-6 * share:
            part = min(left, room)
            parts.append((server, part))
            left, room = left - part, room - part
            if room <= 1e-6 * share and server < servers - 1:
                server, room = server + 1, share
            elif server == servers - 1:
                room = max(room, left)  # what rounding left over
        pieces.append(parts or [(server, size)])
    return pieces
