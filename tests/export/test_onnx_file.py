from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import onnx
import pytest

import pycaffe
from pycaffe.errors import CaffeError, ExportError, InputError, ProtoError, WeightsError
from pycaffe.export import export_onnx, onnx_file
from pycaffe.net import TEST, TRAIN, Net
from tests.export.nets import CAFFENET, MIXED, answer, assert_same, conv, filled, left_behind, noise, run_file
from tests.layers.case import GOLDEN
from tests.net.nets import data, ip, layer, net_of, normal


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    """Alone in its folder."""
    (tmp_path / "exported").mkdir()
    return tmp_path / "exported" / "net.onnx"


@pytest.mark.parametrize("text", [CAFFENET, MIXED])
def test_names_shapes_and_values(text: str, out: pathlib.Path) -> None:
    net = filled(text)
    report = pycaffe.export_onnx(net, out)
    assert (report.path, report.opset, report.errors) == (str(out), 17, {})
    assert report.size == out.stat().st_size
    assert report.inputs == {"data": ("N", *net.blobs["data"].shape[1:])}
    assert report.outputs == {name: ("N", *net.blobs[name].shape[1:]) for name in net.outputs}
    onnx.checker.check_model(onnx.load(out), full_check=True)
    for batch in (1, 2, 7):
        inputs = noise(net, batch)
        assert_same(answer(net, inputs), run_file(out, inputs))
    assert left_behind(out.parent) == ["net.onnx"]


def test_a_file_says_what_it_is(out: pathlib.Path) -> None:
    pycaffe.export_onnx(filled(CAFFENET), out)
    model = onnx.load(out)
    assert (model.graph.name, model.producer_name, model.ir_version) == ("small CaffeNet", "pycaffe", 8)
    made = {name for node in model.graph.node for name in node.output}
    assert {"conv1", "pool1", "norm1", "fc7", "prob"} <= made, "values have the names of their blobs"
    assert {node.name.rpartition("/")[0] for node in model.graph.node} >= {"conv1", "relu1", "norm1", "fc6"}
    assert "Identity" not in {node.op_type for node in model.graph.node}


def test_files_instead_of_a_net(tmp_path: pathlib.Path, out: pathlib.Path) -> None:
    (tmp_path / "net.prototxt").write_text(MIXED, encoding="utf-8")
    net = filled(MIXED)
    net.save(tmp_path / "net.caffemodel")
    pycaffe.export_onnx((tmp_path / "net.prototxt", str(tmp_path / "net.caffemodel")), str(out))
    inputs = noise(net)
    assert_same(answer(net, inputs), run_file(out, inputs))


CASES = sorted(path.stem for path in GOLDEN.glob("*.prototxt") if not path.stem.endswith("_train"))
STATEFUL = ["filter", "lstm", "lstm_static", "rnn", "rnn_static"]
ONE_BATCH = ["bias_2", "lstm_expose", "scale_5"]


@pytest.mark.parametrize("name", CASES)
def test_every_golden_net_or_a_reason(name: str, out: pathlib.Path) -> None:
    net = Net(GOLDEN / f"{name}.prototxt", TEST)
    with np.load(GOLDEN / f"{name}.npz") as answers:
        for key, value in answers.items():
            kind, *place = key.split("/")
            if kind == "param":
                net.params[place[0]][int(place[1])].data[...] = value
        inputs = {key.partition("/")[2]: answers[key] for key in answers if key.startswith("in/")}
    if name in STATEFUL:
        with pytest.raises(ExportError, match=rf"Cannot export layer 'l' of type .*{name}.prototxt:\d+, layer 'l'"):
            export_onnx(net, out)
        return
    dynamic = name not in ONE_BATCH
    if not dynamic:
        with pytest.raises(ExportError, match=r"layer 'l'\. dynamic_batch=False exports this net for batch"):
            export_onnx(net, out)
        assert left_behind(out.parent) == []
    for opset in (13, 17, 21):
        report = export_onnx(net, out, opset=opset, dynamic_batch=dynamic, check=inputs)
        assert all(error.relative < 1e-5 for error in report.errors.values())
        assert set(report.errors) == set(net.outputs) - set(net.inputs)
        assert onnx.load(out).opset_import[0].version == opset
    export_onnx(net, out, dynamic_batch=dynamic, check=True)


# -- the batch


def test_a_batch_that_is_fixed(out: pathlib.Path) -> None:
    net = filled(MIXED)
    report = export_onnx(net, out, dynamic_batch=False)
    assert report.inputs == {"data": (2, 3, 12, 15)}
    assert report.outputs["flat"] == (2, 4)
    inputs = noise(net)
    assert_same(answer(net, inputs), run_file(out, inputs))


def test_the_present_shape_of_the_net_counts(out: pathlib.Path) -> None:
    net = filled(MIXED)
    net.blobs["data"].reshape(4, 3, 10, 9)
    assert export_onnx(net, out, dynamic_batch=False).inputs == {"data": (4, 3, 10, 9)}
    report = export_onnx(net, out, check=True)
    assert report.inputs == {"data": ("N", 3, 10, 9)}
    assert net.blobs["data"].shape == (4, 3, 10, 9)


BAKED = (
    data(4, 3, 5, 6)
    + layer("first", "ReLU", "data")
    + layer("pairs", "Reshape", "first", rest="reshape_param { shape { dim: 2 dim: -1 } }")
    + ip("fc", "pairs", 3)
)


def test_layers_that_hold_one_batch_only(out: pathlib.Path) -> None:
    """In Caffe as in the file, that is: the reason is the layer's own."""
    with pytest.raises(
        ExportError, match=r"batch 4, and not 3.*test.prototxt:\d+, layer 'fc'.*exports this net for batch 4"
    ):
        export_onnx(net_of(BAKED), out)
    assert left_behind(out.parent) == []
    export_onnx(net_of(BAKED), out, dynamic_batch=False, check=True)


def test_outputs_whose_first_extent_is_no_batch(out: pathlib.Path) -> None:
    flat = layer("flat", "Flatten", "data", rest="flatten_param { axis: 0 end_axis: 1 }")
    net = net_of(data(2, 3, 5) + flat + layer("sum", "Reduction", "data"))
    assert export_onnx(net, out, check=True).outputs == {"flat": ("3*N", 5), "sum": ()}


def test_inputs_with_another_first_extent_keep_it(out: pathlib.Path) -> None:
    net = net_of(data(2, 3, 4) + data(5, 6, name="other") + ip("a", "data", 3) + ip("b", "other", 2))
    report = export_onnx(net, out, check=True)
    assert report.inputs == {"data": ("N", 3, 4), "other": (5, 6)}
    assert report.outputs == {"a": ("N", 3), "b": (5, 2)}


# -- values without a computation of their own


def test_outputs_that_share_memory_or_a_value(out: pathlib.Path) -> None:
    net = net_of(
        data(2, 3, 4, 5)
        + layer("flat", "Flatten", "data", "flat")
        + layer("split", "Split", "flat", "one two")
        + layer("again", "Reshape", "one", rest="reshape_param { shape { dim: 0 dim: 4 dim: -1 } }")
    )
    inputs = noise(net)
    report = export_onnx(net, out, check=[inputs])
    assert report.outputs == {"again": ("N", 4, 15), "two": ("N", 60)}
    assert run_file(out, inputs)["two"].tobytes() == inputs["data"].tobytes()


def test_an_input_changed_in_place_and_an_input_nobody_reads(out: pathlib.Path) -> None:
    text = data(2, 3) + data(2, 1, name="label") + layer("twice", "Power", "data", "data", "power_param { scale: 2 }")
    net = net_of(text)
    report = export_onnx(net, out, check=True)
    assert list(report.inputs) == ["data", "label"]
    assert report.outputs == {"twice": ("N", 3)}
    inputs = noise(net)
    assert run_file(out, inputs)["twice"].tolist() == (2 * inputs["data"]).tolist()


def test_a_parameter_as_an_output_and_a_net_without_inputs(out: pathlib.Path) -> None:
    net = net_of(layer("p", "Parameter", rest="parameter_param { shape { dim: 2 dim: 3 } }"))
    net.params["p"][0].data[...] = normal(2, 3)
    assert export_onnx(net, out, check=True).outputs == {"p": (2, 3)}
    assert run_file(out, {})["p"].tolist() == normal(2, 3).tolist()


def test_blob_names_that_meet_the_names_of_values(out: pathlib.Path) -> None:
    net = net_of(
        data(2, 3, name="fc/param0")
        + ip("fc", "fc/param0", 4, top="fc/Gemm_1")
        + layer("relu", "ReLU", "fc/Gemm_1", "fc/param1")
    )
    inputs = noise(net)
    report = export_onnx(net, out, check=[inputs])
    assert (list(report.inputs), list(report.outputs)) == (["fc/param0"], ["fc/param1"])
    assert_same(answer(net, inputs), run_file(out, inputs))


def test_shared_parameters_and_weighted_losses(out: pathlib.Path) -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    net = net_of(
        data(2, 3)
        + data(2, 3, name="label")
        + ip("a", "data", 3, shared)
        + ip("b", "a", 3, shared)
        + layer("loss", "EuclideanLoss", "b label", rest="loss_weight: 3")
        + layer("tail", "ReLU", "loss")
    )
    inputs = noise(net)
    export_onnx(net, out, check=[inputs])
    assert len([tensor for tensor in onnx.load(out).graph.initializer if list(tensor.dims) == [3, 3]]) <= 2
    assert_same(answer(net, inputs), run_file(out, inputs))


# -- what export leaves alone


def test_the_net_is_not_disturbed(out: pathlib.Path) -> None:
    net = filled(MIXED)
    inputs = noise(net)
    view = net.forward(**inputs)["flat"]
    before, shapes = view.copy(), {name: blob.shape for name, blob in net.blobs.items()}
    export_onnx(net, out, check=True)
    assert view.tolist() == before.tolist()
    assert {name: blob.shape for name, blob in net.blobs.items()} == shapes
    assert net.forward()["flat"].tolist() == before.tolist()


def test_net_surgery_is_exported(out: pathlib.Path) -> None:
    net = filled(CAFFENET)
    net.params["fc7"][1].data[...] = [50, 0, 0, 0, 0, 0, 0]
    export_onnx(net, out)
    assert run_file(out, noise(net))["prob"][:, 0].min() > 0.99


# -- large files


def test_weights_beside_the_file(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 0)
    net = filled(CAFFENET)
    inputs = noise(net)
    report = export_onnx(net, out, check=True)
    assert left_behind(out.parent) == ["net.onnx", "net.onnx.data"]
    assert out.stat().st_size < out.with_name("net.onnx.data").stat().st_size
    assert report.size == sum(path.stat().st_size for path in out.parent.iterdir())
    for tensor in onnx.load(out, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            assert (place["location"], int(place["offset"]) % 4096) == ("net.onnx.data", 0)
    moved = out.parent.with_name("moved")
    out.parent.rename(moved)
    assert_same(answer(net, inputs), run_file(moved / "net.onnx", inputs))


def test_a_link_is_followed(out: pathlib.Path) -> None:
    link = out.parent.parent / "link.onnx"
    link.symlink_to(out)
    export_onnx(filled(CAFFENET), link)
    assert link.is_symlink()
    assert left_behind(out.parent) == ["net.onnx"]


# -- refusals


PYTHON = layer("mine", "Python", "fc", rest='python_param { module: "user_layers_export" layer: "Mine" }')
LSTM = layer("lstm", "LSTM", "x cont", rest="recurrent_param { num_output: 3 }")


def test_a_layer_without_an_onnx_form(out: pathlib.Path) -> None:
    net = net_of(data(4, 2, 5, name="x") + data(4, 2, name="cont") + LSTM)
    message = (
        r"Cannot export layer 'lstm' of type 'LSTM' to ONNX: without expose_hidden .* In test.prototxt:3, layer 'lstm'"
    )
    with pytest.raises(ExportError, match=message):
        export_onnx(net, out)
    assert left_behind(out.parent) == []


def test_a_python_layer(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    from pycaffe.layers.python import UserLayer

    class Mine(UserLayer):
        def setup(self, bottom: object, top: object) -> None: ...

        def reshape(self, bottom, top):
            top[0].reshape(*bottom[0].shape)

    module = types.ModuleType("user_layers_export")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "user_layers_export", module)
    net = net_of(data(2, 3) + ip("fc", "data", 4) + PYTHON)
    with pytest.raises(
        ExportError, match=r"'mine' of type 'Python' to ONNX: it runs in Python.*test.prototxt:\d.*Take the layer out"
    ):
        export_onnx(net, out)
    assert left_behind(out.parent) == []


def test_a_data_layer_is_refused_before_its_data_are_looked_for(tmp_path: pathlib.Path, out: pathlib.Path) -> None:
    reader = layer("read", "Data", top="data", rest='data_param { source: "none" batch_size: 2 }')
    (tmp_path / "train_val.prototxt").write_text(reader + ip("fc", "data", 4), encoding="utf-8")
    message = r"'read' of type 'Data' to ONNX.*train_val.prototxt:1, layer 'read'. Give the net's deploy form"
    with pytest.raises(ExportError, match=message):
        export_onnx((tmp_path / "train_val.prototxt", tmp_path / "none.caffemodel"), out)
    assert left_behind(out.parent) == []


def test_a_net_in_training(out: pathlib.Path) -> None:
    with pytest.raises(ExportError, match=r"TRAIN phase to ONNX. Build it with pycaffe.TEST"):
        export_onnx(net_of(MIXED, TRAIN), out)


@pytest.mark.parametrize("opset", [12, 22, True, "17", 17.0])
def test_opsets_that_are_not_there(opset: int, out: pathlib.Path) -> None:
    with pytest.raises(ExportError, match=f"Cannot export to opset {opset!r}. Expected one from 13 to 21"):
        export_onnx(filled(CAFFENET), out, opset=opset)


def test_an_operator_that_is_younger_than_the_opset(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import helper

    lower = onnx_file.lower_net

    def with_a_young_operator(net, dynamic_batch):
        lowered = lower(net, dynamic_batch)
        lowered.nodes[-1] = helper.make_node("HardSwish", lowered.nodes[-1].input[:1], lowered.nodes[-1].output)
        return lowered

    monkeypatch.setattr(onnx_file, "lower_net", with_a_young_operator)
    with pytest.raises(ExportError, match=r"(?s)Cannot express this net in opset 13: .*HardSwish.*Opset 17 can"):
        export_onnx(net_of(data(2, 3) + layer("r", "ReLU", "data")), out, opset=13)
    assert left_behind(out.parent) == []


def test_files_that_are_not_there(tmp_path: pathlib.Path, out: pathlib.Path) -> None:
    (tmp_path / "net.prototxt").write_text(CAFFENET, encoding="utf-8")
    with pytest.raises(ProtoError, match=r"none.prototxt"):
        export_onnx((tmp_path / "none.prototxt", tmp_path / "none.caffemodel"), out)
    with pytest.raises(WeightsError, match=r"none.caffemodel"):
        export_onnx((tmp_path / "net.prototxt", tmp_path / "none.caffemodel"), out)
    with pytest.raises(InputError, match=r"Expected a Net or \(prototxt, caffemodel\), got 'net.prototxt'"):
        export_onnx("net.prototxt", out)  # type: ignore[arg-type]
    with pytest.raises(CaffeError, match="Unknown layer type: Pooing"):
        (tmp_path / "wrong.prototxt").write_text(data(2, 3) + layer("p", "Pooing", "data"), encoding="utf-8")
        export_onnx((tmp_path / "wrong.prototxt", tmp_path / "none.caffemodel"), out)
    assert left_behind(out.parent) == []


def test_places_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    net = filled(CAFFENET)
    with pytest.raises(ExportError, match=r"Could not write '.*no/net.onnx': No such file or directory"):
        export_onnx(net, tmp_path / "no" / "net.onnx")
    with pytest.raises(ExportError, match=r"Could not write '.*': Is a directory"):
        export_onnx(net, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match=r"Could not write '.*file/net.onnx': Not a directory"):
        export_onnx(net, tmp_path / "file" / "net.onnx")
    assert left_behind(tmp_path) == ["file"]


def test_a_full_disk_keeps_the_old_file(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.write_bytes(b"old")

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(onnx_file, "_write", full)
    with pytest.raises(ExportError, match="No space left on device"):
        export_onnx(filled(CAFFENET), out)
    assert (left_behind(out.parent), out.read_bytes()) == (["net.onnx"], b"old")


def test_convolution_over_a_vector_of_time(out: pathlib.Path) -> None:
    """One spatial axis: no image anywhere."""
    net = net_of(data(2, 3, 11) + conv("c", "data", 4, "kernel_size: 3 stride: 2"))
    assert export_onnx(net, out, check=True).outputs == {"c": ("N", 4, 5)}
