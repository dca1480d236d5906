"""The torch engine: one layer at a time, every blob and every diff.

Forward of a layer: the tensors that its bottoms wait for, or tensors over their memory -> `layer.forward` -> its tops
wait for the results (tensor_value.py). Where backward may follow, autograd records; the record (tape) of a layer lives
until the layer runs again. Backward: top diffs -> `torch.autograd.grad` over as many layers as hang together (tape.py),
or a layer's own `backward` -> bottom diffs overwritten, parameter diffs added to. A layer without a record (its forward
ran compiled, or a user has edited what it read) is computed again for it, from the blobs as they are; blobs that an
in-place layer has overwritten since are computed again as well, aside.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pycaffe.blob import Blob, FloatArray, Shape, shape_changes
from pycaffe.engines.overwritten import OverwrittenValues
from pycaffe.engines.tape import Stretch, Tape
from pycaffe.engines.tensor_value import TensorValue
from pycaffe.graph import Graph, Node
from pycaffe.layers import HostLayer, Layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["TorchEngine"]


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
        self._tapes: dict[int, Tape] = {}
        self._leaves: dict[int, list[tuple[FloatArray, Tensor]]] = {}
        self._shaped: dict[int, tuple[int, list[Shape]]] = {}

    # -- forward

    def run(self, start: int, end: int, record: bool) -> int:
        """Runs the layers from `start`, at most to `end`, up to one that the host runs.

        Args:
            start: a layer that is not a HostLayer, or Input.
            end: the last layer that may run.
            record: whether to keep what backward needs.

        Returns:
            The last layer that ran.
        """
        _settle_after_fork()
        nodes = self.graph.nodes
        hosts = (i for i in range(start, end + 1) if isinstance(nodes[i].layer, HostLayer) and nodes[i].type != "Input")
        last = next(hosts, end + 1) - 1
        if record:
            self._release(start, last)
        for index in range(start, last + 1):
            self._reshape(index, nodes[index])
            if nodes[index].type != "Input":
                self._forward(index, nodes[index], record)
        return last

    def _release(self, start: int, end: int) -> None:
        """Lets go of what layers are about to compute again: the new values then get the memory of the old ones.

        With both alive a net would go to and fro between two places, and find neither in a cache. Where a layer fails,
        the tops of those behind it hold zeros.
        """
        for index in range(start, end + 1):
            self._tapes.pop(index, None)
            node = self.graph.nodes[index]
            if node.type != "Input" and not node.layer.shares_data:
                for blob in node.top:
                    if blob not in node.bottom:
                        self.graph.blobs[blob].data_storage.release()

    def _reshape(self, index: int, node: Node) -> None:
        """Gives a layer's tops their shapes, where any shape may have changed since it last did."""
        layer = node.layer
        changes, told = self._shaped.get(index, (-1, None))
        if changes != shape_changes() or told is not layer.bottom_shapes or layer.reshape_has_effects or not told:
            self.graph.reshape_node(index)
            self._shaped[index] = shape_changes(), layer.bottom_shapes

    def _forward(self, index: int, node: Node, record: bool) -> None:
        """Runs a layer; its tops have been reshaped."""
        self._tapes.pop(index, None)
        self.overwritten.forget(index, node.top)
        if node.in_place and node.need_backward and not record:
            for blob in {*node.bottom} & {*node.top}:
                self.overwritten.keep(index, blob, self.graph.blobs[blob].raw_data())
        record = record and node.need_backward
        values = [self._value(blob) for blob in node.bottom]
        if record:
            bottom = [self._recorded(index, *given) for given in zip(values, node.bottom_need_backward)]
            params = self._recorded_parameters(index, node.layer)
        else:
            bottom = [value.tensor for value in values]
            params = [self._tensor(blob.raw_data()) for blob in node.layer.blobs]
        tape = self._run(node, bottom, params, record)
        if self.device != "cpu":
            self._keep_changed_parameters(node.layer.blobs, params)
        self._store(index, tape)
        if record:
            tape.values = values
            self._tapes[index] = tape

    def _recorded(self, index: int, value: TensorValue, need: bool) -> Tensor:
        """A bottom for a forward that autograd records.

        What an earlier layer made stays tied to that layer's record. What this layer or a later one made (work in
        place, where a forward began here) must not: the records of all such forwards would become one.
        """
        tensor = value.tensor
        if need and tensor.requires_grad and value.maker is not None and value.maker < index:
            return tensor
        if value.maker is None and self.graph.nodes[index].in_place:  # the results may overwrite what autograd keeps
            tensor = tensor.clone()
        return tensor.detach().requires_grad_(need)

    def _recorded_parameters(self, index: int, layer: Layer) -> list[Tensor]:
        """A layer's parameters for a forward that autograd records.

        On a CPU those that are learned are the same tensors each time, while their memory is the same. Others are made
        anew: BatchNorm's forward changes its statistics, which an earlier record may have kept.
        """
        if not layer.blobs:
            return []
        known = self._leaves.get(index, ())
        leaves = []
        for place, (blob, need) in enumerate(zip(layer.blobs, layer.param_propagate_down)):
            memory = blob.data_storage.array()
            if place < len(known) and known[place][0] is memory:
                tensor = known[place][1]
                if need and tensor.requires_grad and tensor.shape == blob.shape:
                    leaves.append(known[place])
                    continue
            leaves.append((memory, self._tensor(blob.raw_data()).requires_grad_(need)))
        if self.device == "cpu":
            self._leaves[index] = leaves
        return [tensor for _, tensor in leaves]

    def _run(self, node: Node, bottom: list[Tensor], params: list[Tensor], record: bool) -> Tape:
        by_autograd = record and not node.layer.has_own_backward()
        with node.located_errors():
            if by_autograd == torch.is_grad_enabled():  # so it is in training; entering the context takes longer
                return Tape(bottom, params, node.layer.forward(bottom, params))
            with torch.set_grad_enabled(by_autograd):
                return Tape(bottom, params, node.layer.forward(bottom, params))

    def _store(self, index: int, tape: Tape) -> None:
        """Makes a layer's results the values of its tops."""
        node = self.graph.nodes[index]
        if node.layer.shares_data:
            self._store_forms(node, tape)
            return
        given = set() if node.layer.computes_tops else {_address(tensor) for tensor in (*tape.bottom, *tape.params)}
        for i, (blob, tensor) in enumerate(zip(self.graph.tops(node), tape.top)):
            if given and _address(tensor) in given:
                with torch.set_grad_enabled(tensor.requires_grad):
                    tape.top[i] = tensor = tensor.clone()
            if tensor.shape != blob.shape:
                blob.reshape(*tensor.shape)
            TensorValue(blob.data_storage, tensor, index).hand_over()

    def _store_forms(self, node: Node, tape: Tape) -> None:
        """Work of a layer whose tops are its bottom's memory: nothing moves."""
        bottom = self.graph.blobs[node.bottom[0]]
        for blob, tensor in zip(node.top, tape.top):
            top = self.graph.blobs[blob]
            if top.data_storage is not bottom.data_storage:
                top.share_data(bottom)
            if isinstance(bottom.data_storage.pending, TensorValue):
                bottom.data_storage.pending.forms[blob] = tensor

    def _value(self, blob: int) -> TensorValue:
        present = self.graph.blobs[blob]
        return TensorValue.of(present.data_storage, present.shape, self.device, blob)

    def _tensor(self, array: object) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.device == "cpu" else tensor.to(self.device)

    def _keep_changed_parameters(self, blobs: Sequence[Blob], params: Sequence[Tensor]) -> None:
        for blob, tensor in zip(blobs, params):  # BatchNorm's forward changes its statistics
            torch.from_numpy(blob.raw_data()).copy_(tensor.detach())

    # -- backward

    def backward(self, start: int, end: int) -> int:
        """Computes the diffs of layer `start` and, where they can go together, of layers before it down to `end`.

        Returns:
            The last layer that is done.
        """
        _settle_after_fork()
        node, tape = self.graph.nodes[start], self._tapes.get(start)
        if tape is None or self._edited(node, tape):
            tape = self._replay(start)
        if node.layer.has_own_backward():
            self._own_backward(node, tape)
            return start
        stretch = Stretch(self.graph)
        stretch.add(node, tape)
        index = start
        while index > end and self._extend(stretch, index - 1):
            index -= 1
        self._stretch_backward(stretch)
        return index

    def _extend(self, stretch: Stretch, index: int) -> bool:
        """Adds a layer to a stretch of those after it; False where it does not hang together with them."""
        node, tape = self.graph.nodes[index], self._tapes.get(index)
        if not node.need_backward or node.type == "Input":
            return True
        if tape is None or node.layer.has_own_backward() or self._edited(node, tape):
            return False
        if not stretch.continues(node, tape):
            return False
        stretch.add(node, tape)
        return True

    def _edited(self, node: Node, tape: Tape) -> bool:
        """Whether a layer has to be computed again: its bottoms were edited. One that drew numbers keeps them."""
        return not node.in_place and tape.edited() and not node.layer.state()

    def _own_backward(self, node: Node, tape: Tape) -> None:
        tops = self.graph.tops(node)
        top_diff = [self._diff(blob) for blob in tops]
        with torch.no_grad(), node.located_errors():
            bottom_diff, param_diff = node.layer.backward(
                top_diff, tape.top, tape.bottom, tape.params, list(node.bottom_need_backward)
            )
        known = {_address(t) for t in (*top_diff, *tape.top, *tape.bottom, *tape.params)}
        for blob, need, diff in zip(self.graph.bottoms(node), node.bottom_need_backward, bottom_diff):
            if need and diff is not None:
                _put_diff(blob, diff, known)
        for blob, need, diff in zip(node.layer.blobs, node.layer.param_propagate_down, param_diff):
            if need and diff is not None:
                _add_to_diff(blob, diff, known)

    def _stretch_backward(self, stretch: Stretch) -> None:
        top_diff = [self._diff(blob) for blob, _ in stretch.outputs]
        for blob, _ in stretch.bottoms.values():
            blob.diff_storage.release()
        bottom_diff, param_diff = stretch.gradients(top_diff)
        known = {_address(diff) for diff in top_diff}
        for (blob, _), diff in zip(stretch.bottoms.values(), bottom_diff):
            _put_diff(blob, diff, known)
        known.update(_address(diff) for diff in bottom_diff)
        for (blob, _), diff in zip(stretch.params, param_diff):
            if diff is not None:
                _add_to_diff(blob, diff, known)

    def _diff(self, blob: Blob) -> Tensor:
        return TensorValue.of(blob.diff_storage, blob.shape, self.device).tensor

    def _replay(self, index: int) -> Tape:
        """A record for a layer whose forward left none; not kept, since a compiled forward would not renew it."""
        node = self.graph.nodes[index]
        self._renew_shapes(node)
        bottom = [self._value_before(index, blob).detach().clone() for blob in node.bottom]
        params = [self._tensor(blob.raw_data()).clone() for blob in node.layer.blobs]  # BatchNorm's forward moves them
        bottom = [t.requires_grad_(need) for t, need in zip(bottom, node.bottom_need_backward)]
        params = [t.requires_grad_(need) for t, need in zip(params, node.layer.param_propagate_down)]
        return self._run(node, bottom, params, record=True)

    def _value_before(self, index: int, blob: int) -> Tensor:
        """A blob's value as layer `index` read it: the blob, unless this or a later layer writes to its memory."""
        present = self.graph.blobs[blob]
        if not self._written_from(index, present):
            return self._value(blob).tensor
        writers = [i for i, n in enumerate(self.graph.nodes[:index]) if blob in n.top and n.type != "Input"]
        writer = writers[-1] if writers else -1
        kept = self.overwritten.find(index, blob, writer)
        if kept is not None:
            return self._tensor(kept)
        node = self.graph.nodes[max(writer, 0)]
        if writer < 0 or isinstance(node.layer, HostLayer):  # cannot be asked again
            return self._value(blob).tensor
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
            with node.located_errors():
                layer.top_shapes = layer.reshape(present)
            layer.bottom_shapes = present

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


def _put_diff(blob: Blob, diff: Tensor, known: set[int]) -> None:
    """Makes a tensor a blob's diff; one in memory that others may write to (`known`) is copied."""
    diff = diff.clone() if _address(diff) in known else diff
    TensorValue(blob.diff_storage, diff if diff.shape == blob.shape else diff.reshape(blob.shape)).hand_over()


def _add_to_diff(blob: Blob, grad: Tensor, known: set[int]) -> None:
    """Adds to a parameter's diff; where that is 0, a gradient in memory of its own (none of `known`) becomes it."""
    storage = blob.diff_storage
    if grad.shape != blob.shape:
        grad = grad.reshape(blob.shape)
    grad = (grad if grad.is_cpu else grad.cpu()).contiguous()
    memory = grad.untyped_storage()
    whole = memory.nbytes() == 4 * storage.capacity
    if not storage.allocated and whole and memory.data_ptr() not in known:
        known.add(memory.data_ptr())
        storage.put(grad.detach().numpy())
    else:
        torch.from_numpy(blob.raw_diff()).add_(grad)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
