"""`pycaffe.cluster.map_dataset`: a net over data that no single machine lists, on Ray Data.

    Parquet, or a folder of images ─ Ray Data reads ahead as far as there is room ─→ actors, between two bounds as
    there is work, each with a Pool of processes ─→ a row for each row, with its outputs or its error ─→ Parquet

The Pool in each actor keeps an item that kills its process from taking others along; Ray would run it again for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from pycaffe.cluster.connection import Connection, check_nodes, connect, load_ray
from pycaffe.cluster.scoring.node_files import NodeFile, offer, path_here
from pycaffe.errors import ClusterError, InputError, MissingExtra
from pycaffe.net import TEST, Net
from pycaffe.threads import available_cores
from pycaffe.workers import Pool

__all__ = ["DatasetScorer", "Mapped", "map_dataset"]

IMAGES = ["bmp", "gif", "jp2", "jpeg", "jpg", "png", "pgm", "ppm", "tif", "tiff", "webp"]
ERROR = "error"
READERS, MOST_READERS = "RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", 32
BLOCKS_IN_FILE = 8  # at least, where there are so many, and they are small
# Blocks wait for their file in the object store, of which Ray Data gives each stage a part: where they need more than
# that, all else stands still for half a minute before it lets a few more rows through.
FILE_BYTES = 16 << 20
Path = str | os.PathLike[str]


class Mapped(NamedTuple):
    """What was written. rows: all of them. errors: those that have an error in place of outputs."""

    out: str
    rows: int
    errors: int


def map_dataset(
    dataset: Path | Any,
    model: Path,
    weights: Path | None = None,
    *,
    out: Path,
    column: str | None = "bytes",
    preprocess: Callable[[Any], Any] | None = None,
    outputs: Iterable[str] | None = None,
    batch_size: int = 32,
    actors: int | tuple[int, int] = (1, 8),
    workers_per_actor: int = 1,
    gpus_per_actor: int = 0,
    retries: int = 2,
    item_timeout: float | None = None,
    address: str | None = None,
) -> Mapped:
    """Runs a net over every row of a dataset, and writes Parquet.

    A row of the result has the columns of the row but the item's own, a list of float32 for each output (an array of
    several axes is flat, the last axis fastest), and `error`: null, or why there are no outputs.

    Args:
        dataset: a folder of Parquet files or of images, a file of either kind, a URI that Ray Data reads, or a
            `ray.data.Dataset`. Images have the columns `bytes` and `path`.
        model: a prototxt.
        weights: a caffemodel; None for a net without parameters.
        out: a folder for the result, or a URI that Ray Data writes. It holds nothing yet.
        column: has the items: encoded images, paths, or arrays. None: an item is a dict of all columns.
        preprocess: see `Pool`.
        outputs: names of the blobs that are written; None for the net's outputs.
        batch_size: rows that an actor takes at once.
        actors: how many; or the least and the most, between which Ray Data starts and ends them as there is work.
        workers_per_actor: processes of each, which share one copy of the weights.
        gpus_per_actor: each of them with its own process in place of those.
        retries: see `Pool`.
        item_timeout: see `Pool`.
        address: of the cluster; see `connect`.

    Raises:
        InputError: an argument makes no sense.
        ProtoError, NetError, WeightsError: the net cannot be loaded.
        MissingExtra: Ray is not installed.
        ClusterError: the cluster cannot be joined, does not reach the data, or cannot go on.
    """
    net = Net(model, TEST, weights=weights)  # what is wrong with it shows before anything starts
    names = list(outputs) if outputs is not None else list(net.outputs)
    for name in names:
        if name not in net.blobs:
            raise InputError(f"Unknown blob name {name!r}. The net has {list(net.blobs)!r}.")
    bounds = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= bounds[0] <= bounds[1]:
        raise InputError(f"actors is a number from 1, or the least and the most. Got {actors!r}.")
    target = os.fspath(out)
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise InputError(f"{target!r} is there already. Remove it, or give another out.")
    arguments: dict[str, Any] = {"batch_size": batch_size, "retries": retries, "item_timeout": item_timeout}
    arguments.update({"gpus": gpus_per_actor} if gpus_per_actor else {"workers": workers_per_actor})
    with connect(address, cpus=bounds[0] * workers_per_actor + 1) as connection, _quiet(), _few_readers(connection):
        ray = connection.ray
        paths = [os.fspath(path) for path in (model, weights) if path is not None]
        files = [offer(ray, path, travels=not connection.started) for path in paths]
        data = _read(connection, dataset)
        if column is not None and column not in data.columns():
            raise InputError(f"The dataset has no column {column!r}. It has {data.columns()!r}.")
        rows = batch_size * 2 * workers_per_actor  # so that the pool's processes have something to share
        size = _bytes_of_row(data, column) + sum(_bytes_of_item(net, name) for name in names)
        blocks = max(1, min(BLOCKS_IN_FILE, FILE_BYTES // (rows * size + 1)))
        # A block is one actor's, and a file of a million paths is one block as Ray Data reads it.
        mapped = data.repartition(target_num_rows_per_block=rows).map_batches(
            DatasetScorer,
            batch_format="pyarrow",
            batch_size=rows,
            compute=_data().ActorPoolStrategy(min_size=bounds[0], max_size=bounds[1]),
            fn_constructor_args=(sys.path, cloudpickle.dumps(preprocess), files, names, column, arguments),
            num_cpus=workers_per_actor,
            num_gpus=gpus_per_actor,
        )
        try:
            mapped.write_parquet(target, min_rows_per_file=rows * blocks)
        except (ray.exceptions.RayError, OSError) as error:
            raise ClusterError(f"The dataset could not be mapped: {_innermost(error)}") from error
        return _counted(target)


class DatasetScorer:
    """What an actor of Ray Data's does: tables in, tables out.

    Args:
        modules: where the user's process finds modules; `preprocess` may come from there.
        preprocess: pickled.
        files: the prototxt, and the weights if there are any.
        outputs: the blobs that are written.
        column: of the items; None for all.
        arguments: of the Pool.
    """

    def __init__(
        self,
        modules: list[str],
        preprocess: bytes,
        files: list[NodeFile],
        outputs: Sequence[str],
        column: str | None,
        arguments: dict[str, Any],
    ) -> None:
        sys.path.extend(folder for folder in modules if folder not in sys.path)
        model, weights = [*(path_here(load_ray(), file) for file in files), None][:2]
        self._outputs, self._column = outputs, column
        self._pool = Pool(
            str(model), weights, outputs=outputs, preprocess=cloudpickle.loads(preprocess), max_wait=0.0, **arguments
        )

    def __call__(self, table: Any) -> Any:
        """A row for each row."""
        import pyarrow

        results = self._pool.map(_items(table, self._column))
        kept = table if self._column is None else table.drop_columns([self._column])
        for name in self._outputs:
            lists = [None if result.outputs is None else np.ravel(result.outputs[name]) for result in results]
            kept = _with_column(kept, name, pyarrow.array(lists, pyarrow.list_(pyarrow.float32())))
        errors = [None if r.error is None else f"{type(r.error).__name__}: {r.error}" for r in results]
        return _with_column(kept, ERROR, pyarrow.array(errors, pyarrow.string()))


def _items(table: Any, column: str | None) -> list[Any]:
    if column is None:
        values = {name: _values(table[name]) for name in table.column_names}
        return [dict(zip(values, row)) for row in zip(*values.values())]
    return _values(table[column])


def _values(column: Any) -> list[Any]:
    """Bytes, strings and numbers as Python has them; lists and tensors as arrays."""
    import pyarrow

    array = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    if isinstance(array, pyarrow.ChunkedArray):  # of no rows, or of more bytes than one array takes
        array = pyarrow.concat_arrays(array.chunks)
    if isinstance(array.type, pyarrow.BaseExtensionType):
        return list(array.to_numpy(zero_copy_only=False))
    values: list[Any] = array.to_pylist()
    return [np.asarray(value) if isinstance(value, list) else value for value in values]


def _with_column(table: Any, name: str, values: Any) -> Any:
    if name in table.column_names:
        raise InputError(f"The dataset has a column {name!r}, which the result has, too. Rename it.")
    return table.append_column(name, values)


# -- Ray Data


def _data() -> Any:
    try:
        import ray.data
    except ImportError as error:
        raise MissingExtra.of("ray[data]", "cluster", "map_dataset") from error
    return ray.data


def _read(connection: Connection, dataset: Path | Any) -> Any:
    """The dataset, lazily.

    Raises:
        InputError: a folder holds neither images nor Parquet.
        ClusterError: a node does not have the path.
    """
    data = _data()
    if not isinstance(dataset, (str, os.PathLike)):
        return dataset
    name = os.fspath(dataset)
    if "://" not in name:
        name = os.path.abspath(name)
        if not os.path.exists(name):
            raise InputError(f"Could not open or find {name!r}, a dataset.")
        check_nodes(connection, [name])
    try:
        if _holds_parquet(name):
            return data.read_parquet(name)
        return data.read_binary_files(name, include_paths=True, file_extensions=IMAGES)
    except (OSError, ValueError) as error:
        raise InputError(f"{name!r} cannot be read as a dataset of images or Parquet: {error}") from error


def _bytes_of_row(data: Any, column: str | None) -> int:
    """Of the first row, without the column that is not kept."""
    first = data.limit(1).iter_batches(batch_format="pyarrow", batch_size=None)
    return sum(table[name].nbytes for table in first for name in table.column_names if name != column)


def _bytes_of_item(net: Net, name: str) -> int:
    """Of an output."""
    blob = net.blobs[name]
    return 4 * blob.count // max(1, blob.shape[0] if blob.shape else 1)


def _holds_parquet(name: str) -> bool:
    if not os.path.isdir(name):
        return name.endswith(".parquet")
    return any(file.endswith(".parquet") for _, _, files in os.walk(name) for file in files[:1])


def _counted(out: str) -> Mapped:
    table = _data().read_parquet(out).select_columns([ERROR])
    rows = errors = 0
    for batch in table.iter_batches(batch_format="pyarrow", batch_size=None):
        rows += batch.num_rows
        errors += batch.num_rows - batch[ERROR].null_count
    return Mapped(out, rows, errors)


def _innermost(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Ray Data's progress bars and plans on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about settings that Ray Data makes itself
        context, logger = _data().DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])


@contextlib.contextmanager
def _few_readers(connection: Connection) -> Iterator[None]:
    """With at most one actor for each CPU that looks into Parquet files first, unless the environment says how many.

    Ray Data starts 32 of them by itself, for the dataset and again for what was written: a minute for two cores.
    """
    if READERS in os.environ:
        yield
        return
    cpus = available_cores() if connection.started else int(connection.ray.cluster_resources().get("CPU", 1))
    os.environ[READERS] = str(max(1, min(cpus, MOST_READERS)))
    try:
        yield
    finally:
        del os.environ[READERS]
