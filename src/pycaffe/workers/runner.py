"""What a worker does with a batch: preprocess, forward, postprocess, one answer an item. No process, no pipe."""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError, NetError
from pycaffe.images import ImagePreprocess
from pycaffe.net import TEST, Net
from pycaffe.workers.extents import is_out_of_memory, pieces
from pycaffe.workers.messages import BatchDone, ItemDone, Settings, Timing, picklable_error

__all__ = ["Runner"]

Inputs = dict[str, npt.NDArray[np.float32]]
Outputs = dict[str, npt.NDArray[np.float32]]
Entry = tuple[int, Inputs, float]
"""Item number, inputs without the batch axis, seconds so far."""
Begin = Callable[[tuple[int, ...]], None]


def _tell_nobody(numbers: tuple[int, ...]) -> None:
    pass


class Runner:
    """A net that is loaded once, and the settings of its pool.

    Attributes:
        activations: bytes of the bottoms and tops of the layer that has the most of them, for one item.
        batch_limit: the most items of one forward: less than the pool's batch size once its device had no memory
            for more, 1 where the net mixes items.

    Raises:
        ProtoError, NetError, WeightsError: the net cannot be loaded.
        InputError: `outputs` names a blob that the net does not have, or the net has no input.
        DeviceError: the device is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.net = Net(
            settings.model,
            TEST,
            weights=settings.weights,
            device=settings.device,
            threads=settings.threads,
            precision=settings.precision,
        )
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
        self.batch_limit = settings.batch_size
        self.activations = self._activations()
        self._begin: Begin = _tell_nobody

    def run(self, numbers: list[int], values: list[Any], begin: Begin = _tell_nobody) -> BatchDone:
        """One answer for each item, in any order.

        `begin` is told which items are worked on next.
        """
        self._begin = begin
        done: list[ItemDone] = []
        together: dict[Any, list[Entry]] = defaultdict(list)
        for number, value in zip(numbers, values):
            begin((number,))
            start = time.perf_counter()
            try:
                inputs = self._inputs(value)
            except (Exception, SystemExit) as error:  # whatever the user's function raises belongs to this item
                done.append(ItemDone(number, None, picklable_error(error), time.perf_counter() - start))
            else:
                shapes = tuple([(name, array.shape) for name, array in inputs.items()])
                together[shapes].append((number, inputs, time.perf_counter() - start))
        if len(together) == 1 and self.postprocess is None:
            (group,) = together.values()
            if len(group) <= self.batch_limit and len(pieces(len(group), self.batch_limit)) == 1:
                answer = self._run_whole(group, done)
                if answer is not None:
                    return answer
        for group in together.values():
            self._run_group(group, done)
        return BatchDone([], {}, done, Timing(0, 0.0, self.batch_limit))

    # -- preprocessing

    def _inputs(self, item: Any) -> Inputs:
        """The input blobs of one item, without the batch axis."""
        if self.preprocess is not None:
            item = self.preprocess(item)
        elif not isinstance(item, dict):
            item = self._fitting_preprocess(item)
        values = item if isinstance(item, dict) else {self._single_input(): item}
        if values.keys() != set(self.inputs):
            raise InputError(f"Expected values for the inputs {list(self.inputs)!r}. Got {sorted(map(str, values))!r}.")
        return {name: np.asarray(values[name], np.float32) for name in self.inputs}

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

    def _run_whole(self, group: list[Entry], done: list[ItemDone]) -> BatchDone | None:
        """The usual case: all in one forward, whose blobs are handed over as they are. None if it fails."""
        start = time.perf_counter()
        try:
            outputs = self._forward(group)
        except (Exception, SystemExit) as error:
            self._lower_limit(error, len(group))
            return None
        seconds = time.perf_counter() - start
        share = seconds / len(group)
        rows = [(number, before + share) for number, _, before in group]
        if len(group) == 1:
            outputs = {name: _as_row(array) for name, array in outputs.items()}
        return BatchDone(rows, outputs, done, Timing(len(group), seconds, self.batch_limit))

    def _run_group(self, group: list[Entry], done: list[ItemDone]) -> None:
        """Items whose inputs have the same shapes, in as few forwards as possible."""
        while group:
            extent = pieces(len(group), self.batch_limit)[0]
            piece, group = group[:extent], group[extent:]
            start = time.perf_counter()
            try:
                outputs = self._forward(piece)
            except (Exception, SystemExit) as error:  # Python layers are users' code, too
                self._begin_alone_or_fail(piece, error, time.perf_counter() - start, done)
                continue
            share = (time.perf_counter() - start) / extent
            for row, (number, _, seconds) in enumerate(piece):
                copies = {
                    name: (array[row] if extent > 1 else _as_row(array)[0]).copy() for name, array in outputs.items()
                }
                done.append(self._finish(number, copies, seconds + share))

    def _begin_alone_or_fail(
        self, piece: list[Entry], error: BaseException, seconds: float, done: list[ItemDone]
    ) -> None:
        """After a forward that failed: halves if the device has no memory, else which item it was shows alone."""
        if len(piece) == 1:
            number, _, before = piece[0]
            done.append(ItemDone(number, None, picklable_error(error), before + seconds))
        elif self._lower_limit(error, len(piece)):
            self._run_group(piece, done)
        else:
            for entry in piece:
                self._run_group([entry], done)

    def _lower_limit(self, error: BaseException, extent: int) -> bool:
        if extent > 1 and is_out_of_memory(error):
            self.batch_limit = max(1, extent // 2)
            return True
        return False

    def _finish(self, number: int, outputs: Outputs, seconds: float) -> ItemDone:
        if self.postprocess is None:
            return ItemDone(number, outputs, None, seconds)
        self._begin((number,))
        start = time.perf_counter()
        try:
            finished = self.postprocess(outputs)
        except (Exception, SystemExit) as error:
            return ItemDone(number, None, picklable_error(error), seconds + time.perf_counter() - start)
        return ItemDone(number, finished, None, seconds + time.perf_counter() - start)

    def _forward(self, items: list[Entry]) -> Outputs:
        """Runs the net on items as one batch; live views of the wanted blobs.

        Raises:
            NetError: an output does not have one row an item (a detector's list of boxes; a batch's mean loss).
        """
        self._begin(tuple([number for number, _, _ in items]))
        for name in self.inputs:
            blob, extent = self.net.blobs[name], items[0][1][name].shape
            if blob.shape != (len(items), *extent):
                blob.reshape(len(items), *extent)
            data = blob.data
            for row, (_, inputs, _) in enumerate(items):
                data[row] = inputs[name]
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
