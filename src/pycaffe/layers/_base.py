"""What a layer is: blob counts, shapes, parameters, a torch forward, an ONNX lowering.

The life of a layer, as in layer.hpp: it is created from its LayerParameter; `set_up_blobs` runs once, `reshape_blobs`
whenever its bottoms' shapes may have changed; then an engine runs it. Most layers write `setup` and `reshape` over
plain shapes, `forward` over torch tensors (autograd gives backward) and `lower`. A layer that is about the world
outside the net (readers, writers, Python) derives from `HostLayer` and works on blobs directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pycaffe.blob import Blob, Shape
from pycaffe.errors import LayerError
from pycaffe.filler import filler
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._torch import Tensor
from pycaffe.proto.dialect import DEFAULT_DIALECT

__all__ = ["HostLayer", "Layer", "LossLayer", "canonical_axis"]

TRAIN, TEST = 0, 1


class Layer:
    """Base of all layers.

    Attributes:
        type: the type in prototxts; `register_layer` sets it.
        exact_num_bottom_blobs, min_bottom_blobs, ...: allowed counts; None is no demand (layer.hpp).
        auto_top_blobs: the net makes anonymous tops up to the count the layer needs (losses).
        shares_data: every top is the bottom's memory under another shape (Split, Flatten, Reshape).
        computes_tops: the tensors that `forward` returns are new, never one of a bottom or parameter, or a view of it.
        forward_changes_blobs: forward changes parameters whose lr_mult is 0 (BatchNorm's statistics).
        reshape_has_effects: `reshape` does more than to tell shapes, and has to run before each forward.
        not_lowered: why this type has no ONNX form; None where it has.
        checked_by: what its tests compare with, for the generated layer table.
        origin: whose layer it is, for the generated layer table.
        dialect: the net's (proto/dialect.py); for types that mean different things in different forks.
        blobs: the learnable parameters, made by `add_blob` in `setup`.
        param_propagate_down: by parameter, whether backward computes its diff; the net sets it.
        bottom_shapes, top_shapes: of the last reshape.
    """

    type: ClassVar[str] = ""
    exact_num_bottom_blobs: ClassVar[int | None] = None
    min_bottom_blobs: ClassVar[int | None] = None
    max_bottom_blobs: ClassVar[int | None] = None
    exact_num_top_blobs: ClassVar[int | None] = None
    min_top_blobs: ClassVar[int | None] = None
    max_top_blobs: ClassVar[int | None] = None
    equal_num_bottom_top_blobs: ClassVar[bool] = False
    auto_top_blobs: ClassVar[bool] = False
    shares_data: ClassVar[bool] = False
    computes_tops: ClassVar[bool] = False
    forward_changes_blobs: ClassVar[bool] = False
    reshape_has_effects: ClassVar[bool] = False
    not_lowered: ClassVar[str | None] = None
    checked_by: ClassVar[str] = "reference Caffe"
    origin: ClassVar[str] = "Caffe 1.0"
    dialect: str = DEFAULT_DIALECT

    def __init__(self, param: Any, phase: int) -> None:
        self.layer_param = param
        self.name: str = param.name
        self.phase = phase
        self.blobs: list[Blob] = []
        self.param_propagate_down: list[bool] = []
        self.bottom_shapes: list[Shape] = []
        self.top_shapes: list[Shape] = []

    # -- set-up and shapes

    def setup(self, bottom: list[Shape]) -> None:
        """Reads the layer's parameters and adds its blobs; runs once, before the first `reshape`."""

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        """The shapes of the tops for these bottoms.

        Raises:
            ShapeError: the bottoms do not fit each other or the parameters.
        """
        raise NotImplementedError(self.type)

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """`setup` as the net calls it."""
        self.num_top = len(top)
        self.setup([blob.shape for blob in bottom])

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """`reshape` as the net calls it, before each forward: gives the tops their shapes."""
        present = [blob.shape for blob in bottom]
        if present != self.bottom_shapes or not present or self.reshape_has_effects:
            self.top_shapes = self.reshape(present)
            self.bottom_shapes = present
        for blob, shape in zip(top, self.top_shapes):
            blob.reshape(*shape)
            # Now and not at the first forward, so that views taken before it stay live.
            if self.shares_data and blob.data_storage is not bottom[0].data_storage:
                blob.share_data(bottom[0])

    def add_blob(self, shape: Sequence[int], filler_param: Any = None) -> Blob:
        """Adds a learnable parameter; without a filler it starts as zeros. It is filled when somebody looks."""
        blob = Blob(shape, filler(filler_param, tuple(shape)) if filler_param is not None else None)
        self.blobs.append(blob)
        return blob

    # -- what the net asks

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Whether `force_backward` makes gradients flow to that bottom (not to labels)."""
        return True

    def default_loss_weight(self, top_index: int) -> float:
        """The loss weight of a top for which the prototxt gives none."""
        return 0.0

    def multiply_adds(self) -> int:
        """Products that one forward adds up, for the shapes of the last reshape; element-wise work counts as none."""
        return 0

    # -- engines

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """The tops, by torch. A top may have another shape than `reshape` said (Filter); the engine adapts."""
        raise NotImplementedError(self.type)

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The diffs of bottoms and params. Overridden only where Caffe differs from what autograd finds."""
        raise NotImplementedError(self.type)

    @property
    def user_layer(self) -> Any:
        """What `net.layers` shows: the user's own object for a Python layer."""
        return self

    @classmethod
    def has_own_backward(cls) -> bool:
        """Whether the class overrides `backward`."""
        return cls.backward is not Layer.backward

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        """The tops as ONNX values; one name for each top. `bottom_shapes` and `top_shapes` hold.

        Raises:
            NotLowerable: ONNX cannot express the layer with these parameters.
        """
        raise NotLowerable(f"{self.type}: {self.not_lowered or 'no ONNX form'}")

    # -- interrupted runs

    def state(self) -> dict[str, Any]:
        """What a run carries from one forward to the next beside blobs, as JSON can hold it: generators, positions.

        A layer of the same parameters that `restore`s it goes on from there, bit for bit.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state` that is not empty."""

    # -- errors

    def error(self, message: str) -> LayerError:
        """A LayerError; the net adds the file, line and layer."""
        return LayerError(message)


class LossLayer(Layer):
    """A layer whose first top is a scalar loss with weight 1 by default (loss_layer.hpp)."""

    exact_num_bottom_blobs: ClassVar[int | None] = 2
    auto_top_blobs = True

    def default_loss_weight(self, top_index: int) -> float:
        return 1.0 if top_index == 0 else 0.0

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1  # labels


class HostLayer(Layer):
    """A layer that runs in Python on blobs in host memory: readers, writers, user layers."""

    not_lowered = "runs in Python on the host; the compiled parts of a net run around it"

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Fills the tops."""
        raise NotImplementedError(self.type)

    def backward_blobs(self, top: Sequence[Blob], propagate_down: list[bool], bottom: Sequence[Blob]) -> None:
        """Fills the diffs of the bottoms; nothing by default."""


def canonical_axis(axis: int, num_axes: int, what: str = "axis") -> int:
    """A non-negative axis for a possibly negative one (blob.hpp, CanonicalAxisIndex).

    Raises:
        LayerError: the axis is out of range.
    """
    if not -num_axes <= axis < num_axes:
        raise LayerError(f"{what} {axis} out of range for a {num_axes}-D Blob.")
    return axis % num_axes if num_axes else axis
