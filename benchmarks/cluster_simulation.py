"""A discrete-event simulation of data-parallel training: who waits for whom, for which link, for which processor.

    worker:  forward, once all values of the step are there → backward, from the last bucket of layers to the first;
             behind it the gradient travels, a message to each server that holds a part of the bucket
    server:  takes a message off its link → counts it → when the rule allows, sends the values of the next step
    store:   Ray's process on each machine, which every message goes through
    link:    out of and into each machine, first come, first served; the switch between them is never the bottleneck
    cores:   of a machine, shared evenly by all threads that want to run on it: those of the worker's computing, and one
             each of sending, receiving, server and store

The rule is the protocol's own: values for clock c are sent when every worker's gradients of clocks up to c - s - 1 have
been counted (s = 0: sync; s = staleness: ssp; s = infinity: async). Ring all-reduce has no servers: a bucket's ring
begins when the last worker has its gradient and the ring before it has ended, and takes 2 (W - 1) steps for each blob
(of NCCL, the faster of that and its two trees).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simulated_machine import Clock, Link, Processors, Thread
from simulated_work import Bucket, Compression, MessageCosts, Workload

from pycaffe.cluster.protocol.shards import cut_into_pieces

__all__ = ["Bucket", "Cluster", "Compression", "MessageCosts", "Outcome", "Straggling", "Workload", "simulate"]

NO_COSTS, UNCOMPRESSED = MessageCosts(), Compression()
WITH_SERVERS = ("sync", "ssp", "async")


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
        update_seconds_per_byte: of a processor, for an update: in sync once a step, else with each message.
        messages: what messages cost besides.
        ring: of each worker's processor, seconds of a call of all-reduce by two, and of each byte.
        trees: whether all-reduce may go by two trees at once where that is faster, as NCCL's does.
        cores: of each machine; None for enough.
        together: whether all run on one machine.
        threads: that a worker computes with.
        crowding: how many times as long computing takes where all cores are busy, since they share caches and memory.
        servers_apart: whether servers have machines of their own; else server i shares the links of worker i.
        straggling: of the workers.
    """

    bandwidth: float
    latency: float = 50e-6
    message_seconds: float = 100e-6
    update_seconds_per_byte: float = 0.25e-9
    messages: MessageCosts = NO_COSTS
    ring: tuple[float, float] = (0.0, 0.0)
    trees: bool = False
    cores: int | None = None
    together: bool = False
    threads: int = 1
    crowding: float = 1.0
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
    compression: Compression = UNCOMPRESSED,
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
        self.clock = Clock()
        machines = 1 if cluster.together else workers
        self._machines = [Processors(self.clock, cluster.cores, cluster.crowding) for _ in range(machines)]
        self._stores = [Thread(processors) for processors in self._machines]
        self.workers = [_Worker(rank, ready=[0] * len(workload.buckets)) for rank in range(workers)]
        self.steps = steps
        self.lead = 0
        self._done = self._slowest = 0
        self._at_step: dict[int, int] = defaultdict(int, {0: workers})
        self._begun: float | None = None
        self._ended = 0.0
        self._random = random.Random(seed)

    def processors(self, machine: int) -> Processors:
        """Of the machine of a worker, or of the server of that number, which shares it."""
        return self._machines[machine % len(self._machines)]

    def store(self, machine: int) -> Thread:
        """Of the machine of a worker or server."""
        return self._stores[machine % len(self._stores)]

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
        self._forward(worker)

    def _forward(self, worker: _Worker) -> None:
        worker.waiting = min(worker.ready) < worker.step  # values are looked at once all are there
        if worker.waiting:
            return
        update = self._exchange.update_seconds if worker.step else 0.0
        seconds = sum(bucket.forward for bucket in self.workload.buckets) * worker.slowness + update
        worker.bucket = len(self.workload.buckets) - 1
        self._compute(worker, seconds, lambda: self._backward(worker))

    def _compute(self, worker: _Worker, seconds: float, then: Callable[[], None]) -> None:
        self.processors(worker.rank).run(seconds, then, self.cluster.threads, computing=True)

    def _backward(self, worker: _Worker) -> None:
        seconds = self.workload.buckets[worker.bucket].backward * worker.slowness
        self._compute(worker, seconds, lambda: self._after_backward(worker, worker.bucket))

    def _after_backward(self, worker: _Worker, bucket: int) -> None:
        self._exchange.send(worker.rank, bucket, worker.step)
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
        if worker.waiting:
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
    """A parameter server."""

    def __init__(self, run: _Run, servers: int, bound: float) -> None:
        self._run, self._bound = run, bound
        self._pieces = _pieces(run.workload.buckets, servers)
        self._sizes = {(bucket, at): size for bucket, parts in enumerate(self._pieces) for at, size in parts}
        self._out = [Link() for _ in run.workers]
        self._in = [Link() for _ in run.workers]
        apart = run.cluster.servers_apart
        self._server_out = [Link() if apart or at >= len(self._out) else self._out[at] for at in range(servers)]
        self._server_in = [Link() if apart or at >= len(self._in) else self._in[at] for at in range(servers)]
        self._servers = [Thread(self._server_processors(at)) for at in range(servers)]
        self._sending = [Thread(run.processors(worker.rank)) for worker in run.workers]
        self._receiving = [Thread(run.processors(worker.rank)) for worker in run.workers]
        self._counted: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self._version: dict[tuple[int, int], int] = defaultdict(int)  # how many steps all have been counted for
        self._asked: dict[tuple[int, int], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # by clock
        self._missing: dict[tuple[int, int, int], int] = {}
        packing, costs = run.compression, run.cluster.messages
        self._push_costs = {piece: costs.at(size * packing.push) for piece, size in self._sizes.items()}
        self._pull_costs = {piece: costs.at(size * packing.pull) for piece, size in self._sizes.items()}
        self.bytes_per_step = run.workload.bytes * (run.compression.push + run.compression.pull)

    update_seconds = 0.0  # of a worker: servers do it

    def _server_processors(self, server: int) -> Processors:
        cluster = self._run.cluster
        if cluster.servers_apart and not cluster.together:
            return Processors(self._run.clock, cluster.cores, cluster.crowding)
        return self._run.processors(server)

    def send(self, rank: int, bucket: int, step: int) -> None:
        """A worker's gradient sets out, and asks for the values of the step after."""
        self._missing[rank, bucket, step + 1] = len(self._pieces[bucket])
        for server, size in self._pieces[bucket]:
            self._push(rank, bucket, step, server, size)

    def _push(self, rank: int, bucket: int, step: int, server: int, size: float) -> None:
        run, packing = self._run, self._run.compression
        links = None if self._same_machine(rank, server) else (self._out[rank], self._server_in[server])
        in_worker, _, in_store = self._push_costs[bucket, server]
        counting = self._counting(rank, bucket, step, server, size)
        self._sending[rank].run(
            size * packing.seconds_per_byte + in_worker / 2,
            lambda: run.store(rank).run(in_store / 2, lambda: self._travel(size * packing.push, links, counting)),
        )

    def _same_machine(self, rank: int, server: int) -> bool:
        cluster = self._run.cluster
        return cluster.together or (rank == server and not cluster.servers_apart)

    def _travel(self, size: float, links: tuple[Link, Link] | None, then: Callable[[], None]) -> None:
        run, cluster = self._run, self._run.cluster
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
        cluster = self._run.cluster
        _, in_server, _ = self._push_costs[bucket, server]
        update = size * cluster.update_seconds_per_byte if self._bound else 0.0  # in sync when all have come
        seconds = cluster.message_seconds + in_server / 2 + update
        return lambda: self._servers[server].run(seconds, lambda: self._count(rank, bucket, step, server))

    def _count(self, rank: int, bucket: int, step: int, server: int) -> None:
        piece = bucket, server
        counted = self._counted[piece]
        counted[step] += 1
        self._asked[piece][step + 1].append(rank)
        update = 0.0
        while counted[self._version[piece]] == len(self._run.workers):
            del counted[self._version[piece]]
            self._version[piece] += 1
            update += 0.0 if self._bound else self._sizes[piece] * self._run.cluster.update_seconds_per_byte
        if update:
            self._servers[server].run(update, lambda: self._answer_all(bucket, server))
        else:
            self._answer_all(bucket, server)

    def _answer_all(self, bucket: int, server: int) -> None:
        piece = bucket, server
        allowed = self._version[piece] + self._bound  # values for clock c need c - s steps of all
        asked = self._asked[piece]
        for clock in sorted(clock for clock in asked if clock <= allowed):
            for who in asked.pop(clock):
                self._answer(who, bucket, clock, server)

    def _answer(self, rank: int, bucket: int, clock: int, server: int) -> None:
        run = self._run
        pull = self._sizes[bucket, server] * run.compression.pull
        links = None if self._same_machine(rank, server) else (self._server_out[server], self._in[rank])
        in_worker, in_server, in_store = self._pull_costs[bucket, server]

        def arrived() -> None:
            self._receiving[rank].run(in_worker / 2, lambda: self._pulled(rank, bucket, clock))

        def sent() -> None:
            run.store(server).run(in_store / 2, lambda: self._travel(pull, links, arrived))

        self._servers[server].run(in_server / 2, sent)

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
        self._reduced: dict[tuple[int, int], int] = defaultdict(int)
        self._network = Link()
        self._rings = [Thread(run.processors(worker.rank)) for worker in run.workers]
        workers = len(run.workers)
        self._parts = 2 * (workers - 1) / workers  # of a bucket's bytes that a worker sends
        self.bytes_per_step = 2 * run.workload.bytes * self._parts * run.compression.push
        self.update_seconds = run.workload.bytes * run.cluster.update_seconds_per_byte

    def send(self, rank: int, bucket: int, step: int) -> None:
        """A worker has its gradient of a bucket."""
        run = self._run
        self._ready[bucket, step] += 1
        if self._ready[bucket, step] < len(run.workers):
            return
        del self._ready[bucket, step]
        through = self._network.take(run.clock.now, self._seconds(bucket))
        run.clock.at(through, lambda: self._compute(bucket, step))

    def _compute(self, bucket: int, step: int) -> None:
        """What a bucket's ring costs processors; two workers send all bytes once, which `ring` was measured with."""
        run = self._run
        if self._parts == 0:
            self._arrive(bucket, step + 1)
            return
        call, byte = run.cluster.ring
        reduced_bucket = run.workload.buckets[bucket]
        seconds = reduced_bucket.blobs * call + reduced_bucket.bytes * byte * self._parts

        def reduced() -> None:
            self._reduced[bucket, step] += 1
            if self._reduced[bucket, step] == len(run.workers):
                del self._reduced[bucket, step]
                self._arrive(bucket, step + 1)

        for ring in self._rings:
            ring.run(seconds, reduced)

    def _seconds(self, bucket: int) -> float:
        run, cluster, workers = self._run, self._run.cluster, len(self._run.workers)
        blobs = run.workload.buckets[bucket].blobs
        transfer = run.workload.buckets[bucket].bytes * run.compression.push / cluster.bandwidth
        levels = math.ceil(math.log2(workers))
        if self._tree:
            return 2 * levels * (blobs * cluster.latency + transfer)
        ring = 2 * (workers - 1) * (blobs * cluster.latency + transfer / workers)
        # Two trees, in which those that are leaves in one are not in the other, fill every link both ways.
        return min(ring, 2 * (levels * blobs * cluster.latency + transfer)) if cluster.trees else ring

    def _arrive(self, bucket: int, step: int) -> None:
        for worker in self._run.workers:
            self._run.arrived(worker.rank, bucket, step)


def _pieces(buckets: Sequence[Bucket], servers: int) -> list[list[tuple[int, float]]]:
    """Of each bucket: the servers that hold a part of it, and how many bytes, as pycaffe cuts parameters."""
    layers = [(at, size) for at, bucket in enumerate(buckets) for size in bucket.layers or (bucket.bytes,)]
    held: list[dict[int, float]] = [defaultdict(float) for _ in buckets]
    for piece in cut_into_pieces([max(1, round(size / 4)) for _, size in layers], servers):
        held[layers[piece.parameter][0]][piece.server] += 4.0 * piece.size
    return [list(parts.items()) for parts in held]
