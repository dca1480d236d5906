"""Computes convolutions with half or a quarter of the multiplications: Winograd's algorithm.

A few rows of outputs y depend on the rows of inputs d that their taps w reach. For m outputs and r taps, n = m + r - 1:

    y = Aᵀ [ sum over input channels of (G w) * (Bᵀ d) ]      G: (n, r), Bᵀ: (n, n), Aᵀ: (m, n)

where * is a convolution along the width: n of them with one row of taps, for m with r (Lavin and Gray, Fast Algorithms
for Convolutional Neural Networks, 2015, in one direction). m = 4: 6 rows in place of 12 where r = 3, 8 of 20 where 5.

In ONNX: Bᵀ as n depthwise convolutions of stride m, all n products as one convolution in groups, Aᵀ as a product of
matrices. All of it, and activations and poolings between such convolutions, stay in onnxruntime's blocked layout
(`blocked_layout.py`): the m rows come to their places as long pieces, and nothing is reordered between.

In tiles, along height and width, half of the multiplications is saved again: n² products of single pixels. But pixels
have to be put in place one by one, and the weights take four times the memory of those that were given. Which of the
two, if any, is faster depends on the machine and the convolution: `best_form`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.engines.rewrites.blocked_layout import DOMAIN, block_size, blocked_weight, import_domain
from pycaffe.engines.rewrites.fold_batch_norm import Values, drop_unused
from pycaffe.engines.rewrites.value_shapes import value_shapes

__all__ = ["Convolution", "best_form", "use_winograd", "winograd_matrices"]

Form = Literal["rows", "tiles"]

TILE = 4  # rows of outputs, and columns in tiles
TAPS = (3, 5)  # along the height, that there are points for
# In this order 3 taps err by 4e-7 of the largest output in rows, 1.6e-6 in tiles; with -2 before 0.5, by 7e-7 and 4e-6.
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0)
# Multiplications that must be saved for each access to memory: reading and writing rows, products, outputs, weights.
SAVED = 45
TILES_BLOCK = 8  # the widest blocks that tiles were tried with
ONE = 1  # the place of the point 1: what is added to its product reaches all outputs with the factor 1
BLOCKED = ("MaxPool", "Relu")  # also computed in the blocked layout, after a convolution that was


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1; channels and outputs are those of a group, height and width those of an output."""

    group: int
    outputs: int
    channels: int
    taps: tuple[int, int]
    height: int
    width: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right


def best_form(c: Convolution, block: int) -> Form | None:
    """The form of Winograd's algorithm that a convolution is fastest in; None where that is none.

    Either must save enough multiplications for what it moves. The bound of rows is from whole nets on a Xeon with
    AVX-512, 2 threads, nets with and without side by side, medians of ratios. CaffeNet's 5×5 takes 1.4 ms at batch 1
    instead of 2.1, the net 17.2 ms instead of 18.1; its 3×3 at 13×13, of which the weights have to be read, gained
    nothing with a bound of 20. While other work took a part of both cores: CaffeNet at batch 8 gained 1 to 28 %; VGG-16
    9 to 22 % at batch 1 and 10 % at batch 8 over what was here before, rows in the plain layout and tiles at 28×28;
    bounds of 35 and 30 gained less there and lost 5 % of ResNet-50 at batch 8.

    Tiles pay where multiplying is slower: on an EPYC with AVX2 (blocks of 8 channels) VGG-16 took 0.83 of the time that
    it took in rows at batch 1, 0.78 with one thread, and 0.87 at batch 8; bounds that let more convolutions in slowed
    GoogLeNet and ResNet-50 by 0 to 7 %.
    """
    if block <= TILES_BLOCK and c.taps == (3, 3) and _tiles_save(c) >= SAVED:
        return "tiles"
    return "rows" if _rows_save(c) >= SAVED else None


def _rows_save(c: Convolution) -> float:
    """Multiplications that rows save for each number that they move."""
    tiles, window = -(-c.height // TILE), TILE + c.taps[0] - 1
    inputs, outputs, weights = c.group * c.channels, c.group * c.outputs, c.group * c.outputs * c.channels * c.taps[1]
    saved = weights * c.width * (c.taps[0] * c.height - window * tiles)
    rows = window * tiles * c.width
    moved = inputs * rows * 4 + outputs * rows * 2 + outputs * c.height * c.width * 5 + weights * (window - c.taps[0])
    return saved / moved


def _tiles_save(c: Convolution) -> float:
    """Multiplications that tiles save for each number that they move; weights, which are read in turn, count half."""
    tiles, products = -(-c.height // TILE) * -(-c.width // TILE), (TILE + c.taps[0] - 1) * (TILE + c.taps[1] - 1)
    weights = c.group * c.outputs * c.channels
    saved = weights * (c.taps[0] * c.taps[1] * c.height * c.width - products * tiles)
    moved = c.group * tiles * TILE**2 * (10 * c.channels + 8 * c.outputs)
    return saved / (moved + weights * (products - c.taps[0] * c.taps[1]) / 2)


def winograd_matrices(outputs: int, taps: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bᵀ, G and Aᵀ: polynomials multiplied by their values at `POINTS` and at infinity (Toom and Cook)."""
    window = outputs + taps - 1

    def powers(count: int) -> npt.NDArray[np.float64]:
        rows = [[point**power for power in range(count)] for point in POINTS[: window - 1]]
        return np.array([*rows, [0.0] * (count - 1) + [1.0]])

    inputs, kernel = np.linalg.inv(powers(window)).T, powers(taps)
    scale = np.array([row[np.flatnonzero(abs(row) > 1e-9)[-1]] for row in inputs]).reshape(-1, 1)
    return tuple(matrix.astype(np.float32) for matrix in (inputs / scale, kernel * scale, powers(outputs).T))


def use_winograd(model: Any, values: Values) -> None:
    """Rewrites an ONNX model in place, for onnxruntime on a CPU. Results differ by rounding: 1e-6 of the largest.

    Args:
        model: whose large initializers lie outside of it.
        values: makes those, by name; transformed weights come in, what nobody reads any more goes.
    """
    chosen = _chosen(model, values)
    if not chosen:
        return
    graph = _BlockedGraph(model, values)
    for node in model.graph.node:
        if node.op_type == "Conv" and node.output[0] in chosen:
            graph.convolve(node, *chosen[node.output[0]])
        elif _may_be_blocked(node) and node.input[0] in graph.channels:
            graph.follow(node)
        else:
            graph.nodes.append(type(node).FromString(node.SerializeToString()))
    del model.graph.node[:]
    model.graph.node.extend(graph.nodes)
    import_domain(model)
    drop_unused(model, values)


def _chosen(model: Any, values: Values) -> dict[str, tuple[Convolution, Form]]:
    """The convolutions to rewrite, and into what, by the name of their output."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in values}
    nodes = [node for node in model.graph.node if node.op_type == "Conv" and _is_ordinary(node, weights)]
    if not nodes or block_size() == 1:
        return {}
    shapes, chosen = value_shapes(model), {}
    for node in nodes:
        extents = [extent for extent in shapes.get(node.input[0], ())[1:] if isinstance(extent, int)]
        if len(extents) == 3:
            outputs, channels, *taps = weights[node.input[1]]
            group, pads = extents[0] // channels, _pads(node)
            height, width = (extents[i + 1] + pads[i] + pads[i + 2] - taps[i] + 1 for i in range(2))
            c = Convolution(group, outputs // group, channels, (taps[0], taps[1]), height, width, pads)
            whole = c.channels % block_size() == 0 and c.outputs % block_size() == 0
            form = best_form(c, block_size()) if whole else None
            if form is not None:
                chosen[node.output[0]] = (c, form)
    return chosen


def _is_ordinary(node: Any, weights: dict[str, tuple[int, ...]]) -> bool:
    """Whether a convolution has stride 1 and as many taps as there are points for."""
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    taps = list(weights.get(node.input[1], ())[2:])
    if len(taps) != 2 or taps[0] not in TAPS:
        return False
    ordinary = {"kernel_shape": taps, "strides": [1, 1], "dilations": [1, 1]}
    for name in ("group", "pads"):
        attributes.pop(name, None)
    return {**ordinary, **attributes} == ordinary


def _pads(node: Any) -> tuple[int, int, int, int]:
    """Of a convolution in two dimensions: top, left, bottom, right."""
    top, left, bottom, right = next((a.ints for a in node.attribute if a.name == "pads"), (0, 0, 0, 0))
    return top, left, bottom, right


def _may_be_blocked(node: Any) -> bool:
    """Whether a node can work in the blocked layout; a pooling that tells its places cannot."""
    return node.op_type in BLOCKED and len(node.output) == 1


class _BlockedGraph:
    """The nodes of the rewritten model.

    Attributes:
        channels: of the values that are computed in the blocked layout, by name.
    """

    def __init__(self, model: Any, values: Values) -> None:
        self.nodes: list[Any] = []
        self.channels: dict[str, int] = {}
        self._blocked: dict[str, str] = {}  # the names of blocked values, by those of the plain ones
        self._initializers = model.graph.initializer
        self._constants: set[str] = set()
        self._values = values
        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in model.graph.output}

    def convolve(self, node: Any, c: Convolution, form: Form) -> None:
        """Adds what computes a convolution; see the head of this file."""
        self._prefix = f"{node.output[0]}/winograd"
        (self._in_rows if form == "rows" else self._in_tiles)(node, c)

    def _in_rows(self, node: Any, c: Convolution) -> None:
        inputs, kernel, output = winograd_matrices(TILE, c.taps[0])
        outputs, window = c.outputs * c.group, len(kernel)
        down, row = -(-c.height // TILE), c.width * block_size()
        x = self._transformed(self._block(node.input[0]), c.channels * c.group, inputs, c, axis=0)
        weight = self._weight(node.input[1], kernel, (window * outputs, c.channels, 1, c.taps[1]), "rows")
        operands = [x, weight, *self._bias(node.input[2:], outputs, ONE, window)]
        attributes = {"kernel_shape": [1, c.taps[1]], "pads": [0, c.pads[1], 0, c.pads[3]], "group": window * c.group}
        x = self._add("Conv", operands, domain=DOMAIN, **attributes)
        x = self._reshape(x, [0, window, outputs * down * c.width])
        x = self._add("MatMul", [self._constant(f"output{c.taps[0]}", output), x])
        x = self._reshape(x, [0, TILE, outputs // block_size() * down, row])
        x = self._add("Transpose", [x], perm=[0, 2, 1, 3])
        rows = TILE * down
        if rows > c.height and self._reads_below(node.output[0], c.height, rows):
            x = self._reshape(x, [-1, rows, row])
            x = self._add("Slice", [x, *(self._integers([number]) for number in (0, c.height, 1))])
            rows = c.height
        self._finish(node.output[0], self._reshape(x, [-1, outputs, rows, c.width]), outputs)

    def _in_tiles(self, node: Any, c: Convolution) -> None:
        inputs, kernel, output = winograd_matrices(TILE, c.taps[0])
        channels, outputs, window = c.channels * c.group, c.outputs * c.group, len(kernel)
        x = self._transformed(self._block(node.input[0]), channels, inputs, c, axis=0)
        x = self._transformed(x, window * channels, inputs, c, axis=1)
        weight = self._weight(node.input[1], kernel, (window**2 * outputs, c.channels, 1, 1), "tiles")
        operands = [x, weight, *self._bias(node.input[2:], outputs, ONE * window + ONE, window**2)]
        x = self._add("Conv", operands, domain=DOMAIN, kernel_shape=[1, 1], group=window**2 * c.group)
        pixels = outputs * -(-c.height // TILE) * -(-c.width // TILE)  # of all outputs, one of each tile
        x = self._reshape(x, [0, window**2, pixels])
        x = self._add("MatMul", [self._constant(f"tile{c.taps[0]}", np.kron(output, output)), x])
        # Pixels that are blocks of channels come to their places; a Gather, other than a Transpose, uses all threads.
        places = self._constant(f"places{outputs}x{c.height}x{c.width}", _places(c, outputs // block_size()))
        x = self._add("Gather", [self._reshape(x, [0, TILE**2 * pixels // block_size(), block_size()]), places], axis=1)
        self._finish(node.output[0], self._reshape(x, [-1, outputs, c.height, c.width]), outputs)

    def follow(self, node: Any) -> None:
        """Adds a node that reads a blocked value."""
        self._prefix = f"{node.output[0]}/winograd"
        x = self._blocked[node.input[0]]
        self._add(node.op_type, [x], domain=DOMAIN if node.op_type == "MaxPool" else "")
        self.nodes[-1].attribute.extend(node.attribute)
        self._finish(node.output[0], self.nodes[-1].output[0], self.channels[node.input[0]])

    def _reads_below(self, name: str, height: int, rows: int) -> bool:
        """Whether rows below a value's height would be read: not where only a pooling reads, and ends above them."""
        from onnx import helper

        readers = self._readers.get(name, [])
        if name in self._outputs or len(readers) != 1 or not _may_be_blocked(readers[0]):
            return True
        if readers[0].op_type != "MaxPool":
            return self._reads_below(readers[0].output[0], height, rows)
        pool = {attribute.name: helper.get_attribute_value(attribute) for attribute in readers[0].attribute}
        if pool.keys() != {"kernel_shape", "pads", "strides"} or any(pool["pads"]):
            return True
        ends = {(extent - pool["kernel_shape"][0]) // pool["strides"][0] for extent in (height, rows)}
        return len(ends) > 1

    def _block(self, x: str) -> str:
        """A value in the blocked layout."""
        if x not in self._blocked:
            self._blocked[x] = self._add("ReorderInput", [x], domain=DOMAIN)
        return self._blocked[x]

    def _finish(self, name: str, x: str, channels: int) -> None:
        """Notes a blocked value, and makes the plain one, which may turn out not to be needed."""
        self._blocked[name], self.channels[name] = x, channels
        self._add("ReorderOutput", [x], domain=DOMAIN, channels=channels)
        self.nodes[-1].output[0] = name

    def _transformed(self, x: str, channels: int, lines: FloatArray, c: Convolution, axis: int) -> str:
        """Bᵀ along the height (axis 0) or the width, which is padded, at each tile: one line's channels, the next's."""
        window, extent, pad = len(lines), (c.height, c.width)[axis], c.pads[axis]
        after = TILE * -(-extent // TILE) - extent + c.pads[axis + 2]
        shape = [1, 1]
        shape[axis] = window
        place = [int(i == axis) for i in range(2)]
        strides, begin, end = [max(TILE * i, 1) for i in place], [pad * i for i in place], [after * i for i in place]
        parts = []
        for line in lines:
            kernel = np.broadcast_to(line.reshape(1, 1, *shape), (channels, 1, *shape))
            numbers = "_".join(f"{number:g}" for number in line)
            weight = self._constant(f"input{numbers}-{channels}-{axis}", blocked_weight(kernel, block_size()))
            attributes = {"kernel_shape": shape, "strides": strides, "pads": [*begin, *end]}
            parts.append(self._add("Conv", [x, weight], domain=DOMAIN, group=channels, **attributes))
        return self._add("Concat", parts, axis=1)

    def _weight(self, name: str, kernel: FloatArray, dims: tuple[int, ...], form: Form) -> str:
        """The weights of all products: G times the taps."""
        from onnx import TensorProto

        transformed = f"{self._prefix}/weight"
        self._values[transformed] = functools.partial(_products, self._values[name], kernel, block_size(), form)
        tensor = TensorProto(name=transformed, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="memory")
        self._initializers.append(tensor)
        return transformed

    def _bias(self, bias: list[str], outputs: int, place: int, products: int) -> list[str]:
        """The bias for the product at a place, 0 for the others; onnxruntime computes it once."""
        if not bias:
            return []
        zeros = [
            self._constant(f"zeros{n * outputs}", np.zeros(n * outputs, np.float32))
            for n in (place, products - place - 1)
        ]
        return [self._add("Concat", [zeros[0], bias[0], zeros[1]], axis=0)]

    def _reshape(self, x: str, extents: list[int]) -> str:
        return self._add("Reshape", [x, self._integers(extents)])

    def _integers(self, numbers: list[int]) -> str:
        return self._constant("x".join(map(str, numbers)), np.array(numbers, np.int64))

    def _constant(self, name: str, array: Any) -> str:
        """A small constant that all convolutions share."""
        from onnx import numpy_helper

        name = f"winograd:{name}"  # no slash: not a name of Lowering
        if name not in self._constants:
            self._constants.add(name)
            self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """A node; returns its output."""
        from onnx import helper

        name = f"{self._prefix}/{op_type}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, domain=domain, **attributes))
        return name


def _products(make: Callable[[], FloatArray], kernel: FloatArray, block: int, form: Form) -> FloatArray:
    """The blocked weights of one product after the other; in tiles those of one column's lie together."""
    if form == "rows":
        return _rows_of_weights(make(), kernel, block)
    columns = np.tensordot(kernel, make(), (1, 3))  # (products, outputs, channels, taps)
    return np.concatenate([_rows_of_weights(column[..., np.newaxis], kernel, block) for column in columns])


def _rows_of_weights(weight: FloatArray, kernel: FloatArray, block: int) -> FloatArray:
    """G times the taps of weights (outputs, channels, taps, width), blocked, for one product after the other."""
    rows = np.stack([blocked_weight(weight[:, :, row : row + 1], block) for row in range(weight.shape[2])])
    products: FloatArray = np.tensordot(kernel, rows, 1)  # (products, outputs, channels, 1, width)
    return products.reshape(-1, *products.shape[2:])


def _places(c: Convolution, blocks: int) -> npt.NDArray[np.int32]:
    """Where the pixels of each block of outputs lie among [column in tile][row in tile][block][tile down][tile across].

    Those of the last tiles that hang over the image are left out.
    """
    down, across = -(-c.height // TILE), -(-c.width // TILE)
    numbers = np.arange(TILE * TILE * blocks * down * across, dtype=np.int32)
    images = numbers.reshape(TILE, TILE, blocks, down, across).transpose(2, 3, 1, 4, 0)
    images = images.reshape(blocks, down * TILE, across * TILE)
    return np.ascontiguousarray(images[:, : c.height, : c.width]).reshape(-1)
