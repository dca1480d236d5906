"""Brings nets and solvers of older formats to the present one, in the order of upgrade_proto.cpp.

layers { layer { ... } }   V0 -> V1; padding layers become the `pad` of what reads them
scale, mean_file, ...      of Data, ImageData and WindowData in V1 -> transform_param
layers { type: ENUM }      V1 -> V2, `layer { type: "Name" }`
input, input_dim/_shape    -> an Input layer in front
BatchNorm with 3 param     -> their lr_mult and decay_mult become 0
solver_type: ENUM          -> type: "Name"
"""

from __future__ import annotations

import logging
import os
from typing import Any

from pycaffe.errors import ProtoError, did_you_mean
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import BlobShape, LayerParameter, NetParameter, V1LayerParameter

__all__ = ["upgrade_net_as_needed", "upgrade_snapshot_prefix", "upgrade_solver_as_needed"]

logger = logging.getLogger("pycaffe")

V0_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

# For each field of V0LayerParameter: the layer types that have it, and its place in V1LayerParameter.
V0_FIELDS: dict[str, dict[str, str]] = {
    "num_output": {"conv": "convolution_param.num_output", "innerproduct": "inner_product_param.num_output"},
    "biasterm": {"conv": "convolution_param.bias_term", "innerproduct": "inner_product_param.bias_term"},
    "weight_filler": {"conv": "convolution_param.weight_filler", "innerproduct": "inner_product_param.weight_filler"},
    "bias_filler": {"conv": "convolution_param.bias_filler", "innerproduct": "inner_product_param.bias_filler"},
    "pad": {"conv": "convolution_param.pad", "pool": "pooling_param.pad"},
    "kernelsize": {"conv": "convolution_param.kernel_size", "pool": "pooling_param.kernel_size"},
    "group": {"conv": "convolution_param.group"},
    "stride": {"conv": "convolution_param.stride", "pool": "pooling_param.stride"},
    "pool": {"pool": "pooling_param.pool"},
    "dropout_ratio": {"dropout": "dropout_param.dropout_ratio"},
    "local_size": {"lrn": "lrn_param.local_size"},
    "alpha": {"lrn": "lrn_param.alpha"},
    "beta": {"lrn": "lrn_param.beta"},
    "k": {"lrn": "lrn_param.k"},
    "source": {
        "data": "data_param.source",
        "hdf5_data": "hdf5_data_param.source",
        "images": "image_data_param.source",
        "window_data": "window_data_param.source",
        "infogain_loss": "infogain_loss_param.source",
    },
    "batchsize": {
        "data": "data_param.batch_size",
        "hdf5_data": "hdf5_data_param.batch_size",
        "images": "image_data_param.batch_size",
        "window_data": "window_data_param.batch_size",
    },
    "rand_skip": {"data": "data_param.rand_skip", "images": "image_data_param.rand_skip"},
    "shuffle_images": {"images": "image_data_param.shuffle"},
    "new_height": {"images": "image_data_param.new_height"},
    "new_width": {"images": "image_data_param.new_width"},
    "concat_dim": {"concat": "concat_param.concat_dim"},
    "det_fg_threshold": {"window_data": "window_data_param.fg_threshold"},
    "det_bg_threshold": {"window_data": "window_data_param.bg_threshold"},
    "det_fg_fraction": {"window_data": "window_data_param.fg_fraction"},
    "det_context_pad": {"window_data": "window_data_param.context_pad"},
    "det_crop_mode": {"window_data": "window_data_param.crop_mode"},
    "hdf5_output_param": {"hdf5_output": "hdf5_output_param"},
}
# These apply to every type.
V0_TRANSFORM_FIELDS = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

V1_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
V1_DATA_PARAMS = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
DATA_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")

SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def upgrade_net_as_needed(net: Any) -> None:
    """Upgrades a NetSource or a NetParameter in place. Logs what no present field can hold, as the original does.

    Raises ProtoError for an unknown V0 layer type, a padding layer in a place where it has no meaning, a net with both
    `layer` and `layers`, and inputs without their dimensions. Source: upgrade_proto.cpp, UpgradeNetAsNeeded.
    """
    source = net if isinstance(net, NetSource) else NetSource(net)
    param = source.param
    if any(layer.HasField("layer") for layer in param.layers):
        _upgrade_v0(source)
    if any(_has_data_transform(layer) for layer in param.layers):
        for layer in param.layers:
            _upgrade_data_transform(layer)
    if param.layers:
        _upgrade_v1(source)
    if param.input:
        _upgrade_input(source)
    for layer in param.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:
            for spec in layer.param:
                spec.lr_mult = 0
                spec.decay_mult = 0


def _place(source: NetSource, index: int, name: str) -> str:
    line = source.line(index)
    return f"{source.filename}:{line}, layer {name!r}" if source.filename and line else f"layer {name!r}"


# ---------- V0 to V1


def _upgrade_v0(source: NetSource) -> None:
    old = NetParameter()
    old.CopyFrom(source.param)
    layers, lines = _merge_padding(source, old)
    new = source.param
    new.Clear()
    if old.HasField("name"):
        new.name = old.name
    for index, connection in enumerate(layers):
        _upgrade_v0_layer(source, connection, lines[index], new.layers.add())
    new.input.extend(old.input)
    new.input_dim.extend(old.input_dim)
    if old.HasField("force_backward"):
        new.force_backward = old.force_backward
    source.layer_lines = lines


def _merge_padding(source: NetSource, net: Any) -> tuple[list[Any], list[int]]:
    """The layers of `net` without those of type padding, and their lines."""
    layers: list[Any] = []
    lines: list[int] = []
    producer: dict[str, int] = dict.fromkeys(net.input, -1)
    for index, connection in enumerate(net.layers):
        kept = V1LayerParameter()
        kept.CopyFrom(connection)
        if connection.layer.type != "padding":
            layers.append(kept)
            lines.append(source.line(index))
        for j, blob in enumerate(connection.bottom):
            if blob not in producer:
                where = _place(source, index, connection.layer.name)
                raise ProtoError(f"Unknown blob input {blob} to layer {j}. In {where}.{did_you_mean(blob, producer)}")
            maker = net.layers[producer[blob]] if producer[blob] >= 0 else None
            if maker is not None and maker.layer.type == "padding":
                _check_padding(source, index, connection, maker)
                kept.layer.pad = maker.layer.pad
                kept.bottom[j] = maker.bottom[0]
        producer.update(dict.fromkeys(connection.top, index))
    return layers, lines


def _check_padding(source: NetSource, index: int, reader: Any, padding: Any) -> None:
    where = _place(source, index, reader.layer.name)
    if reader.layer.type not in ("conv", "pool"):
        kind = reader.layer.type
        raise ProtoError(f"Padding layer input to non-convolutional / non-pooling layer type {kind}. In {where}.")
    if len(reader.bottom) != 1:
        raise ProtoError(f"Conv Layer takes a single blob as input. In {where}: {len(reader.bottom)} bottoms.")
    if len(padding.bottom) != 1 or len(padding.top) != 1:
        counts = f"{len(padding.bottom)} bottoms and {len(padding.top)} tops"
        raise ProtoError(f"Padding Layer takes a single blob as input and makes one. Before {where}: {counts}.")


def _upgrade_v0_layer(source: NetSource, connection: Any, line: int, new: Any) -> None:
    new.bottom.extend(connection.bottom)
    new.top.extend(connection.top)
    if not connection.HasField("layer"):
        return
    old = connection.layer
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            where = f"{source.filename}:{line}, " if source.filename and line else ""
            raise ProtoError(
                f"Unknown layer name: {old.type} (a V0 layer type). In {where}layer {old.name!r}."
                f"{did_you_mean(old.type, V0_TYPES)}"
            )
        new.type = V1LayerParameter.LayerType.Value(V0_TYPES[old.type])
    new.blobs.extend(old.blobs)
    new.blobs_lr.extend(old.blobs_lr)
    new.weight_decay.extend(old.weight_decay)
    for name, place in V0_TRANSFORM_FIELDS.items():
        if old.HasField(name):
            setattr(new.transform_param, place, getattr(old, name))
    for name, places in V0_FIELDS.items():
        if not old.HasField(name):
            continue
        if old.type in places:
            _put(new, places[old.type], getattr(old, name))
        else:
            logger.error("Unknown parameter %s for layer type %s", name, old.type)


def _put(message: Any, path: str, value: Any) -> None:
    """Sets the field at a dotted path: appended where repeated, copied where a message."""
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    target = getattr(message, name)
    if hasattr(target, "append"):
        target.append(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, name, value)


# ---------- V1 to V2


def _has_data_transform(layer: Any) -> bool:
    name = V1_DATA_PARAMS.get(V1LayerParameter.LayerType.Name(layer.type))
    return name is not None and any(getattr(layer, name).HasField(field) for field in DATA_TRANSFORM_FIELDS)


def _upgrade_data_transform(layer: Any) -> None:
    name = V1_DATA_PARAMS.get(V1LayerParameter.LayerType.Name(layer.type))
    if name is None:
        return
    # The original touches both messages, which marks them as present even where nothing moves.
    data = getattr(layer, name)
    data.SetInParent()
    layer.transform_param.SetInParent()
    for field in DATA_TRANSFORM_FIELDS:
        if data.HasField(field):
            setattr(layer.transform_param, field, getattr(data, field))
            data.ClearField(field)


def _upgrade_v1(source: NetSource) -> None:
    param = source.param
    if param.layer:
        place = f" In {source.filename}." if source.filename else ""
        raise ProtoError(
            "Refusing to upgrade inconsistent NetParameter input; the definition includes both 'layer' and 'layers' "
            f'fields.{place} Write every layer as layer {{ type: "Name" ... }}.'
        )
    old = list(param.layers)
    new = [_upgrade_v1_layer(layer) for layer in old]
    param.ClearField("layers")
    param.layer.extend(new)


def _upgrade_v1_layer(old: Any) -> Any:
    new = LayerParameter(bottom=old.bottom, top=old.top, blobs=old.blobs, loss_weight=old.loss_weight)
    new.include.extend(old.include)
    new.exclude.extend(old.exclude)
    if old.HasField("name"):
        new.name = old.name
    if old.HasField("type"):
        new.type = V1_TYPES[V1LayerParameter.LayerType.Name(old.type)]
    for name, values in (
        ("name", old.param),
        ("share_mode", old.blob_share_mode),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
    ):
        for i, value in enumerate(values):
            while len(new.param) <= i:
                new.param.add()
            setattr(new.param[i], name, value)
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    if old.HasField("layer"):
        logger.error("Input NetParameter has V0 layer -- ignoring.")
    return new


# ---------- input fields


def _upgrade_input(source: NetSource) -> None:
    param = source.param
    if param.input_shape or param.input_dim:
        layer = LayerParameter(name="input", type="Input", top=param.input)
        layer.input_param.shape.extend(_input_shapes(source))
        rest = list(param.layer)
        param.ClearField("layer")
        param.layer.append(layer)
        param.layer.extend(rest)
        source.layer_lines.insert(0, source.input_line)
    for name in ("input", "input_shape", "input_dim"):
        param.ClearField(name)


def _input_shapes(source: NetSource) -> list[Any]:
    param = source.param
    count = len(param.input)
    known = len(param.input_shape) if param.input_shape else len(param.input_dim) // 4
    if known < count:
        what = "input_shape" if param.input_shape else "input_dim"
        given = len(param.input_shape) if param.input_shape else len(param.input_dim)
        needed = count if param.input_shape else 4 * count
        place = f" In {source.filename}:{source.input_line}." if source.filename else ""
        raise ProtoError(
            f"Must specify either input_shape OR deprecated input_dim for every input.{place} "
            f"{count} inputs need {needed} {what} fields, got {given}."
        )
    if param.input_shape:
        return list(param.input_shape[:count])
    return [BlobShape(dim=param.input_dim[4 * i : 4 * i + 4]) for i in range(count)]


# ---------- solvers


def upgrade_solver_as_needed(param: Any, filename: str = "") -> None:
    """Replaces the enum `solver_type` by the string `type`, in place; ProtoError where both are given."""
    if not param.HasField("solver_type"):
        return
    if param.HasField("type"):
        place = f" In {filename}." if filename else ""
        raise ProtoError(
            "Failed to upgrade solver: old solver_type field (enum) and new type field (string) cannot be both "
            f"specified in solver proto text.{place} Remove solver_type."
        )
    param.type = SOLVER_TYPES[type(param).SolverType.Name(param.solver_type)]
    param.ClearField("solver_type")


def upgrade_snapshot_prefix(param: Any, filename: str) -> None:
    """Without `snapshot_prefix` it becomes the solver's path without extension; a folder gets the solver's name."""
    stem = os.path.splitext(filename)[0]
    if not param.HasField("snapshot_prefix"):
        param.snapshot_prefix = stem
    elif os.path.isdir(param.snapshot_prefix):
        param.snapshot_prefix = os.path.join(param.snapshot_prefix, os.path.basename(stem))
