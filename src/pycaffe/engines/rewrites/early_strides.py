"""Computes only those pixels that strided 1×1 convolutions read.

The first convolutions of a stage of ResNet-50 are 1×1 with stride 2: they read one pixel of four. What comes before
them is computed for these pixels alone, as their stride moves up through activations, sums and other 1×1 convolutions:

    conv(relu(conv3x3(a) + b), stride 2) = conv(relu(conv3x3(a, stride 2) + pick(b)))    pick(b) = b[:, :, ::2, ::2]

An average pooling of one pixel picks: it keeps onnxruntime's blocked layout, and a 1×1 convolution of stride 1 after it
is faster than one with a stride.
"""

from __future__ import annotations

from typing import Any

from pycaffe.engines.rewrites.value_shapes import value_shapes

__all__ = ["move_strides_up"]

Strides = tuple[int, ...]
ONE: Strides = (1, 1)
BY_PIXEL = ("Add", "Identity", "LeakyRelu", "Relu")


def move_strides_up(model: Any) -> None:
    """Rewrites an ONNX model in place; its outputs are computed as before."""
    graph = model.graph
    if any(_pointwise(node) and _ints(node, "strides", ONE) != ONE for node in graph.node):
        strides = _Strides(model)
        for node in reversed(graph.node):
            strides.visit(node)
        nodes = [new for node in graph.node for new in [*strides.picks(node), node]]
        nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]  # they may lie in the graph itself
        del graph.node[:]
        graph.node.extend(nodes)


class _Strides:
    """At which strides the readers of values want them."""

    def __init__(self, model: Any) -> None:
        self._shapes = value_shapes(model)
        self._wanted: dict[str, set[Strides]] = {value.name: {ONE} for value in model.graph.output}
        self._made: dict[str, Strides] = {}  # at which a value is made; absent: whole
        self._read: dict[str, Strides] = {}  # at which a node reads its inputs, by its output
        self._picked: set[str] = set()

    def visit(self, node: Any) -> None:
        """Makes a node compute what its readers, which were visited before, want all of them."""
        output = node.output[0]
        wanted = self._wanted.get(output, {ONE})
        step = next(iter(wanted)) if len(wanted) == 1 else ONE
        read = ONE
        if node.op_type == "Conv" and len(_ints(node, "kernel_shape", ())) == len(ONE):
            strides = tuple(a * b for a, b in zip(_ints(node, "strides", ONE), step))
            if _pointwise(node):
                read, strides = strides, ONE
            _set_strides(node, strides)
        elif self._by_pixel(node):
            read = step
        else:
            step = ONE
        self._made[output], self._read[output] = step, read
        for name in node.input:
            self._wanted.setdefault(name, set()).add(read)

    def picks(self, node: Any) -> list[Any]:
        """The new nodes before a node; it reads what they pick."""
        from onnx import helper

        strides = self._read[node.output[0]]
        nodes = []
        for i, name in enumerate(node.input):
            whole = self._made.get(name, ONE) == ONE
            if strides == ONE or not whole or (node.op_type == "Conv" and i > 0):
                continue
            picked = f"{name}/every{'x'.join(map(str, strides))}"
            if picked not in self._picked:
                self._picked.add(picked)
                attributes = {"kernel_shape": ONE, "strides": strides}
                nodes.append(helper.make_node("AveragePool", [name], [picked], picked, **attributes))
            node.input[i] = picked
        return nodes

    def _by_pixel(self, node: Any) -> bool:
        """Whether each pixel of a node's output depends on the same pixel of each of its inputs."""
        shapes = [self._shapes.get(name, ()) for name in node.input]
        same = all(len(shape) == 2 + len(ONE) and shape == shapes[0] for shape in shapes)
        return node.op_type in BY_PIXEL and same


def _pointwise(node: Any) -> bool:
    """Whether a node is a 1×1 convolution that pads nothing."""
    kernel, pads = _ints(node, "kernel_shape", ()), _ints(node, "pads", ())
    return node.op_type == "Conv" and kernel == ONE and not any(pads)


def _ints(node: Any, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == name), default)


def _set_strides(node: Any, strides: Strides) -> None:
    from onnx import helper

    others = [attribute for attribute in node.attribute if attribute.name != "strides"]
    attributes = [*others, helper.make_attribute("strides", strides)]
    attributes = [type(attribute).FromString(attribute.SerializeToString()) for attribute in attributes]
    del node.attribute[:]
    node.attribute.extend(attributes)
