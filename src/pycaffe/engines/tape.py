"""What a recorded forward leaves to backward: a tape for each layer, and stretches of tapes that hang together.

The tensors of a forward know by autograd how they came about, across layers. One run of autograd therefore finds the
diffs of a whole stretch of layers, with one call's overhead instead of one for each. A layer by itself is a stretch of
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pycaffe.blob import Blob
from pycaffe.engines.tensor_value import TensorValue
from pycaffe.graph import Graph, Node
from pycaffe.layers._torch import Tensor, torch

__all__ = ["Stretch", "Tape"]


@dataclass
class Tape:
    """What backward needs of one forward of one layer.

    Attributes:
        values: what the layer read, to see whether a user has edited it since.
    """

    bottom: list[Tensor]
    params: list[Tensor]
    top: list[Tensor]
    values: list[TensorValue] = field(default_factory=list)

    def edited(self) -> bool:
        """Whether the layer would read other values now than it did."""
        return any(value.edited() for value in self.values)


class Stretch:
    """Consecutive layers, added from the last to the first, whose diffs are computed together.

    Attributes:
        outputs: blobs whose diffs the stretch begins with, and the tensors that they were.
        bottoms: by diff storage, the blob whose diff comes out, and its tensor.
        params: parameters and their tensors.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outputs: list[tuple[Blob, Tensor]] = []
        self.bottoms: dict[int, tuple[Blob, Tensor]] = {}
        self.params: list[tuple[Blob, Tensor]] = []
        self._wanted: set[int] = set()

    def continues(self, node: Node, tape: Tape) -> bool:
        """Whether the layers so far read just those tensors that this one made.

        Not so after an edit, or where a layer has run again alone: then the diffs between go by the blobs.
        """
        for blob, tensor in zip(self.graph.tops(node), tape.top):
            found = self.bottoms.get(id(blob.diff_storage))
            if found is not None and found[1] is not tensor:
                return False
        return not any(id(t) in self._wanted for t, need in zip(tape.bottom, node.bottom_need_backward) if need)

    def add(self, node: Node, tape: Tape) -> None:
        """Puts a layer before the others."""
        for blob, tensor in zip(self.graph.tops(node), tape.top):
            if id(blob.diff_storage) not in self.bottoms:
                self.outputs.append((blob, tensor))
        for blob, tensor, need in zip(self.graph.bottoms(node), tape.bottom, node.bottom_need_backward):
            if need:
                self.bottoms[id(blob.diff_storage)] = blob, tensor  # of work in place the first layer's bottom counts
                self._wanted.add(id(tensor))
        for blob, tensor, need in zip(node.layer.blobs, tape.params, node.layer.param_propagate_down):
            if need:
                self.params.append((blob, tensor))

    def gradients(self, top_diff: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """The diffs of `bottoms`, zeros where nothing depends on one, and of `params`.

        Args:
            top_diff: those of `outputs`.
        """
        bottoms = [tensor for _, tensor in self.bottoms.values()]
        params = [tensor for _, tensor in self.params]
        outputs = [(t, d.reshape(t.shape)) for (_, t), d in zip(self.outputs, top_diff) if t.requires_grad]
        found: list[Tensor | None] = [None] * (len(bottoms) + len(params))
        if found and outputs:  # nothing is differentiable below ArgMax, for one
            found = list(
                torch.autograd.grad(
                    [t for t, _ in outputs],
                    [*bottoms, *params],
                    [d for _, d in outputs],
                    retain_graph=True,  # backward may be asked for again
                    allow_unused=True,
                )
            )
        diffs = [torch.zeros_like(t) if d is None else d for t, d in zip(bottoms, found)]
        return diffs, found[len(bottoms) :]
