"""DummyData: blobs from fillers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycaffe.blob import Blob, FloatArray, Shape
from pycaffe.filler import filler
from pycaffe.layers._reader import ReaderLayer
from pycaffe.layers._registry import register_layer
from pycaffe.proto import schema
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["DummyDataLayer"]


@register_layer("DummyData")
class DummyDataLayer(ReaderLayer):
    """Fills its tops with a filler: at each forward pass, or once at set-up where the filler is `constant`.

    tops: as many as the prototxt names, each of a `shape` (or the old `num`, `channels`, `height`, `width`), given once
        or once a top.

    dummy_data_param: `data_filler` never (zeros), once, or once a top; `shape`; the old four fields.

    Raises:
        LayerError: another number of fillers or shapes; both kinds of shape; an unknown filler or an empty top.

    As dummy_data_layer.cpp: what a user writes to a top with a constant filler stays there.
    """

    min_top_blobs = 1
    checked_by = "distribution"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        self._fills: dict[int, tuple[Shape, Callable[[FloatArray], None]]] = {}
        self._generators = [child_generator() for _ in top]
        param = self.layer_param.dummy_data_param
        if len(param.data_filler) not in (0, 1, self.num_top):
            raise self.error(
                f"Number of data fillers must be 0, 1 or equal to the number of tops: {self.num_top}; "
                f"you specified {len(param.data_filler)} data fillers."
            )
        self._drawn: list[int] = []  # tops that are filled at each forward
        for index, (blob, shape) in enumerate(zip(top, self._shapes(param))):
            blob.reshape(*shape)
            fill = self._fill_function(index, blob)  # a bad random one, too, is an error now
            if self._filler_param(index).type != "constant":
                self._drawn.append(index)
            else:
                fill(blob.raw_data().reshape(-1))

    def _shapes(self, param: Any) -> list[tuple[int, ...]]:
        legacy = ("num", "channels", "height", "width")
        if not any(len(getattr(param, field)) for field in legacy):
            return [tuple(shape.dim) for shape in self._each_top(param, "shape")]
        if param.shape:
            raise self.error("Both shape and legacy fields were specified")
        return list(zip(*(self._each_top(param, field) for field in legacy)))

    def _each_top(self, param: Any, field: str) -> list[Any]:
        values = list(getattr(param, field))
        if len(values) not in (1, self.num_top):
            raise self.error(
                f"Must specify '{field}' once, or once per top blob ({self.num_top}); specified {len(values)}."
            )
        return values * self.num_top if len(values) == 1 else values

    def _filler_param(self, index: int) -> Any:
        fillers = self.layer_param.dummy_data_param.data_filler
        return fillers[index if len(fillers) > 1 else 0] if fillers else schema.FillerParameter(type="constant")

    def _fill_function(self, index: int, blob: Blob) -> Callable[[FloatArray], None]:
        shape, fill = self._fills.get(index, (None, None))
        if fill is None or shape != blob.shape:  # a user may have reshaped the top, and fillers depend on the shape
            fill = filler(self._filler_param(index), blob.shape, self._generators[index])
            self._fills[index] = (blob.shape, fill)
        return fill

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for index in self._drawn:
            self._fill_function(index, top[index])(top[index].raw_data().reshape(-1))

    def state(self) -> dict[str, Any]:
        return {"generators": [generator.bit_generator.state for generator in self._generators]}

    def restore_parts(self, state: dict[str, Any]) -> None:
        generators = [generator_in_state(part) for part in state["generators"]]
        if len(generators) != self.num_top:
            raise ValueError(f"then {len(generators)!r} tops, now {self.num_top!r}")
        self._generators = generators
        self._fills.clear()  # they draw from the old ones
