"""The schema: complete, its own pool, picklable."""

from __future__ import annotations

import copy
import pathlib
import pickle
import subprocess
import sys
import textwrap

import pytest
from google.protobuf import descriptor_pb2, text_format

from caffe.proto import caffe_pb2
from pycaffe.proto import schema

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter that finds the packages of this repository."""
    source = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", source], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_binpb_is_what_caffe_proto_compiles_to(tmp_path):
    fresh = tmp_path / "fresh.binpb"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "compile_proto"), str(fresh)], check=True, timeout=60)
    committed = (ROOT / "src" / "pycaffe" / "proto" / "caffe.binpb").read_bytes()
    parse = descriptor_pb2.FileDescriptorSet.FromString
    assert parse(fresh.read_bytes()) == parse(committed)


def test_stock_numbers_and_defaults():
    layer = schema.LayerParameter.DESCRIPTOR.fields_by_name
    assert layer["blobs"].number == 7
    assert layer["convolution_param"].number == 106
    assert layer["clip_param"].number == 148
    net = schema.NetParameter.DESCRIPTOR.fields_by_name
    assert (net["layers"].number, net["layer"].number) == (2, 100)
    blob = schema.BlobProto.DESCRIPTOR.fields_by_name
    assert {name: blob[name].number for name in ("data", "shape", "double_data", "raw_data_type", "raw_data")} == {
        "data": 5,
        "shape": 7,
        "double_data": 8,
        "raw_data_type": 10,
        "raw_data": 12,
    }
    assert schema.SolverParameter().delta == pytest.approx(1e-8)
    assert schema.FillerParameter().type == "constant"
    assert schema.SolverParameter().solver_mode == schema.SolverParameter.GPU


def test_packed_floats_as_caffe_writes_them():
    blob = schema.BlobProto(data=[1.0, -2.0], shape=schema.BlobShape(dim=[2]))
    assert blob.SerializeToString() == b"\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0\x3a\x03\x0a\x01\x02"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("permute_param", "PermuteParameter"),
        ("norm_param", "NormalizeParameter"),
        ("prior_box_param", "PriorBoxParameter"),
        ("detection_output_param", "DetectionOutputParameter"),
        ("multibox_loss_param", "MultiBoxLossParameter"),
        ("annotated_data_param", "AnnotatedDataParameter"),
        ("roi_pooling_param", "ROIPoolingParameter"),
        ("psroi_pooling_param", "PSROIPoolingParameter"),
        ("interp_param", "InterpParameter"),
        ("shuffle_channel_param", "ShuffleChannelParameter"),
        ("upsample_param", "UpsampleParameter"),
        ("reorg_param", "ReorgParameter"),
        ("relu6_param", "ReLUParameter"),
        ("bn_param", "BNParameter"),
        ("yolov3_param", "Yolov3Parameter"),
    ],
)
def test_fork_layers_have_their_parameters(field, message):
    assert schema.LayerParameter.DESCRIPTOR.fields_by_name[field].message_type.name == message


def test_only_stock_clip_has_required_fields():
    required = {
        f"{message.name}.{field.name}"
        for message in schema.DESCRIPTOR.message_types_by_name.values()
        for field in _proto_of(message).field
        if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED
    }
    assert required == {"ClipParameter.min", "ClipParameter.max"}


def _proto_of(message):
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    return proto


def test_caffe_pb2_has_every_name():
    for name in schema.DESCRIPTOR.message_types_by_name:
        assert getattr(caffe_pb2, name) is getattr(schema, name)
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (0, 1)
    assert caffe_pb2.Phase.Value("TEST") == 1
    assert caffe_pb2.V1LayerParameter.LayerType.Name(caffe_pb2.V1LayerParameter.CONVOLUTION) == "CONVOLUTION"
    assert caffe_pb2.PoolingParameter.PoolMethod.items() == [("MAX", 0), ("AVE", 1), ("STOCHASTIC", 2)]
    assert caffe_pb2.DESCRIPTOR.package == "caffe"
    with pytest.raises(AttributeError, match="Phaze"):
        caffe_pb2.Phaze  # noqa: B018


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_messages_and_enums_pickle(protocol):
    net = schema.NetParameter(name="n")
    net.layer.add(name="conv", type="Convolution").convolution_param.kernel_size.append(3)
    back = pickle.loads(pickle.dumps(net, protocol))
    assert back == net and type(back) is schema.NetParameter
    assert pickle.loads(pickle.dumps(schema.NetParameter, protocol)) is schema.NetParameter
    for enum in (schema.Phase, schema.V1LayerParameter.LayerType, schema.PoolingParameter.PoolMethod):
        assert pickle.loads(pickle.dumps(enum, protocol)) is enum
        assert copy.deepcopy(enum) is enum
    copied = copy.deepcopy(net)
    copied.layer[0].name = "other"
    assert net.layer[0].name == "conv"


def test_every_message_says_where_it_lives():
    for name, cls in schema.MESSAGES.items():
        assert (cls.__module__, cls.__qualname__) == ("caffe.proto.caffe_pb2", name)
        assert pickle.loads(pickle.dumps(cls())) == cls()


def test_text_format_both_ways():
    net = text_format.Parse('name: "a" layer { name: "p" pooling_param { pool: AVE } }', schema.NetParameter())
    assert net.layer[0].pooling_param.pool == schema.PoolingParameter.AVE
    assert text_format.Parse(text_format.MessageToString(net), schema.NetParameter()) == net


FOREIGN = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
def foreign():
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    datum = file.message_type.add(name="Datum")
    datum.field.add(name="fork_field", number=1, type=9, label=1)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.Datum"))
"""


@pytest.mark.parametrize("order", ["ours = load(); theirs = foreign()", "theirs = foreign(); ours = load()"])
def test_a_forks_own_caffe_pb2_does_not_clash(order):
    code = f"""
def load():
    from caffe.proto import caffe_pb2
    return caffe_pb2.Datum
{order}
assert theirs(fork_field="x").SerializeToString() == b"\\x0a\\x01x"
assert ours(channels=3).SerializeToString() == b"\\x08\\x03"
print("both")
"""
    assert run_python(FOREIGN + code) == "both\n"


def test_works_on_the_pure_python_protobuf():
    code = """
    import os
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
    import pickle
    from caffe.proto import caffe_pb2
    from google.protobuf.internal import api_implementation
    net = caffe_pb2.NetParameter(name="n")
    net.layer.add(name="l")
    assert pickle.loads(pickle.dumps(net)) == net
    print(api_implementation.Type(), caffe_pb2.V1LayerParameter.LayerType.Name(4))
    """
    assert run_python(code) == "python CONVOLUTION\n"
