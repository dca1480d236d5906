"""Draws a net as a graph of its layers and blobs. Needs pydot (or pydotplus) and Graphviz's program `dot`."""

from __future__ import annotations

from typing import Any

from caffe.proto import caffe_pb2
from pycaffe.errors import InputError, MissingExtra

__all__ = [
    "BLOB_STYLE",
    "LAYER_STYLE_DEFAULT",
    "NEURON_LAYER_STYLE",
    "choose_color_by_layertype",
    "draw_net",
    "draw_net_to_file",
    "get_edge_label",
    "get_layer_label",
    "get_layer_lr_mult",
    "get_pooling_types_dict",
    "get_pydot_graph",
]

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLOURS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct")
_EMPTY_LABEL = '""'


def get_pooling_types_dict() -> dict[int, str]:
    """Number → name of the pooling methods: {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}."""
    values = caffe_pb2.PoolingParameter.PoolMethod.DESCRIPTOR.values
    return {value.number: value.name for value in values}


def get_edge_label(layer: Any) -> str:
    """What stands at the edge from a layer to its top: the batch size of Data, the outputs of a learning layer."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return _EMPTY_LABEL


def get_layer_lr_mult(layer: Any) -> tuple[float, float]:
    """The learning rate multipliers of weights and bias, 1 where not given.

    Raises:
        InputError: (a ValueError) the layer is of another type than Convolution, Deconvolution and InnerProduct, or has
            more than two `param`.
    """
    if layer.type not in _LEARNING:
        raise InputError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise InputError(
            f"Could not parse the learning rate multiplier: layer {layer.name!r} has {len(layer.param)} param"
        )
    weights, bias = [*(param.lr_mult for param in layer.param), 1.0, 1.0][:2]
    return weights, bias


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """What stands in a layer's node: name, type, kernel, stride and pad, and on wish the learning rate multipliers.

    Args:
        layer: a LayerParameter.
        rankdir: "LR", "TB" or "BT", the direction of the graph. Parts are separated by spaces in a vertical one, by
            line breaks in a horizontal one.
        display_lrm: show the learning rate multipliers.
    """
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    parts = [layer.name]
    if layer.type == "Pooling":
        param = layer.pooling_param
        parts.append(f"({layer.type} {get_pooling_types_dict()[param.pool]})")
        parts += _geometry(param.kernel_size, param.stride, param.pad)
    else:
        parts.append(f"({layer.type})")
    if layer.type in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        parts += _geometry(*((values[0] if values else default) for values, default in _conv_geometry(param)))
    if display_lrm and layer.type in _LEARNING:
        weights, bias = get_layer_lr_mult(layer)
        if weights or bias:
            parts.append(f"lr mult: {weights:.1f}, {bias:.1f}")
    # In quotes, since dot reads a colon outside of them as a port.
    return f'"{separator.join(parts)}"'


def _conv_geometry(param: Any) -> list[tuple[Any, int]]:
    return [(param.kernel_size, 1), (param.stride, 1), (param.pad, 0)]


def _geometry(kernel_size: int, stride: int, pad: int) -> list[str]:
    return [f"kernel size: {kernel_size}", f"stride: {stride}", f"pad: {pad}"]


def choose_color_by_layertype(layertype: str) -> str:
    """The fill colour of a layer's node."""
    return _COLOURS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def get_pydot_graph(
    caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> Any:
    """The pydot graph of a net: a box a layer (green where it works in place), an octagon a blob.

    Args:
        caffe_net: a NetParameter.
        rankdir: "LR", "TB" or "BT", the direction of the graph.
        label_edges: write `get_edge_label` at the edges to tops.
        phase: `caffe.TRAIN` or `caffe.TEST`, to leave out layers of the other; None shows all.
        display_lrm: show the learning rate multipliers.

    Raises:
        MissingExtra: pydot is not installed.
        InputError: (a ValueError) a layer has both `include` and `exclude`, and a phase is given.
    """
    pydot = _pydot()
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str, str]] = []
    for layer in caffe_net.layer:
        if phase is not None and not _in_phase(layer, phase):
            continue
        name = f"{layer.name}_{layer.type}"
        nodes[name] = pydot.Node(get_layer_label(layer, rankdir, display_lrm=display_lrm), **_layer_style(layer))
        for bottom in layer.bottom:
            nodes[f"{bottom}_blob"] = pydot.Node(str(bottom), **BLOB_STYLE)
            edges.append((f"{bottom}_blob", name, _EMPTY_LABEL))
        for top in layer.top:
            nodes[f"{top}_blob"] = pydot.Node(str(top))
            edges.append((name, f"{top}_blob", get_edge_label(layer) if label_edges else _EMPTY_LABEL))
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    for node in nodes.values():
        graph.add_node(node)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=label))
    return graph


def _layer_style(layer: Any) -> dict[str, str]:
    if len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top):
        return NEURON_LAYER_STYLE
    return {**LAYER_STYLE_DEFAULT, "fillcolor": choose_color_by_layertype(layer.type)}


def _in_phase(layer: Any, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise InputError(f"layer {layer.name} has both include and exclude specified.")
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return all(rule.phase != phase for rule in layer.exclude)


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The picture of a net as the bytes of a file of format `ext`: any that `dot` writes, or "raw" for dot's own text.

    Raises:
        MissingExtra: pydot or the program `dot` is not installed.
    """
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    if ext == "raw":
        text: str = graph.to_string()
        return text.encode()
    try:
        picture: bytes = graph.create(format=ext)
    except FileNotFoundError as error:
        raise MissingExtra(
            "Drawing a net needs Graphviz's program dot, which was not found. Install Graphviz (https://graphviz.org), "
            "or draw to a file that ends in .raw"
        ) from error
    return picture


def draw_net_to_file(
    caffe_net: Any, filename: str, rankdir: str = "LR", phase: int | None = None, display_lrm: bool = False
) -> None:
    """Writes `draw_net`'s picture to a file, in the format that its ending names."""
    picture = draw_net(caffe_net, rankdir, filename.rpartition(".")[2], phase, display_lrm)
    with open(filename, "wb") as file:
        file.write(picture)


def _pydot() -> Any:
    for name in ("pydot", "pydotplus"):
        try:
            return __import__(name)
        except ImportError:
            continue
    raise MissingExtra.of("pydot", "draw", "Drawing a net")
