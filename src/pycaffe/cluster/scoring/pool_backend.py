"""The pool's workers on a Ray cluster: a thin shell around the same state machine as for processes.

    PoolState ⇄ Driver ─ send ─→ RayWorker ─ actor call ─→ ScoringWorker: Runner
                  ▲                  ▲                          │
                  └────── wake ──────┴──── future of the call ──┘

Each worker is an actor, on the node that Ray chooses. A message travels as bytes that pool and worker pack and unpack
themselves, so that what a user's object does there is told apart from what happens to the cluster. An actor that is
gone, with its node or by itself, is a dead worker; the state machine knows the rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.cluster.connection import (
    Connection,
    check_nodes,
    connect,
    full_store,
    full_store_errors,
    load_ray,
    look_here,
    unfit,
)
from pycaffe.cluster.scoring.node_files import NodeFile, offer, path_here
from pycaffe.errors import ClusterError
from pycaffe.workers.messages import BatchDone, Failed, Ready, RunBatch, Settings, Unreadable, picklable_error
from pycaffe.workers.runner import Runner
from pycaffe.workers.transport import Transport

__all__ = ["PoolCluster", "RaySource", "RayWorker", "ScoringWorker"]

Packed = npt.NDArray[np.uint8]


class PoolCluster:
    """The cluster of one pool.

    Args:
        address: see `connect`.
        workers: that the pool wants; None for as many as the cluster has CPUs.
        threads: CPUs of each of them.

    Attributes:
        cores: workers that the cluster's CPUs are enough for.
        gpus: of all its nodes.

    Raises:
        MissingExtra, ClusterError: see `connect` and `check_nodes`; or no node has so many CPUs.
    """

    def __init__(self, address: str | None, workers: int | None, threads: int) -> None:
        self.connection = connection = connect(address, cpus=(workers or 1) * threads)
        if not connection.started:
            check_nodes(connection)
        nodes = [node["Resources"] for node in connection.ray.nodes() if node["Alive"]]
        self.cores = sum(int(node.get("CPU", 0)) // threads for node in nodes)
        self.gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if not self.cores:
            raise ClusterError(
                f"No node of the Ray cluster at {connection.address!r} has {threads} CPU(s) for a worker. "
                "`ray start --address=… --num-cpus=N` adds one that has."
            )

    def source(self, settings: Settings, wake: Callable[[], None]) -> RaySource:
        """Starts the pool's workers; `wake` is called where one has something to say."""
        return RaySource(self.connection, settings, wake)


class RaySource:
    """Starts actors; see `WorkerSource`. Closes the connection."""

    def __init__(self, connection: Connection, settings: Settings, wake: Callable[[], None]) -> None:
        self._connection, self._settings, self._wake = connection, settings, wake
        ray = connection.ray
        paths = [settings.model, *([settings.weights] if settings.weights is not None else [])]
        self._files = [offer(ray, path, travels=not connection.started) for path in paths]
        self._actor = ray.remote(max_restarts=0, max_task_retries=0)(ScoringWorker)
        self._versions = look_here().versions

    def start(self, number: int, device: str) -> RayWorker:
        """A new worker; see `WorkerSource`. Ray shows a worker on a GPU that GPU alone, so that it is its first."""
        gpu = device != "cpu"
        settings = dataclasses.replace(self._settings, device="cuda:0" if gpu else "cpu")
        actor = self._actor.options(num_cpus=settings.threads, num_gpus=int(gpu), scheduling_strategy="SPREAD").remote()
        return RayWorker(self._connection.ray, actor, self._wake, settings, self._versions, self._files)

    def close(self) -> None:
        """Leaves the cluster, and drops the files' bytes."""
        self._files = []
        self._connection.close()


class RayWorker:
    """An actor, seen from its pool; see `WorkerHandle`.

    Answers arrive in Ray's thread, which wakes the pool's; there is nothing to wait for by a descriptor.
    """

    waitables: tuple[Any, ...] = ()

    def __init__(
        self,
        ray: Any,
        actor: Any,
        wake: Callable[[], None],
        settings: Settings,
        versions: Mapping[str, str],
        files: list[NodeFile],
    ) -> None:
        self._ray, self._actor, self._wake = ray, actor, wake
        self._transport = Transport()
        self._calls: deque[tuple[Any, Future[Any]]] = deque()  # with what keeps Ray from forgetting them
        self._cause = "the end of its actor"
        self._loaded = False
        self.pid: int | None = None
        node = ray.get_runtime_context().get_node_id()
        packed = _packed(self._transport, settings)
        self._expect(actor.load.remote(sys.path, os.getcwd(), dict(versions), packed, files, node))

    def send(self, message: object) -> None:
        data = _packed(self._transport, message)
        try:
            self._expect(self._actor.run.remote(data))
        except full_store_errors(self._ray) as error:
            raise full_store("a batch", error) from error

    def receive(self) -> tuple[list[Any], bool]:
        messages: list[Any] = []
        while self._calls and self._calls[0][1].done():
            _, future = self._calls.popleft()
            try:
                messages.append(self._unpacked(future.result()))
            except self._ray.exceptions.RayTaskError as error:  # the actor lives; its answer found no room, perhaps
                reason = ClusterError(f"Ray could not run a batch: {error.cause or error}")
                messages.append(Unreadable(reason) if self._loaded else Failed(reason))
            except self._ray.exceptions.RayError as error:
                # Also where the actor may live on, behind a line that is cut: its answers do not count any more.
                self._cause = _cause(str(error))
                self.kill()
                return messages, True
        return messages, False

    def kill(self) -> None:
        self._ray.kill(self._actor, no_restart=True)

    def cause_of_death(self) -> str:
        return self._cause

    def ask_to_end(self) -> None:
        if self._ray.is_initialized():
            self.kill()

    def end(self) -> None:
        self.ask_to_end()
        self._calls.clear()

    def _expect(self, reference: Any) -> None:
        future = reference.future()
        self._calls.append((reference, future))
        future.add_done_callback(lambda _: self._wake())

    def _unpacked(self, data: Packed) -> Any:
        try:
            message = self._transport.unpack(data.data)
        except (Exception, SystemExit) as error:  # what `postprocess` returned: it may do anything
            return Unreadable(picklable_error(error))
        if isinstance(message, Ready):
            self._loaded = True
            self.pid = message.pid
        return message


class ScoringWorker:
    """The actor: a net, in a process of Ray's."""

    def __init__(self) -> None:
        self._transport = Transport()
        self._runner: Runner

    def load(
        self,
        modules: list[str],
        folder: str,
        versions: dict[str, str],
        settings: Packed,
        files: list[NodeFile],
        pool_node: str,
    ) -> Packed:
        """Loads the net; Ready or Failed, packed.

        Args:
            modules: where the pool's process finds modules; users' functions may come from there.
            folder: where that process is: items that are relative paths start there, if this node has it.
            versions: of the pool's process.
            settings: packed.
            files: the prototxt, and the weights if there are any.
            pool_node: the node of the pool's process; another one's process numbers say nothing there.
        """
        try:
            sys.path.extend(folder for folder in modules if folder not in sys.path)
            with contextlib.suppress(OSError):
                os.chdir(folder)
            self._load(versions, self._transport.unpack(settings.data), files)
        except (Exception, SystemExit) as error:  # unpickling a function may import a user's module: it may do anything
            return _packed(self._transport, Failed(picklable_error(error)))
        here = load_ray().get_runtime_context().get_node_id() == pool_node
        return _packed(self._transport, Ready(os.getpid() if here else None, self._runner.activations))

    def _load(self, versions: dict[str, str], settings: Settings, files: list[NodeFile]) -> None:
        if reason := unfit(look_here(), versions):
            raise ClusterError(reason)
        model, weights = [*(path_here(load_ray(), file) for file in files), None][:2]
        self._runner = Runner(dataclasses.replace(settings, model=str(model), weights=weights))

    def run(self, data: Packed) -> Packed:
        """One batch; BatchDone or Unreadable, packed."""
        try:
            batch: RunBatch = self._transport.unpack(data.data)
            done: BatchDone = self._runner.run(batch.numbers, batch.values)
            return _packed(self._transport, done)
        except (Exception, SystemExit) as error:  # a user's object, as it is unpickled or pickled
            return _packed(self._transport, Unreadable(picklable_error(error)))


def _packed(transport: Transport, message: object) -> Packed:
    """As an array, which Ray neither pickles nor, where it is small, puts into the object store."""
    return np.frombuffer(b"".join(transport.pack(message)), np.uint8)


def _cause(told: str) -> str:
    """What an actor died of, in the pool's words; Ray tells a signal from `os._exit` only sometimes."""
    if status := re.search(r"exit code (\d+)", told):
        return f"exit status {status[1]}"
    if "ray.kill" in told:
        return "SIGKILL"
    if re.search(r"\bnode\b.*\b(died|dead|terminated|removed)|node is dead", told, re.IGNORECASE | re.DOTALL):
        return "its node"
    return "a signal or os._exit (Ray does not say which)"
