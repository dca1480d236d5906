"""A job over images: the options that `classify`, `detect` and `extract` share, and the run from paths to records.

    paths (lazy) ─ not seen yet ─→ Pool: decode, resize, crop, mean; forward ─→ Row ─→ Sink (--out)
                                                                          └──→ progress, --report

Nothing here grows with the number of images but SeenPaths (25 bytes an image).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import click

from pycaffe.cli._drain import Drain
from pycaffe.cli._identity import Identity, JobFile, identity
from pycaffe.cli._paths import can_be_counted, expand
from pycaffe.cli._progress import Counting, Progress, Workers
from pycaffe.cli._report import Caption, Report
from pycaffe.errors import DeviceError, InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from pycaffe.cli._sinks import Row, SeenPaths, Sink
    from pycaffe.cli._sinks.rows import Column, Values
    from pycaffe.images import ImagePreprocess
    from pycaffe.net import Net
    from pycaffe.workers import Pool, Result

_INPUTS = (
    click.option("--model", required=True, metavar="PROTOTXT", help="The net, in its deploy form."),
    click.option("--weights", required=True, metavar="FILE", help="Its .caffemodel or .caffemodel.h5."),
)
_RUN = (
    click.option("--resume", is_flag=True, help="Go on with what --out holds of this job; failed images run again."),
    click.option(
        "--on-error",
        type=click.Choice(["record", "skip", "stop"]),
        default="record",
        show_default=True,
        help="What a failed image is: a record with its error; none; a record, and the end of the job.",
    ),
    click.option("--report", metavar="FILE.html", help="Write a page of figures, errors and thumbnails at the end."),
    click.option("--workers", type=click.IntRange(1), metavar="N", help="Worker processes.  [default: one a core]"),
    click.option("--gpu", metavar="N,N|all", help="GPUs, one worker each."),
    click.option(
        "--backend",
        type=click.Choice(["process", "thread", "sequential", "ray"]),
        default="process",
        show_default=True,
        help="What workers are: processes, threads, this process itself, or actors on the nodes of a Ray cluster.",
    ),
    click.option("--address", metavar="HOST:PORT", help="The cluster.  [default: Ray is started on this machine]"),
    click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Images a forward.  [default: as measured]"),
    click.option(
        "--retries",
        type=click.IntRange(0),
        metavar="N",
        help="Tries more for an image whose worker dies.  [default: 2]",
    ),
    click.option(
        "--item-timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds an image may take alone."
    ),
    click.argument("paths", nargs=-1, required=True, metavar="PATHS..."),
)


def job_options(formats: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options, for a verb that can write `formats`; their values come as `JobOptions` takes them."""
    *names, last = (".json (COCO's)" if format == "coco" else f".{format}" for format in formats)
    outputs = (
        click.option(
            "--out",
            default="-",
            metavar="FILE",
            help=f"Records, one an image: {', '.join(names)} or {last}.  [default: JSON Lines to standard output]",
        ),
        click.option("--format", type=click.Choice(sorted(formats)), help="Whatever the suffix of --out."),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_INPUTS, *outputs, *_RUN)):
            command = option(command)
        return command

    return add


@dataclass(frozen=True)
class JobOptions:
    """The options' values."""

    model: str
    weights: str
    out: str
    format: str | None
    resume: bool
    on_error: str
    report: str | None
    workers: int | None
    gpu: str | None
    backend: str
    address: str | None
    batch_size: int | None
    retries: int | None
    item_timeout: float | None
    paths: tuple[str, ...]


class JobTable(Protocol):
    """What a verb makes of a net's outputs: a `Table`, and how its rows come about."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """See `Table`."""

    @property
    def formats(self) -> Sequence[str]:
        """See `Table`."""

    def json(self, values: Values) -> str:
        """See `Table`."""

    @property
    def outputs(self) -> list[str]:
        """The blobs that are wanted."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What of the verb's options changes results."""

    def values(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Values:
        """The values of a record, of what the workers give."""

    def caption(self, values: Values) -> Caption | None:
        """What stands below a thumbnail."""


Steps = tuple[Callable[[Any], Any], "Callable[..., Any] | None"]


def open_net(options: JobOptions) -> Net:
    """The net with its weights, to look at: what is wrong with it shows before any process starts.

    Raises:
        ProtoError, NetError, WeightsError: it cannot be loaded.
        click.UsageError: the weights are another net's.
    """
    import warnings

    from pycaffe.net import TEST, Net

    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*nothing was copied", UserWarning)
        try:
            return Net(options.model, TEST, weights=options.weights)
        except UserWarning as error:
            raise click.UsageError(f"{error} Give the weights of this net.") from error


def run_job(
    verb: str, options: JobOptions, images: ImagePreprocess, table: JobTable, steps: Steps | None = None
) -> int:
    """Runs a job from its paths to its records; returns the exit status.

    Args:
        verb: whose job it is.
        options: of the command line.
        images: how images become inputs.
        table: what becomes of the outputs.
        steps: the workers' preprocess and postprocess, where that is more than `images`.

    Raises:
        click.UsageError: the job cannot be carried out; nothing was written.
        PoolError, NetError, WeightsError: the workers cannot load the net.
        OSError: a record cannot be written. The file holds whole records.
    """
    from pycaffe.cli._image_options import settings_of
    from pycaffe.cli._sinks import SeenPaths, format_of, is_file, open_sink

    paths = expand(options.paths)
    format = format_of(options.out, options.format, table.formats)
    devices = _devices(options.gpu, options.backend)
    if options.address is not None and options.backend != "ray":
        raise click.UsageError("--address needs --backend ray.")
    _check_folder(options.report)
    if options.resume and not is_file(options.out):
        raise click.UsageError(f"--resume goes on with a file, and {options.out!r} is none. Give --out FILE.")
    with contextlib.ExitStack() as stack:
        job_file = stack.enter_context(JobFile(options.out)) if is_file(options.out) else None
        sink = open_sink(options.out, format, table)
        seen = SeenPaths()
        complete = False
        try:
            held = 0
            if job_file is not None:
                settings = {**settings_of(images), **table.settings}
                job = identity(verb, options.model, options.weights, settings)
                held = _claim(job_file, sink, seen, options, job)
            drain = stack.enter_context(Drain())
            with _open_pool(options, devices, steps or (images, None), table.outputs) as pool:
                run = _Run(options, table, sink, seen, drain, pool, held)
                status = run.run(paths)
            complete = run.read_all
        finally:
            sink.close(complete)
        run.finish(f"caffe {verb}")
    return status


def _claim(job_file: JobFile, sink: Sink, seen: SeenPaths, options: JobOptions, job: Identity) -> int:
    """Makes sure that the file is ours to write; how many good records it holds.

    Raises:
        click.UsageError: it is not.
    """
    if not sink.holds_records():
        job_file.write(job)
        return 0
    if not options.resume:
        raise click.UsageError(
            f"{options.out!r} holds records already. Remove it, give another --out, or go on with --resume."
        )
    job_file.check(job)
    return sink.resume(seen)


class _Run:
    """One run: what it reads, writes and counts.

    Attributes:
        read_all: every path that was named was read, and has its result.
    """

    def __init__(
        self, options: JobOptions, table: JobTable, sink: Sink, seen: SeenPaths, drain: Drain, pool: Pool, held: int
    ) -> None:
        self._options = options
        self._table = table
        self._sink = sink
        self._seen = seen
        self._drain = drain
        self._pool = pool
        self._held = held
        self._progress = Progress(lambda: _look(pool))
        self._report = Report(options.report) if options.report is not None else None
        self.read_all = False

    def run(self, paths: Iterator[str]) -> int:
        """From the first path to the last result; returns the exit status."""
        progress, drain = self._progress, self._drain
        try:
            names = self._options.paths
            counting = Counting(lambda: expand(names), self._set_total)
            with counting if can_be_counted(names) else contextlib.nullcontext():
                for result in self._pool.imap_unordered(self._unseen(paths)):
                    self._enter(result)
            progress.look()
        except KeyboardInterrupt:  # the second signal
            self.read_all = False
            self._report = None
        finally:
            progress.close()
        return drain.status or int(progress.failed > 0)

    def finish(self, title: str) -> None:
        """The table on standard error, and the page."""
        progress = self._progress
        count = len(progress.workers.memory)
        megabytes = f"{progress.peak / 1e6:.0f} MB of its own, {count} workers" if count else "unknown"
        rows = [
            ("images", f"{progress.done}"),
            ("failures", f"{progress.failed}"),
            ("seconds", f"{progress.seconds:.1f}"),
            ("images/s", f"{progress.rate:.1f}"),
            ("restarts", f"{progress.workers.restarts}"),
            ("a worker's memory", megabytes),
        ]
        if self._held:
            rows.insert(0, ("there already", f"{self._held}"))
        click.echo("\n".join(f"{name:<18} {value}" for name, value in rows), err=True)
        if self._report is not None:
            self._report.write(title, [("model", self._options.model), ("weights", self._options.weights), *rows])

    def _unseen(self, paths: Iterator[str]) -> Iterator[str]:
        """Each path once, until the job has to end."""
        count = 0
        for path in paths:
            if self._drain.asked:
                return
            count += 1
            if self._seen.add(path):
                yield path
            else:
                self._progress.skipped += 1
        self._set_total(count)
        self.read_all = True

    def _set_total(self, total: int) -> None:
        self._progress.total = total

    def _enter(self, result: Result) -> None:
        """Writes and counts one result."""
        row, error, caption = self._row(result)
        if error is None or self._options.on_error != "skip":
            self._sink.write(row)
        if error is not None and self._options.on_error == "stop":
            self._drain.ask()
        if self._report is not None:
            self._report.add(row.path, result.seconds, error, caption)
        self._progress.advance(row.path, error)

    def _row(self, result: Result) -> tuple[Row, BaseException | None, Caption | None]:
        from pycaffe.cli._sinks.rows import Row, check_values

        error = result.error
        if result.outputs is not None:
            values = self._table.values(result.outputs)
            wrong = check_values(self._table.columns, values)
            if wrong is None:
                return Row(result.item, values), None, self._table.caption(values)
            error = InputError(wrong)
        return Row(result.item, None, f"{type(error).__name__}: {error}", result.attempts), error, None


@contextlib.contextmanager
def _open_pool(
    options: JobOptions, devices: list[str] | str | None, steps: Steps, outputs: list[str]
) -> Iterator[Pool]:
    from pycaffe.workers import Pool

    asked = {
        "preprocess": steps[0],
        "postprocess": steps[1],
        "workers": options.workers,
        "devices": devices,
        "batch_size": options.batch_size,
        "retries": options.retries,
        "item_timeout": options.item_timeout,
        "address": options.address,
    }
    arguments: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    with contextlib.ExitStack() as stack:
        if options.backend == "ray":
            from pycaffe.cluster.connection import check_nodes, connect

            connection = stack.enter_context(connect(options.address, cpus=options.workers))  # the pool's, too
            check_nodes(connection, (name for name in options.paths if os.path.exists(name)))
        backend: Any = options.backend
        yield stack.enter_context(Pool(options.model, options.weights, outputs=outputs, backend=backend, **arguments))


def _look(pool: Pool) -> Workers:
    workers = pool.stats().workers
    memory = [worker.own_memory for worker in workers if worker.own_memory is not None]
    return Workers(sum(worker.restarts for worker in workers), memory)


def _devices(text: str | None, backend: str) -> list[str] | str | None:
    """`--gpu` as the original's: numbers, or `all`. Which of them a cluster has is the pool's affair.

    Raises:
        DeviceError: this machine has no such GPU.
        click.UsageError: neither.
    """
    from pycaffe.devices import check_device, gpu_count

    if text is None or (text == "all" and backend == "ray"):
        return text
    if text == "all":
        if not gpu_count():
            raise DeviceError("--gpu all: this machine has no GPU. Leave --gpu out to run on the CPU.")
        return [f"cuda:{index}" for index in range(gpu_count())]
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise click.UsageError(f"--gpu takes numbers, as in 0,1, or all, not {text!r}.")
    devices = [f"cuda:{int(number)}" for number in numbers]
    return devices if backend == "ray" else [check_device(device) for device in devices]


def _check_folder(report: str | None) -> None:
    """Raises click.UsageError where the page could not be written at the end of a long job."""
    if report is not None and (os.path.isdir(report) or not os.access(os.path.dirname(report) or ".", os.W_OK)):
        raise click.UsageError(f"Could not write the report {report!r}: no such folder, or it may not be written.")
