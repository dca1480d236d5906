"""`Pool`: a net in several workers, over any number of items.

    items ─read lazily─→ Driver ⇄ PoolState (pure) ─batches─→ worker: preprocess → forward → postprocess ─┐
                            │  ▲                                                                          │
    Result ←──── owner ─────┘  └──────────────── outputs or error, item by item; deaths; times ───────────┘

The life of one call of `imap_unordered`, in the thread that iterates: read as many items as keep the workers at work;
post them to the driving thread; take results as they arrive; again, until the input is at its end and nothing is
unfinished. A caller who pauses pauses the reading, and nothing piles up.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from typing import Any, Literal

from pycaffe.devices import gpu_count
from pycaffe.errors import InputError, PoolError
from pycaffe.net import TEST
from pycaffe.net.precision import choose_engine
from pycaffe.threads import available_cores
from pycaffe.workers.driver import Driver
from pycaffe.workers.in_process import SequentialSource, ThreadSource
from pycaffe.workers.jobs import Single, Stream
from pycaffe.workers.messages import Settings
from pycaffe.workers.placement import place
from pycaffe.workers.processes import ProcessSource
from pycaffe.workers.result import Result
from pycaffe.workers.state_machine import PoolState
from pycaffe.workers.stats import PoolStats, with_memory, without_memory
from pycaffe.workers.worker_handle import WorkerSource

__all__ = ["Backend", "Pool"]

Backend = Literal["sequential", "thread", "process", "ray"]
BACKENDS = ("sequential", "thread", "process", "ray")
KILLABLE = ("process", "ray")
LARGEST_BATCH = 64  # that a pool tries by itself
READ_SECONDS = 0.005  # a slow input is read for so long before what was read goes on its way


class Pool:
    """Runs a net over items in worker processes.

        with pycaffe.Pool("deploy.prototxt", "weights.caffemodel", workers=4, preprocess=ImagePreprocess()) as pool:
            for result in pool.imap_unordered(paths):
                print(result.item, result.outputs or result.error)

    Each worker loads the net once. Every item ends as exactly one `Result`: an exception is the error of its item, and
    a worker that dies is replaced and its items run again, at last alone, so that an item that kills its worker costs
    no other. All methods may be called from any thread, and several jobs may go on at a time.

    Args:
        model: a prototxt.
        weights: a caffemodel; None for a net without parameters.
        workers: how many; None for one a core, or one a device.
        devices: names ("cuda:0") or numbers of GPUs, one worker each; "all" for all GPUs; None for the CPU.
        gpus: the first so many GPUs.
        backend: "process"; "thread" for threads of this process; "sequential" for the thread that asks, for debugging;
            "ray" for the nodes of a cluster, whose cores and GPUs are then those that are meant here.
        address: with "ray": "host:port" of the cluster's head; None starts Ray on this machine. See `cluster.connect`.
        preprocess: makes of an item the net's only input (C, H, W), or a dict of inputs by blob name, each without the
            batch axis, or a `WithContext` around either. Any callable. None takes a dict as it is, and stretches images
            (path, bytes, H×W×C uint8 array) to the size of the input, with no mean.
        postprocess: makes of an item's outputs (a dict by blob name), and its context if `preprocess` gave one, what
            `Result.outputs` holds. Any callable.
        outputs: names of the blobs that a result holds; None for the net's outputs.
        batch_size: so many items at most go through one forward; None finds a size by trying.
        max_wait: seconds that an item waits for others to fill a batch with.
        retries: an item that ran alone when its worker died is tried so often again.
        item_timeout: seconds that an item may take in a worker before it is given up and the worker replaced.
        max_items_per_worker: a worker is replaced after so many items: for functions that leak.
        threads_per_worker: threads of one forward.
        precision: "float32", or a lower one; see `Net`.
        calibration: for precision "int8", some 20 to 200 items that are like those to come.

    Raises:
        InputError: an argument makes no sense.
        DeviceError: a device is not there.
        MissingExtra: `precision`, or the backend "ray", needs a library that is not installed.
        ClusterError: the cluster cannot be joined, or one of its nodes does not fit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        devices: Sequence[str | int] | str | None = None,
        gpus: int | None = None,
        backend: Backend = "process",
        address: str | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        postprocess: Callable[..., Any] | None = None,
        outputs: Iterable[str] | None = None,
        batch_size: int | None = None,
        max_wait: float = 0.005,
        retries: int = 2,
        item_timeout: float | None = None,
        max_items_per_worker: int | None = None,
        threads_per_worker: int = 1,
        precision: str = "float32",
        calibration: Iterable[Any] | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"Unknown backend {backend!r}. Expected one of {BACKENDS!r}.")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("retries", retries, 0),
            ("max_wait", max_wait, 0),
            ("max_items_per_worker", max_items_per_worker, 1),
            ("threads_per_worker", threads_per_worker, 1),
        ):
            if value is not None and not value >= least:
                raise InputError(f"{name} is at least {least}, not {value!r}.")
        if item_timeout is not None and not item_timeout > 0:
            raise InputError(f"item_timeout is above 0, not {item_timeout!r}.")
        if backend not in KILLABLE and (item_timeout is not None or max_items_per_worker is not None):
            raise InputError(f"item_timeout and max_items_per_worker need backend='process' or 'ray', not {backend!r}.")
        if address is not None and backend != "ray":
            raise InputError(f"address={address!r} needs backend='ray', not {backend!r}.")
        sequential = backend == "sequential"
        if sequential and workers not in (None, 1):
            raise InputError(f"backend='sequential' has one worker, not {workers!r}.")
        cluster = _cluster(address, workers, threads_per_worker) if backend == "ray" else None
        places = place(
            1 if sequential else workers,
            devices,
            gpus,
            cores=cluster.cores if cluster else available_cores(),
            gpus_there=cluster.gpus if cluster else _gpus(devices, gpus),
        )
        _check_precision(precision, calibration is not None, places)
        settings = Settings(
            os.fspath(model),
            os.fspath(weights) if weights is not None else None,
            preprocess,
            postprocess,
            tuple(outputs) if outputs is not None else None,
            batch_size or LARGEST_BATCH,
            threads=threads_per_worker,
            precision=precision,
            calibration=tuple(calibration) if calibration is not None else None,
            tell_steps=item_timeout is not None,
        )
        state = PoolState(
            places,
            batch_size=batch_size,
            max_wait=0.0 if sequential else max_wait,
            retries=retries,
            item_timeout=item_timeout,
            max_items_per_worker=max_items_per_worker,
            depth=1 if sequential else 2,
        )
        self._state = state
        self._driver = driver = Driver(state)
        self._sequential = sequential
        self._turn = threading.RLock()
        self._singles: set[Future[Result]] = set()
        source = cluster.source(settings, driver.wake) if cluster else _source(backend, settings, driver)
        driver.start(source, thread=not sequential)
        # Also where the pool is forgotten, or the interpreter ends.
        self._finalizer = weakref.finalize(self, driver.close)

    # -- jobs

    def map(self, items: Iterable[Any]) -> list[Result]:
        """The results of all items, in order."""
        return sorted(self.imap_unordered(items), key=lambda result: result.index)

    def imap_unordered(self, items: Iterable[Any]) -> Iterator[Result]:
        """The results as they come. Items are read as workers can take them: an endless input is fine.

        Items are read in the thread that iterates. If it stops in the middle, what runs is finished and forgotten.

        Raises:
            PoolError: the pool is closed.
            WorkerDied: the workers die while they load the net.
            ProtoError, NetError, WeightsError: the workers cannot load the net. The pool is closed then.
        """
        self._driver.check_open()
        return self._run(iter(items), ahead=1)

    def imap(self, items: Iterable[Any]) -> Iterator[Result]:
        """The results in order; else as `imap_unordered`. Reads ahead of a slow item by a bounded number of others."""
        self._driver.check_open()
        return self._in_order(iter(items))

    def submit(self, item: Any) -> Future[Result]:
        """A future of one item's result, which holds the item's error where it failed.

        Raises:
            PoolError: the pool is closed.
        """
        single = Single()
        future = single.future
        self._singles.add(future)
        future.add_done_callback(self._singles.discard)
        self._driver.post(lambda state, now: state.add([item], single, now), single)
        while self._sequential and not future.done():
            self._step()
        return future

    def stats(self) -> PoolStats:
        """What the pool and each worker are at.

        Raises:
            PoolError: the pool is closed.
        """
        self._driver.check_open()
        if self._sequential or self._driver.in_driving_thread:
            return with_memory(without_memory(self._state, time.monotonic()))
        asked: Future[PoolStats] = Future()
        self._driver.post(lambda state, now: asked.set_result(without_memory(state, now)))
        while True:
            try:
                return with_memory(asked.result(timeout=1))
            except concurrent.futures.TimeoutError:
                self._driver.check_open()  # it may have been closed before it came to this

    def close(self) -> None:
        """Ends the workers at once. What they were at is lost: whoever waits for it gets a PoolError."""
        self._finalizer()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None and self._finalizer.alive:
            concurrent.futures.wait(list(self._singles))  # as an Executor does
        self.close()

    # -- inside

    def _run(self, items: Iterator[Any], ahead: int, early: Sized = ()) -> Iterator[Result]:
        """Results as they come.

        No more than `ahead` times the pool's capacity is read and not yielded, or yielded and kept in `early`.
        """
        stream = Stream()
        reader = _Reader(items)
        handed_out = 0
        try:
            while True:
                if not reader.exhausted and reader.index - handed_out + len(early) < ahead * self._state.capacity:
                    self._post_next(reader, stream)
                    results = stream.next(wait=False)
                elif reader.index > handed_out:
                    results = self._wait_for(stream)
                else:
                    return
                for result in results:
                    handed_out += 1
                    yield result
        finally:
            self._driver.leave(stream)

    def _post_next(self, reader: _Reader, stream: Stream) -> None:
        index = reader.index
        values = reader.read(self._state.batch_size)
        more = not reader.exhausted
        if values:
            self._driver.post(lambda state, now: state.add(values, stream, now, index=index, more=more), stream)
        elif index:
            self._driver.post(lambda state, now: state.hurry(now))

    def _in_order(self, items: Iterator[Any]) -> Iterator[Result]:
        early: dict[int, Result] = {}
        expected = 0
        for result in self._run(items, 4, early):
            early[result.index] = result
            while expected in early:
                yield early.pop(expected)
                expected += 1

    def _wait_for(self, stream: Stream) -> list[Result]:
        if not self._sequential:
            return stream.next(wait=True)
        while not (results := stream.next(wait=False)):
            self._step()
        return results

    def _step(self) -> None:
        """For a pool without a driving thread."""
        with self._turn:
            try:
                self._driver.step()
            except BaseException as error:
                # Ctrl-C may have come between an answer and its entry in the books; they cannot be trusted any more.
                self._driver.close(PoolError(f"The pool was interrupted by {type(error).__name__}."))
                raise


class _Reader:
    """Reads an iterator in pieces.

    Attributes:
        index: how many items were read.
        exhausted: whether it is at its end.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.index = 0
        self.exhausted = False

    def read(self, most: int) -> list[Any]:
        """Up to `most` items, and from a slow input no longer than READ_SECONDS and one item."""
        values: list[Any] = []
        until = time.monotonic() + READ_SECONDS
        while len(values) < most:
            try:
                values.append(next(self._items))
            except StopIteration:
                self.exhausted = True
                break
            self.index += 1
            if time.monotonic() > until:
                break
        return values


def _gpus(devices: object, gpus: int | None) -> int:
    """The GPUs of this machine; not asked for where nobody wants one."""
    return 0 if devices is None and gpus is None else gpu_count()


def _check_precision(precision: str, calibrated: bool, devices: Sequence[str]) -> None:
    """Here, not when a worker loads the net."""
    if precision == "int8" and not calibrated:
        raise InputError(
            "precision='int8' needs calibration=items: some 20 to 200 items that are like those to come. They are "
            "preprocessed as all items are."
        )
    for device in dict.fromkeys(devices):
        choose_engine("torch" if device != "cpu" else None, precision, calibrated, device, TEST)


def _cluster(address: str | None, workers: int | None, threads: int) -> Any:
    """The other machines, of which this package knows nothing: `pycaffe.cluster` stands above it."""
    return importlib.import_module("pycaffe.cluster.scoring.pool_backend").PoolCluster(address, workers, threads)


def _source(backend: str, settings: Settings, driver: Driver) -> WorkerSource:
    if backend == "sequential":
        return SequentialSource(settings)
    if backend == "thread":
        return ThreadSource(settings, driver.wake)
    return ProcessSource(settings)
