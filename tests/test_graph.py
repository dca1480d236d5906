from __future__ import annotations

import pickle

import numpy as np
import pytest

from pycaffe.errors import DuplicateTop, LayerError, NetError, ShapeError, UnknownBottom, UnknownLayerType
from pycaffe.graph import check_range
from pycaffe.net import TEST, TRAIN
from tests.net.nets import data, fill_params, ip, layer, net_of, normal

X = data(2, 3, 4, 5)


def needs(net) -> dict[str, bool]:
    return {node.name: node.need_backward for node in net._graph.nodes}


def bottoms_need(net) -> dict[str, tuple[bool, ...]]:
    return {node.name: node.bottom_need_backward for node in net._graph.nodes}


# -- which layers there are


def test_layers_are_filtered_by_phase_level_and_stage() -> None:
    text = (
        X
        + layer("train", "ReLU", "data", "a", "include { phase: TRAIN }")
        + layer("test", "TanH", "data", "a", "include { phase: TEST }")
        + layer("deep", "Sigmoid", "a", "b", "include { min_level: 2 max_level: 3 }")
        + layer("staged", "AbsVal", "a", "c", 'include { stage: "deploy" not_stage: "debug" }')
        + layer("kept", "BNLL", "a", "d", "exclude { phase: TRAIN }")
    )

    def names(*args, **kwargs) -> list[str]:
        return [n for n in net_of(text, *args, **kwargs)._layer_names if "split" not in n]

    assert names(TRAIN) == ["data", "train"]
    assert names(TEST) == ["data", "test", "kept"]
    assert names(TEST, level=2) == ["data", "test", "deep", "kept"]
    assert names(TEST, level=4) == ["data", "test", "kept"]
    assert names(TEST, stages=["deploy"]) == ["data", "test", "staged", "kept"]
    assert names(TEST, stages=["deploy", "debug"]) == ["data", "test", "kept"]


def test_stages_join_those_of_the_file() -> None:
    text = 'state { stage: "one" }' + X + layer("both", "ReLU", "data", "a", 'include { stage: "one" stage: "two" }')
    assert net_of(text)._layer_names == ["data"]
    assert net_of(text, stages=["two"])._layer_names == ["data", "both"]


def test_a_blob_with_two_readers_goes_through_a_visible_split() -> None:
    net = net_of(X + layer("a", "ReLU", "data") + layer("b", "TanH", "data"))
    assert net._layer_names == ["data", "data_data_0_split", "a", "b"]
    assert list(net.blobs) == ["data", "data_data_0_split_0", "data_data_0_split_1", "a", "b"]
    assert net.bottom_names["b"] == ["data_data_0_split_1"]
    net.forward(data=normal(2, 3, 4, 5))
    np.testing.assert_array_equal(net.blobs["data_data_0_split_1"].data, normal(2, 3, 4, 5))


def test_an_in_place_layer_works_on_its_bottoms_blob() -> None:
    net = net_of(X + layer("a", "Power", "data", rest="power_param { scale: -1 }") + layer("b", "ReLU", "a", "a"))
    assert list(net.blobs) == ["data", "a"]
    assert net._bottom_ids(2) == net._top_ids(2) == [1]
    assert [node.in_place for node in net._graph.nodes] == [False, False, True]
    net.forward(data=normal(2, 3, 4, 5))
    np.testing.assert_array_equal(net.blobs["a"].data, np.maximum(-normal(2, 3, 4, 5), 0))


def test_inputs_are_in_file_order_and_outputs_sorted() -> None:
    net = net_of(
        data(2, 3, name="z") + data(2, 4, name="b") + layer("one", "ReLU", "b", "y") + layer("two", "ReLU", "z", "c")
    )
    assert (net.inputs, net.outputs) == (["z", "b"], ["c", "y"])


def test_a_loss_without_a_top_gets_an_anonymous_one() -> None:
    net = net_of(X + data(2, 3, 4, 5, name="label") + layer("l", "EuclideanLoss", "data label", ""))
    assert "(automatic)" in net.blobs
    assert net.outputs == []
    assert net.blob_loss_weights["(automatic)"] == 1


# -- loss weights


def test_loss_weights_by_default_and_as_stated() -> None:
    label = data(2, 3, 4, 5, name="label")
    net = net_of(X + label + layer("l", "EuclideanLoss", "data label"))
    assert net.blob_loss_weights == {"data": 0, "label": 0, "l": 1}
    assert net.blobs["l"].diff == 1
    net = net_of(X + label + layer("l", "EuclideanLoss", "data label", rest="loss_weight: 0.25"))
    assert net.blob_loss_weights["l"] == 0.25
    assert net.blobs["l"].diff == 0.25
    net = net_of(X + layer("r", "Power", "data", rest="loss_weight: 3"))
    np.testing.assert_array_equal(net.blobs["r"].diff, np.full((2, 3, 4, 5), 3))


def test_another_number_of_loss_weights_than_tops_is_an_error() -> None:
    with pytest.raises(LayerError, match=r"loss_weight must be unspecified or specified once per top blob.*2 for 1"):
        net_of(X + layer("r", "Power", "data", rest="loss_weight: 3 loss_weight: 1"))


# -- what needs backward


def test_backward_runs_between_parameters_and_losses_only() -> None:
    text = (
        data(2, 3)
        + data(2, 4, name="label")
        + layer("first", "ReLU", "data")
        + ip("ip1", "first", 5)
        + ip("ip2", "ip1", 4)
        + layer("loss", "EuclideanLoss", "ip2 label")
        + ip("aside", "label", 2)
    )
    net = net_of(text)
    assert needs(net) == {
        "data": False,
        "label": False,
        "label_label_0_split": False,
        "first": False,
        "ip1": True,
        "ip2": True,
        "loss": True,
        "aside": False,
    }
    assert bottoms_need(net)["ip1"] == (False,)
    assert bottoms_need(net)["ip2"] == (True,)
    assert bottoms_need(net)["loss"] == (True, False)


def test_lr_mult_zero_stops_backward_before_it_and_its_own_gradient() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    half = "param { lr_mult: 0 } param { lr_mult: 2 }"
    text = data(2, 3) + data(2, 4, name="label") + ip("ip1", "data", 5, frozen) + ip("ip2", "ip1", 4, half)
    net = net_of(text + layer("loss", "EuclideanLoss", "ip2 label"), TRAIN)
    assert needs(net)["ip1"] is False
    assert net._graph.nodes[-2].layer.param_propagate_down == [False, True]
    net.forward(data=normal(2, 3), label=normal(2, 4, seed=3))
    net.backward()
    assert not net.params["ip1"][0].diff.any()
    assert not net.params["ip2"][0].diff.any()
    assert net.params["ip2"][1].diff.all()


def test_propagate_down_false_cuts_a_bottom_off() -> None:
    text = data(2, 3) + data(2, 4, name="label") + ip("ip1", "data", 5) + ip("ip2", "ip1", 4, "propagate_down: false")
    net = net_of(text + layer("loss", "EuclideanLoss", "ip2 label"))
    assert (needs(net)["ip1"], needs(net)["ip2"]) == (False, True)
    assert bottoms_need(net)["ip2"] == (False,)


def test_propagate_down_true_computes_an_inputs_gradient() -> None:
    net = net_of(
        data(2, 3)
        + data(2, 4, name="label")
        + ip("ip", "data", 4, "propagate_down: true")
        + layer("loss", "EuclideanLoss", "ip label"),
    )
    net.forward(data=normal(2, 3), label=normal(2, 4, seed=3))
    net.backward()
    want = (net.blobs["ip"].data - normal(2, 4, seed=3)) / 2 @ net.params["ip"][0].data
    np.testing.assert_allclose(net.blobs["data"].diff, want, rtol=1e-5)


def test_a_layer_all_of_whose_tops_are_cut_off_is_skipped() -> None:
    text = data(2, 3) + data(2, 4, name="label") + ip("ip1", "data", 5) + layer("a", "TanH", "ip1")
    text += ip("ip2", "a", 4, "propagate_down: false") + layer("loss", "EuclideanLoss", "ip2 label")
    assert (needs(net_of(text))["ip1"], needs(net_of(text))["a"]) == (False, False)


def test_force_backward_reaches_everything_but_labels() -> None:
    text = "force_backward: true " + data(2, 3) + data(2, 4, name="label") + ip("ip", "data", 4, "param { lr_mult: 0 }")
    net = net_of(text + layer("loss", "EuclideanLoss", "ip label") + layer("aside", "ReLU", "data"))
    assert all(needs(net).values())
    assert bottoms_need(net)["ip"] == bottoms_need(net)["aside"] == (True,)
    assert net._graph.nodes[net._layer_names.index("ip")].layer.param_propagate_down == [True, True]
    text = "force_backward: true " + data(2, 3) + data(2, name="label") + layer("l", "SoftmaxWithLoss", "data label")
    assert bottoms_need(net_of(text))["l"] == (True, False)


def test_propagate_down_of_another_number_than_the_bottoms() -> None:
    with pytest.raises(
        LayerError, match=r"propagate_down param must be specified either 0 or bottom_size times.*2 for"
    ):
        net_of(X + ip("ip", "data", 4, "propagate_down: true propagate_down: true"))


# -- shared parameters


def share(first: str = "", second: str = "", outputs: tuple[int, int] = (3, 3)) -> str:
    one = f'param {{ name: "w" {first} }} param {{ name: "b" }}'
    two = f'param {{ name: "w" {second} }} param {{ name: "b" }}'
    return data(2, 3) + ip("ip1", "data", outputs[0], one) + ip("ip2", "ip1", outputs[1], two)


def test_parameters_of_one_name_are_one() -> None:
    net = net_of(share() + data(2, 3, name="label") + layer("loss", "EuclideanLoss", "ip2 label"), TRAIN)
    fill_params(net)
    first, second = net.params["ip1"][0], net.params["ip2"][0]
    first.data[...] = 7
    assert (second.data == 7).all()
    owners = [(p.layer, p.index, p.owner) for p in net._graph.parameters]
    assert owners == [(1, 0, None), (1, 1, None), (2, 0, 0), (2, 1, 1)]
    fill_params(net)
    x, label = normal(2, 3), normal(2, 3, seed=2)
    net.forward(data=x, label=label)
    net.backward()
    weight, hidden = first.data, net.blobs["ip1"].data
    error = (net.blobs["ip2"].data - label) / 2
    want = error.T @ hidden + (error @ weight).T @ x  # the sum over both layers
    np.testing.assert_allclose(first.diff, want, rtol=1e-4)
    np.testing.assert_array_equal(first.diff, second.diff)
    np.testing.assert_allclose(net.params["ip1"][1].diff, (error + error @ weight).sum(0), rtol=1e-4)


def test_strict_sharing_wants_equal_shapes_and_permissive_equal_counts() -> None:
    with pytest.raises(ShapeError, match=r"Cannot share param 'w' owned by layer 'ip1'; shape mismatch.*\(4, 3\)"):
        net_of(share(outputs=(4, 3)))
    one, two = 'param { name: "w" share_mode: %s }', "bias_term: false"
    text = data(2, 6) + ip("ip1", "data", 2, one % "STRICT" + 'param { name: "b" }')
    text += layer("ip2", "InnerProduct", "ip1", rest=f"inner_product_param {{ num_output: 6 {two} }}" + one % "{0}")
    with pytest.raises(ShapeError, match="shape mismatch"):
        net_of(text.replace("{0}", "STRICT"))
    net = net_of(text.replace("{0}", "PERMISSIVE"))
    fill_params(net)
    first, second = (net.params[name][0].data for name in ("ip1", "ip2"))
    assert (first.shape, second.shape) == ((2, 6), (6, 2))
    np.testing.assert_array_equal(first.ravel(), second.ravel())
    out = net.forward(data=normal(2, 6))["ip2"]
    np.testing.assert_allclose(out, net.blobs["ip1"].data @ second.T, rtol=1e-5)
    with pytest.raises(ShapeError, match="count mismatch"):
        net_of(text.replace("{0}", "PERMISSIVE").replace("num_output: 6", "num_output: 5"))


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_sharers_agree_on_multipliers(field: str) -> None:
    with pytest.raises(LayerError, match=rf"Shared param 'w' has mismatched {field}.*3.0 and 2.0"):
        net_of(share(f"{field}: 2", f"{field}: 3"))
    assert getattr(net_of(share(f"{field}: 2", f"{field}: 2"))._graph.parameters[0], field) == 2
    assert getattr(net_of(share("", f"{field}: 3"))._graph.parameters[0], field) == 3  # the first that is stated
    assert getattr(net_of(share(f"{field}: 2", ""))._graph.parameters[0], field) == 2


# -- errors say what and where


def test_unknown_layer_type() -> None:
    with pytest.raises(UnknownLayerType) as caught:
        net_of(X + "\n" + layer("pool1", "Pooing", "data"))
    message = str(caught.value)
    assert message.startswith("Unknown layer type: Pooing (known types: AbsVal, Accuracy, ")
    assert "Did you mean 'Pooling'?" in message
    assert message.endswith("In test.prototxt:3, layer 'pool1'.")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (UnknownLayerType, message)


def test_unknown_bottom() -> None:
    want = r"^Unknown bottom blob 'dat' \(layer 'a', bottom index 0\)\. In test.prototxt:2, layer 'a'\. "
    want += r"Did you mean 'data'\?$"
    with pytest.raises(UnknownBottom, match=want):
        net_of(X + layer("a", "ReLU", "dat"))


def test_duplicate_top() -> None:
    with pytest.raises(DuplicateTop, match=r"Top blob 'a' produced by multiple sources.*In test.prototxt:3, layer 'b'"):
        net_of(X + layer("a", "ReLU", "data") + layer("b", "ReLU", "data", "a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            layer("l", "InnerProduct", "data data", "l", "inner_product_param { num_output: 1 }"),
            "takes 1 bottom.*Got 2",
        ),
        (layer("l", "Concat", "", "l"), "takes at least 1 bottom.*Got 0"),
        (layer("l", "InfogainLoss", "data data data data", "l"), "takes at most 3 bottom.*Got 4"),
        (layer("l", "ReLU", "data", "l m"), "produces 1 top.*Got 2"),
        (layer("l", "ReLU", "data", ""), "produces 1 top.*Got 0"),
        (layer("l", "Pooling", "data", "l m n", "pooling_param { kernel_size: 2 }"), "produces at most 2 top.*Got 3"),
        (
            layer("l", "InnerProduct", "data", "l", "inner_product_param { num_output: 1 }" + "param { }" * 3),
            "Too many",
        ),
    ],
)
def test_wrong_counts(text: str, message: str) -> None:
    with pytest.raises(LayerError, match=rf"{message}.*In test.prototxt:2, layer 'l'"):
        net_of(X + text)


def test_layer_ranges_are_checked() -> None:
    graph = net_of(X)._graph
    check_range(graph, 0, 0)
    with pytest.raises(NetError, match="Layer range 0 to 1 is outside the net, which has layers 0 to 0"):
        check_range(graph, 0, 1)


def test_shapes_that_do_not_fit_at_a_later_forward_name_the_layer() -> None:
    net = net_of(X + data(2, 3, 4, 5, name="b") + layer("sum", "Eltwise", "data b"))
    net.blobs["b"].reshape(2, 3, 4, 6)
    with pytest.raises(ShapeError, match=r"In test.prototxt:3, layer 'sum'"):
        net.forward()
