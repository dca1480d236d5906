"""What the readers share: no bottoms, tops that the data shape and not `reshape`, a place that can be saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pycaffe.blob import Blob, Shape
from pycaffe.data.chosen_batches import ChosenBatches
from pycaffe.data.prefetch import BatchSource, Prefetcher
from pycaffe.errors import DataError
from pycaffe.layers._base import HostLayer

__all__ = ["PrefetchingLayer", "ReaderLayer"]


class ReaderLayer(HostLayer):
    """A layer without bottoms. `set_up_blobs` shapes its tops, and `forward_blobs` may shape them anew."""

    exact_num_bottom_blobs = 0

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.bottom_shapes = []
        self.top_shapes = [blob.shape for blob in top]

    def check_batch_size(self, batch_size: int) -> int:
        """The batch size; LayerError where it is not positive."""
        if batch_size <= 0:
            raise self.error(f"Positive batch size required. Got batch_size {batch_size!r}.")
        return batch_size

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`.

        Raises:
            DataError: it is no state of such a layer, or the data have changed and it does not fit them.
        """
        try:
            self.restore_parts(state)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Layer {self.name!r} ({self.type}) cannot go on reading: the saved state does not fit it ({error!r})."
            ) from error

    def restore_parts(self, state: dict[str, Any]) -> None:
        """`restore`, whose errors may be those of looking into a wrong dict."""
        raise NotImplementedError(self.type)


class PrefetchingLayer(ReaderLayer):
    """A reader whose batches are read ahead, `data_param.prefetch` of them (4; 0: none, as they are asked for).

    That is the number's place for all types of readers, as in base_data_layer.cpp. Reading ahead begins with the first
    forward pass. What goes wrong in it is raised by the forward pass that needs the batch; the next one goes on behind.
    """

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        """Opens the source; returns it with the first shape of each top."""
        raise NotImplementedError(self.type)

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        self._source, shapes = self.open_source()
        self._batches = Prefetcher(self._source, self.layer_param.data_param.prefetch)
        for blob, shape in zip(top, shapes):
            blob.reshape(*shape)

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for blob, array in zip(top, self._batches.next()):
            blob.reshape(*array.shape)
            blob.data_storage.put(array)

    def choose(self, numbers: Iterator[int], position: int = 0, state: dict[str, Any] | None = None) -> None:
        """From here on gives only the batches of these numbers, which rise; the one that is due now has `position`.

        `state` then holds `position`, the number of the batch after the last one given, and `source`, the state that a
        reader of all batches has there.

        Args:
            numbers: which batches to give.
            position: the number of the first that may come.
            state: that of a reader of all batches before that one; None for the present one.
        """
        self._batches.restore(self._batches.state())  # what was read ahead comes again
        if state is not None:
            self._source.restore(state)
        chosen = ChosenBatches(self._source, numbers, position)
        self._batches = Prefetcher(chosen, self.layer_param.data_param.prefetch)

    def state_after(self, state: dict[str, Any], count: int) -> dict[str, Any]:
        """The state that follows a `state` by `count` batches, which are passed over. The layer is left there."""
        self._source.restore(state)
        for _ in range(count):
            self._source.skip()
        self._batches.restore(self._source.state())
        return self.state()

    def state(self) -> dict[str, Any]:
        return self._batches.state()

    def restore_parts(self, state: dict[str, Any]) -> None:
        self._batches.restore(state)
