"""What a worker does with a batch: unpickle, preprocess, forward, one answer an item. Knows no process and no pipe."""

from __future__ import annotations

import pickle
import time
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError, NetError
from pycaffe.images import ImagePreprocess
from pycaffe.net import TEST, Net
from pycaffe.workers.messages import ItemDone, Settings, picklable_error

__all__ = ["Runner"]

Inputs = dict[str, npt.NDArray[np.float32]]


class Runner:
    """A net that is loaded once, and the settings of its pool.

    Two batch extents are run, `batch_size` and 1, because the engine keeps a compiled net for each extent: what does
    not fill a batch goes item by item.

    Raises:
        ProtoError, NetError, WeightsError: the net cannot be loaded.
        InputError: `outputs` names a blob that the net does not have, or the net has no input.
    """

    def __init__(self, settings: Settings) -> None:
        self.net = Net(settings.model, TEST, weights=settings.weights, threads=1)
        if not self.net.inputs:
            raise InputError(
                f"The net in {settings.model!r} has no inputs: it reads its own data. Use the deploy form of the net."
            )
        self.outputs = settings.outputs if settings.outputs is not None else tuple(self.net.outputs)
        for name in self.outputs:
            if name not in self.net.blobs:
                raise InputError(f"Unknown blob name {name!r}. The net has {list(self.net.blobs)!r}.")
        self.batch_size = settings.batch_size
        self.preprocess = settings.preprocess

    def run(self, batch: list[tuple[int, bytes]]) -> list[ItemDone]:
        """One answer for each (task number, pickled item), in any order. Never raises."""
        done: list[ItemDone] = []
        together: dict[Any, list[tuple[int, Inputs, float]]] = defaultdict(list)
        for number, payload in batch:
            start = time.perf_counter()
            try:
                inputs = self._inputs(pickle.loads(payload))
            except (Exception, SystemExit) as error:  # whatever the user's function raises belongs to this item
                done.append(ItemDone(number, None, picklable_error(error), time.perf_counter() - start))
            else:
                shapes = tuple((name, array.shape) for name, array in inputs.items())
                together[shapes].append((number, inputs, time.perf_counter() - start))
        for group in together.values():
            done += self._run_group(group)
        return done

    def _inputs(self, item: Any) -> Inputs:
        """The input blobs of one item, without the batch axis."""
        if self.preprocess is not None:
            item = self.preprocess(item)
        elif not isinstance(item, dict):
            self.preprocess = self._fitting_preprocess()
            item = self.preprocess(item)
        values = item if isinstance(item, dict) else {self._single_input(): item}
        if set(values) != set(self.net.inputs):
            raise InputError(f"Expected values for the inputs {self.net.inputs!r}. Got {sorted(map(str, values))!r}.")
        return {name: np.ascontiguousarray(values[name], np.float32) for name in self.net.inputs}

    def _single_input(self) -> str:
        if len(self.net.inputs) != 1:
            raise InputError(
                f"The net has several inputs, {self.net.inputs!r}: an item has to become a dict of arrays."
            )
        return self.net.inputs[0]

    def _fitting_preprocess(self) -> ImagePreprocess:
        """Images stretched to the size of the net's only input, no mean, since only the user knows one."""
        shape = self.net.blobs[self._single_input()].shape
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise InputError(f"The input has shape {shape!r}, which is not that of images: give `preprocess`.")
        return ImagePreprocess(mean=None, resize=(shape[2], shape[3]), grey=shape[1] == 1)

    def _run_group(self, group: list[tuple[int, Inputs, float]]) -> list[ItemDone]:
        """Items whose inputs have the same shapes: at once if they fill a batch, else one by one."""
        if len(group) == self.batch_size > 1:
            start = time.perf_counter()
            try:
                outputs = self._forward([inputs for _, inputs, _ in group])
            except Exception:  # which item it was (or whether the net takes batches at all) shows when they run alone
                outputs = None
            if outputs is not None:
                share = (time.perf_counter() - start) / len(group)
                return [
                    ItemDone(
                        number, {name: array[row].copy() for name, array in outputs.items()}, None, seconds + share
                    )
                    for row, (number, _, seconds) in enumerate(group)
                ]
        return [self._run_alone(*entry) for entry in group]

    def _run_alone(self, number: int, inputs: Inputs, seconds: float) -> ItemDone:
        start = time.perf_counter()
        try:
            outputs = self._forward([inputs])
            rows = {name: array[0] if array.ndim and len(array) == 1 else array for name, array in outputs.items()}
            done = {name: array.copy() for name, array in rows.items()}
        except (Exception, SystemExit) as error:  # Python layers are users' code, too
            return ItemDone(number, None, picklable_error(error), seconds + time.perf_counter() - start)
        return ItemDone(number, done, None, seconds + time.perf_counter() - start)

    def _forward(self, items: list[Inputs]) -> dict[str, npt.NDArray[np.float32]]:
        """Runs the net on items as one batch; live views of the wanted blobs.

        Raises:
            NetError: an output does not have one row an item (a detector's list of boxes; a batch's mean loss).
        """
        for name in self.net.inputs:
            blob, extent = self.net.blobs[name], items[0][name].shape
            if blob.shape != (len(items), *extent):
                blob.reshape(len(items), *extent)
            for row, inputs in enumerate(items):
                blob.data[row] = inputs[name]
        self.net.forward()
        outputs = {name: self.net.blobs[name].data for name in self.outputs}
        if len(items) > 1:
            for name, array in outputs.items():
                if array.shape[:1] != (len(items),):
                    self.batch_size = 1  # it will not be different for the next batch
                    raise NetError(
                        f"Blob {name!r} of shape {array.shape!r} has not one row for each of {len(items)} items."
                    )
        return outputs
