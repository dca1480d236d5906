"""The torch engine: one layer at a time, every blob and every diff.

Forward of a layer: blobs -> tensors over the same memory -> `layer.forward` -> results copied into the tops' memory,
so that views that users hold show them. Where backward may follow, autograd records; the record (tape) of a layer
lives until the layer runs again. Backward of a layer: top diffs -> `torch.autograd.grad` (or the layer's own
`backward`) -> bottom diffs overwritten, parameter diffs added to. A layer without a record (its forward ran compiled)
is computed again for it, from the blobs as they are; blobs that an in-place layer has overwritten since are computed
again as well, aside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pycaffe.blob import Blob
from pycaffe.engines.overwritten import OverwrittenValues
from pycaffe.graph import Graph, Node
from pycaffe.layers import HostLayer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["TorchEngine"]


@dataclass
class _Tape:
    """What backward needs of one forward of one layer."""

    bottom: list[Tensor]
    params: list[Tensor]
    top: list[Tensor]


class TorchEngine:
    """Runs single layers of a graph on torch.

    Args:
        graph: the net.
        device: where tensors are computed: "cpu", "cuda:0", ...; blobs stay in host memory.
        overwritten: what blobs held before a run without a record worked on them in place.
    """

    def __init__(self, graph: Graph, device: str, overwritten: OverwrittenValues) -> None:
        self.graph = graph
        self.device = device
        self.overwritten = overwritten
        self._tapes: dict[int, _Tape] = {}

    # -- forward

    def forward(self, index: int, record: bool) -> None:
        """Runs a layer; its tops must have been reshaped. `record` keeps what backward needs."""
        node = self.graph.nodes[index]
        _settle_after_fork()
        self._tapes.pop(index, None)
        self.overwritten.forget(index, node.top)
        if node.in_place and node.need_backward and not record:
            for blob in {*node.bottom} & {*node.top}:
                self.overwritten.keep(index, blob, self.graph.blobs[blob].raw_data())
        record = record and node.need_backward
        bottom = [self._tensor(blob.raw_data()) for blob in self.graph.bottoms(node)]
        if record and node.in_place:  # the results will overwrite what autograd keeps
            bottom = [tensor.clone() for tensor in bottom]
        params = [self._tensor(blob.raw_data()) for blob in node.layer.blobs]
        tape = self._run(node, bottom, params, record)
        if self.device != "cpu":
            self._keep_changed_parameters(node.layer.blobs, params)
        if record:
            self._tapes[index] = tape
        self._store(node, tape.top)

    def _run(self, node: Node, bottom: list[Tensor], params: list[Tensor], record: bool) -> _Tape:
        layer = node.layer
        by_autograd = record and not layer.has_own_backward()
        if by_autograd:
            bottom = [t.detach().requires_grad_(need) for t, need in zip(bottom, node.bottom_need_backward)]
            params = [t.detach().requires_grad_(need) for t, need in zip(params, layer.param_propagate_down)]
        with torch.set_grad_enabled(by_autograd), node.located_errors():
            top = layer.forward(bottom, params)
        return _Tape(bottom, params, top)

    def _store(self, node: Node, top: Sequence[Tensor]) -> None:
        for blob, tensor in zip(self.graph.tops(node), top):
            if tuple(tensor.shape) != blob.shape:
                blob.reshape(*tensor.shape)
            if node.layer.shares_data:
                blob.share_data(self.graph.blobs[node.bottom[0]])
            else:
                torch.from_numpy(blob.raw_data()).copy_(tensor.detach())

    def _tensor(self, array: object) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def _keep_changed_parameters(self, blobs: Sequence[Blob], params: Sequence[Tensor]) -> None:
        for blob, tensor in zip(blobs, params):  # BatchNorm's forward changes its statistics
            torch.from_numpy(blob.raw_data()).copy_(tensor.detach())

    # -- backward

    def backward(self, index: int) -> None:
        """Computes the diffs of a layer's bottoms and adds to those of its parameters."""
        node = self.graph.nodes[index]
        _settle_after_fork()
        tape = self._tapes.get(index) or self._replay(index)
        top_diff = [self._tensor(blob.raw_diff()) for blob in self.graph.tops(node)]
        if node.layer.has_own_backward():
            with torch.no_grad(), node.located_errors():
                bottom_grads, param_grads = node.layer.backward(
                    top_diff, tape.top, tape.bottom, tape.params, list(node.bottom_need_backward)
                )
        else:
            bottom_grads, param_grads = _gradients(tape, top_diff)
        for blob, need, grad in zip(self.graph.bottoms(node), node.bottom_need_backward, bottom_grads):
            if need and grad is not None:
                torch.from_numpy(blob.raw_diff()).copy_(grad.reshape(blob.shape))
        known = {_address(t) for t in (*top_diff, *tape.top, *tape.bottom, *tape.params)}
        for blob, need, grad in zip(node.layer.blobs, node.layer.param_propagate_down, param_grads):
            if need and grad is not None:
                _add_to_diff(blob, grad.to("cpu"), known)

    def _replay(self, index: int) -> _Tape:
        """A record for a layer whose forward left none; not kept, since a compiled forward would not renew it."""
        node = self.graph.nodes[index]
        self._renew_shapes(node)
        bottom = [self._value_before(index, blob).clone() for blob in node.bottom]
        params = [self._tensor(blob.raw_data()).clone() for blob in node.layer.blobs]  # BatchNorm's forward moves them
        return self._run(node, bottom, params, record=True)

    def _value_before(self, index: int, blob: int) -> Tensor:
        """A blob's value as layer `index` read it: the blob, unless this or a later layer writes to its memory."""
        present = self.graph.blobs[blob]
        if not self._written_from(index, present):
            return self._tensor(present.raw_data())
        writers = [i for i, n in enumerate(self.graph.nodes[:index]) if blob in n.top and n.type != "Input"]
        writer = writers[-1] if writers else -1
        kept = self.overwritten.find(index, blob, writer)
        if kept is not None:
            return self._tensor(kept)
        node = self.graph.nodes[max(writer, 0)]
        if writer < 0 or isinstance(node.layer, HostLayer):  # cannot be asked again
            return self._tensor(present.raw_data())
        bottom = [self._value_before(writer, b) for b in node.bottom]
        self._renew_shapes(node)
        with torch.no_grad():
            top = node.layer.forward(bottom, [self._tensor(b.raw_data()).clone() for b in node.layer.blobs])
        return top[node.top.index(blob)]

    def _written_from(self, index: int, blob: Blob) -> bool:
        """Whether layer `index` or a later one writes to a blob's memory (Flatten's top is its bottom's)."""
        return any(
            not node.layer.shares_data and any(top.data_storage is blob.data_storage for top in self.graph.tops(node))
            for node in self.graph.nodes[index:]
        )

    def _renew_shapes(self, node: Node) -> None:
        """Tells a layer the present shapes: a compiled forward of known shapes does not ask it to reshape.

        The tops keep theirs: what a Filter lets through depends on values. A layer that knows the shapes is left alone:
        an RNN's reshape moves its state.
        """
        layer, present = node.layer, [blob.shape for blob in self.graph.bottoms(node)]
        if layer.bottom_shapes != present:
            layer.bottom_shapes = present
            with node.located_errors():
                layer.top_shapes = layer.reshape(present)

    def forget(self) -> None:
        """Drops all records: the next backward computes its layers again."""
        self._tapes.clear()


_forked_with_torch = False


def _note_fork() -> None:
    global _forked_with_torch
    _forked_with_torch = "torch" in sys.modules


def _settle_after_fork() -> None:
    """Leaves torch one thread in the child of a process that used it: OpenMP's team does not survive a fork.

    A parallel region would wait for threads that do not exist. Done at the first use, so that a child that never
    runs a net on torch keeps its settings.
    """
    global _forked_with_torch
    if _forked_with_torch:
        _forked_with_torch = False
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _add_to_diff(blob: Blob, grad: Tensor, known: set[int]) -> None:
    """Adds to a parameter's diff; where that is 0, a gradient in memory of its own (none of `known`) becomes it."""
    storage = blob.diff_storage
    whole = grad.is_contiguous() and grad.untyped_storage().nbytes() == 4 * storage.capacity
    if not storage.allocated and whole and _address(grad) not in known:
        known.add(_address(grad))
        storage.put(grad.detach().numpy())
    else:
        torch.from_numpy(blob.raw_diff()).add_(grad.reshape(blob.shape))


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _gradients(tape: _Tape, top_diff: list[Tensor]) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Autograd's gradients; zeros where a top does not depend on an input."""
    leaves = [*tape.bottom, *tape.params]
    wanted = [t for t in leaves if t.requires_grad]
    outputs = [(t, d) for t, d in zip(tape.top, top_diff) if t.requires_grad]
    if not wanted:
        return [None] * len(tape.bottom), [None] * len(tape.params)
    if not outputs:  # nothing differentiable (ArgMax, Threshold)
        found = [torch.zeros_like(t) for t in wanted]
    else:
        found = torch.autograd.grad(
            [t for t, _ in outputs],
            wanted,
            [d.reshape(t.shape) for t, d in outputs],
            retain_graph=True,
            allow_unused=True,
        )
    grads = iter(found)
    by_leaf = [next(grads) if t.requires_grad else None for t in leaves]
    by_leaf = [torch.zeros_like(t) if g is None and t.requires_grad else g for t, g in zip(leaves, by_leaf)]
    return by_leaf[: len(tape.bottom)], by_leaf[len(tape.bottom) :]
