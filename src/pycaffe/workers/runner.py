"""What a worker does with a batch: preprocess, forward, postprocess, one answer an item. No process, no pipe.

    items ─ prepare ─→ Prepared: inputs by shape, on their way to a GPU ─ finish ─→ BatchDone

Two threads may do these two with two batches at a time; see `worker.py`.
"""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.engines.tensor_value import TensorValue
from pycaffe.errors import InputError, NetError
from pycaffe.images import ImagePreprocess
from pycaffe.net import TEST, Net
from pycaffe.workers.extents import is_out_of_memory, pieces
from pycaffe.workers.messages import BatchDone, ItemDone, Settings, Timing, picklable_error
from pycaffe.workers.staging import CudaLink, Link, Staging, Transfer
from pycaffe.workers.with_context import WithContext

__all__ = ["Entry", "Prepared", "Runner"]

Inputs = dict[str, npt.NDArray[np.float32]]
Outputs = dict[str, npt.NDArray[np.float32]]
Begin = Callable[[tuple[int, ...]], None]


class Entry(NamedTuple):
    """An item that is preprocessed: its number, inputs without the batch axis, seconds so far, and its context."""

    number: int
    inputs: Inputs
    seconds: float
    context: WithContext | None


def _tell_nobody(numbers: tuple[int, ...]) -> None:
    pass


@dataclass
class Prepared:
    """A batch whose inputs are there.

    groups: items whose inputs have the same shapes. staged: the inputs of each group that is on its way to the device.
    done: the items that failed already.
    """

    groups: list[list[Entry]] = field(default_factory=list)
    staged: list[dict[str, Transfer] | None] = field(default_factory=list)
    done: list[ItemDone] = field(default_factory=list)


class Runner:
    """A net that is loaded once, and the settings of its pool.

    On a GPU the net runs on torch: its inputs arrive from pinned memory, and values stay there between layers.

    Args:
        settings: of the pool.
        link: the way to the device; None for that of `settings.device`.

    Attributes:
        activations: bytes of the bottoms and tops of the layer that has the most of them, for one item.
        batch_limit: the most items of one forward: less than the pool's batch size once its device had no memory
            for more, 1 where the net mixes items.

    Raises:
        ProtoError, NetError, WeightsError: the net cannot be loaded.
        InputError: `outputs` names a blob that the net does not have, or the net has no input.
        DeviceError: the device is not there.
    """

    def __init__(self, settings: Settings, link: Link | None = None) -> None:
        if link is None and settings.device != "cpu":
            link = CudaLink(settings.device)
        self._staging = Staging(link) if link is not None else None
        load = functools.partial(
            Net,
            settings.model,
            TEST,
            weights=settings.weights,
            engine="torch" if link is not None else None,
            device=settings.device,
            threads=settings.threads,
        )
        self.net = load(precision=settings.precision if settings.calibration is None else "float32")
        self.inputs = tuple(self.net.inputs)
        if not self.inputs:
            raise InputError(
                f"The net in {settings.model!r} has no inputs: it reads its own data. Use the deploy form of the net."
            )
        self.outputs = settings.outputs if settings.outputs is not None else tuple(self.net.outputs)
        for name in self.outputs:
            if name not in self.net.blobs:
                raise InputError(f"Unknown blob name {name!r}. The net has {list(self.net.blobs)!r}.")
        self.preprocess = settings.preprocess
        self.postprocess = settings.postprocess
        if settings.calibration is not None:
            samples = [self._inputs(item)[0] for item in settings.calibration]
            self.net = load(precision=settings.precision, calibration=samples)
        self.batch_limit = settings.batch_size
        self.activations = self._activations()
        self._begin: Begin = _tell_nobody

    def run(self, numbers: list[int], values: list[Any], begin: Begin = _tell_nobody) -> BatchDone:
        """One answer for each item, in any order.

        `begin` is told which items are worked on next.
        """
        return self.finish(self.prepare(numbers, values, begin), begin)

    @property
    def overlaps(self) -> bool:
        """Whether it pays to prepare a batch while another runs: its device is not what prepares."""
        return self._staging is not None

    def prepare(self, numbers: list[int], values: list[Any], begin: Begin = _tell_nobody) -> Prepared:
        """The first half: preprocessing, and the way to the device."""
        prepared = Prepared()
        together: dict[Any, list[Entry]] = defaultdict(list)
        for number, value in zip(numbers, values):
            begin((number,))
            start = time.perf_counter()
            try:
                inputs, context = self._inputs(value)
            except (Exception, SystemExit) as error:  # whatever the user's function raises belongs to this item
                error_of = ItemDone(number, None, picklable_error(error), time.perf_counter() - start)
                prepared.done.append(error_of)
            else:
                shapes = tuple([(name, array.shape) for name, array in inputs.items()])
                together[shapes].append(Entry(number, inputs, time.perf_counter() - start, context))
        prepared.groups = list(together.values())
        prepared.staged = [self._stage(group) for group in prepared.groups]
        return prepared

    def finish(self, prepared: Prepared, begin: Begin = _tell_nobody) -> BatchDone:
        """The second half: forward and postprocessing."""
        self._begin = begin
        done = prepared.done
        if len(prepared.groups) == 1 and self.postprocess is None and self._is_whole(prepared.groups[0]):
            answer = self._run_whole(prepared.groups[0], prepared.staged[0], done)
            if answer is not None:
                return answer
            prepared.staged[0] = None
        for group, staged in zip(prepared.groups, prepared.staged):
            self._run_group(group, done, staged)
        return BatchDone([], {}, done, Timing(0, 0.0, self.batch_limit))

    def _is_whole(self, group: list[Entry]) -> bool:
        """Whether it goes through one forward."""
        return pieces(len(group), self.batch_limit) == [len(group)]

    # -- preprocessing

    def _stage(self, group: list[Entry]) -> dict[str, Transfer] | None:
        if self._staging is None or not self._is_whole(group):
            return None
        try:
            return self._staging.begin([entry.inputs for entry in group])
        except Exception as error:
            if is_out_of_memory(error):  # its forward will see to that
                return None
            raise

    def _inputs(self, item: Any) -> tuple[Inputs, WithContext | None]:
        """The input blobs of one item, without the batch axis, and what came with them."""
        context = None
        if self.preprocess is not None:
            item = self.preprocess(item)
            if isinstance(item, WithContext):
                context, item = item, item.inputs
        elif not isinstance(item, dict):
            item = self._fitting_preprocess(item)
        values = item if isinstance(item, dict) else {self._single_input(): item}
        if values.keys() != set(self.inputs):
            raise InputError(f"Expected values for the inputs {list(self.inputs)!r}. Got {sorted(map(str, values))!r}.")
        return {name: np.asarray(values[name], np.float32) for name in self.inputs}, context

    def _single_input(self) -> str:
        if len(self.inputs) != 1:
            raise InputError(
                f"The net has several inputs, {list(self.inputs)!r}: an item has to become a dict of arrays."
            )
        return self.inputs[0]

    @functools.cached_property
    def _fitting_preprocess(self) -> ImagePreprocess:
        """Images stretched to the size of the net's only input, no mean, since only the user knows one."""
        shape = self.net.blobs[self._single_input()].shape
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise InputError(f"The input has shape {shape!r}, which is not that of images: give `preprocess`.")
        return ImagePreprocess(mean=None, resize=(shape[2], shape[3]), grey=shape[1] == 1)

    # -- forward

    def _run_whole(
        self, group: list[Entry], staged: dict[str, Transfer] | None, done: list[ItemDone]
    ) -> BatchDone | None:
        """The usual case: all in one forward, whose blobs are handed over as they are. None if it fails."""
        start = time.perf_counter()
        try:
            outputs = self._forward(group, staged)
        except (Exception, SystemExit) as error:
            self._lower_limit(error, len(group))
            return None
        seconds = time.perf_counter() - start
        share = seconds / len(group)
        rows = [(entry.number, entry.seconds + share) for entry in group]
        if len(group) == 1:
            outputs = {name: _as_row(array) for name, array in outputs.items()}
        return BatchDone(rows, outputs, done, Timing(len(group), seconds, self.batch_limit))

    def _run_group(self, group: list[Entry], done: list[ItemDone], staged: dict[str, Transfer] | None = None) -> None:
        """Items whose inputs have the same shapes, in as few forwards as possible."""
        while group:
            extent = pieces(len(group), self.batch_limit)[0]
            all_of_it = extent == len(group)
            piece, group = group[:extent], group[extent:]
            start = time.perf_counter()
            try:
                outputs = self._forward(piece, staged if all_of_it else None)
            except (Exception, SystemExit) as error:  # Python layers are users' code, too
                self._begin_alone_or_fail(piece, error, time.perf_counter() - start, done)
                continue
            finally:
                staged = None  # what is run again is a part of it
            share = (time.perf_counter() - start) / extent
            for row, entry in enumerate(piece):
                copies = {
                    name: (array[row] if extent > 1 else _as_row(array)[0]).copy() for name, array in outputs.items()
                }
                done.append(self._finish(entry, copies, share))

    def _begin_alone_or_fail(
        self, piece: list[Entry], error: BaseException, seconds: float, done: list[ItemDone]
    ) -> None:
        """After a forward that failed: halves if the device has no memory, else which item it was shows alone."""
        if len(piece) == 1:
            done.append(ItemDone(piece[0].number, None, picklable_error(error), piece[0].seconds + seconds))
        elif self._lower_limit(error, len(piece)):
            self._run_group(piece, done)
        else:
            for entry in piece:
                self._run_group([entry], done)
            if isinstance(error, NetError) and all(item.error is None for item in done[-len(piece) :]):
                self.batch_limit = 1  # a layer refuses other extents, and will again

    def _lower_limit(self, error: BaseException, extent: int) -> bool:
        if extent > 1 and is_out_of_memory(error):
            self.batch_limit = max(1, extent // 2)
            return True
        return False

    def _finish(self, entry: Entry, outputs: Outputs, share: float) -> ItemDone:
        """The item's answer, after its `share` of a forward."""
        seconds = entry.seconds + share
        if self.postprocess is None:
            return ItemDone(entry.number, outputs, None, seconds)
        self._begin((entry.number,))
        start = time.perf_counter()
        arguments = () if entry.context is None else (entry.context.context,)
        try:
            finished = self.postprocess(outputs, *arguments)
        except (Exception, SystemExit) as error:
            return ItemDone(entry.number, None, picklable_error(error), seconds + time.perf_counter() - start)
        return ItemDone(entry.number, finished, None, seconds + time.perf_counter() - start)

    def _forward(self, items: list[Entry], staged: dict[str, Transfer] | None = None) -> Outputs:
        """Runs the net on items as one batch; live views of the wanted blobs.

        Raises:
            NetError: an output does not have one row an item (a detector's list of boxes; a batch's mean loss).
        """
        self._begin(tuple([entry.number for entry in items]))
        for name in self.inputs:
            blob, extent = self.net.blobs[name], items[0].inputs[name].shape
            if blob.shape != (len(items), *extent):
                blob.reshape(len(items), *extent)
            if staged is not None:
                TensorValue(blob.data_storage, staged[name].arrived()).hand_over()
                continue
            data = blob.data
            for row, entry in enumerate(items):
                data[row] = entry.inputs[name]
        self.net.forward()
        outputs = {name: self.net.blobs[name].data for name in self.outputs}
        if len(items) > 1:
            for name, array in outputs.items():
                if array.shape[:1] != (len(items),):
                    self.batch_limit = 1  # it will not be different for the next batch
                    raise NetError(
                        f"Blob {name!r} of shape {array.shape!r} has not one row for each of {len(items)} items."
                    )
        return outputs

    def _activations(self) -> int:
        batch = max(1, *self.net.blobs[self.inputs[0]].shape[:1])
        sizes = {name: math.prod(blob.shape) * 4 // batch for name, blob in self.net.blobs.items()}
        bottoms, tops = self.net.bottom_names, self.net.top_names
        return max(sum(sizes[name] for name in {*bottoms[layer], *tops[layer]}) for layer in tops)


def _as_row(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """An output of a forward of one item as the only row of a batch: it may have no batch axis, or one of its own."""
    return array if array.ndim and len(array) == 1 else array[np.newaxis]
