from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from pycaffe.layers._torch import torch
from pycaffe.net import TEST, TRAIN
from tests.net.nets import data, ip, layer, net_of, normal

FORCED = "force_backward: true "


def test_a_forward_without_a_record_replays_at_backward() -> None:
    net = net_of(FORCED + data(2, 3) + ip("ip", "data", 4) + layer("t", "TanH", "ip", "ip"), engine="torch")
    net.forward(data=normal(2, 3))
    assert net._engine_pair()[1]._tapes == {}
    net.backward(ip=np.ones((2, 4)))
    want = (1 - net.blobs["ip"].data ** 2) @ net.params["ip"][0].data
    np.testing.assert_allclose(net.blobs["data"].diff, want, rtol=1e-3, atol=1e-5)
    net.forward()
    assert set(net._engine_pair()[1]._tapes) == {1, 2}
    net._engine_pair()[1].forget()
    net.backward(ip=np.ones((2, 4)))  # again: the in-place layer's bottom diff has taken its place
    np.testing.assert_allclose(net.blobs["data"].diff, want, rtol=1e-3, atol=1e-5)


def test_training_records_at_once_and_only_what_backward_needs() -> None:
    text = data(2, 3) + data(2, 4, name="label") + layer("r", "ReLU", "data") + ip("ip", "r", 4)
    net = net_of(text + layer("loss", "EuclideanLoss", "ip label"), TRAIN)
    net.forward()
    assert {net._layer_names[i] for i in net._engine_pair()[1]._tapes} == {"ip", "loss"}


def test_learned_parameters_are_the_same_tensors_until_their_memory_is_another() -> None:
    text = data(2, 3) + data(2, 4, name="label") + ip("ip", "data", 4, "param { lr_mult: 1 } param { lr_mult: 0 }")
    net = net_of(text + layer("loss", "EuclideanLoss", "ip label"), TRAIN)
    engine, (weight, bias) = net._engine_pair()[1], net.params["ip"]
    x = normal(2, 3)

    def params() -> list[object]:
        y = net.forward(["ip"], data=x, label=np.zeros((2, 4)))["ip"]
        np.testing.assert_allclose(y, x @ weight.data.T + bias.data, rtol=1e-5, atol=1e-6)
        return engine._tapes[2].params

    first = params()
    weight.data[...] *= 2
    second = params()
    assert second[0] is first[0]
    assert second[1] is not first[1], "a layer may change what is not learned"
    weight.data_storage.put(normal(12, seed=5))
    assert params()[0] is not second[0]


def test_layers_are_asked_for_shapes_again_when_one_has_changed() -> None:
    net = net_of(data(2, 3) + ip("ip", "data", 4) + layer("t", "TanH", "ip"), engine="torch")
    net.forward()
    with pytest.MonkeyPatch.context() as patch:
        asked: list[int] = []
        patch.setattr(type(net._graph), "reshape_node", lambda graph, index: asked.append(index))
        net.forward(data=normal(2, 3))
        assert asked == [0], "the input alone: there is nothing that its shape follows from"
    net.blobs["data"].reshape(5, 3)
    assert net.forward(data=normal(5, 3))["t"].shape == (5, 4)
    layer_ip = net._graph.nodes[1].layer
    layer_ip.bottom_shapes, layer_ip.top_shapes = [(7, 3)], [(7, 4)]  # as making a compiled segment leaves them
    assert net.forward(data=normal(5, 3))["t"].shape == (5, 4)
    assert layer_ip.top_shapes == [(5, 4)]


@pytest.mark.parametrize(
    "rest",
    [
        (
            "Convolution",
            "convolution_param { num_output: 3 kernel_size: 1 bias_term: false weight_filler { value: 1 } }",
        ),
        ("Deconvolution", "convolution_param { num_output: 3 kernel_size: 1 bias_term: false group: 3 }"),
        ("Pooling", "pooling_param { kernel_size: 1 }"),
        ("Pooling", "pooling_param { pool: AVE kernel_size: 1 }"),
        ("InnerProduct", "inner_product_param { num_output: 6 }"),
        ("ReLU", ""),
        ("ReLU", "relu_param { negative_slope: 1 }"),
    ],
)
def test_tops_of_layers_that_compute_them_are_new_memory(rest: tuple[str, str]) -> None:
    net = net_of(data(2, 3, 4, 4) + layer("it", rest[0], "data", rest=rest[1]), engine="torch")
    net.forward(data=normal(2, 3, 4, 4))
    it = net._graph.nodes[1].layer
    assert it.computes_tops
    bottom = [torch.from_numpy(normal(2, 3, 4, 4))]
    params = [torch.from_numpy(blob.data) for blob in it.blobs]
    given = {tensor.untyped_storage().data_ptr() for tensor in (*bottom, *params)}
    assert not given & {tensor.untyped_storage().data_ptr() for tensor in it.forward(bottom, params)}


def test_a_run_ends_before_a_layer_of_the_host() -> None:
    dummy = layer("noise", "DummyData", rest="dummy_data_param { shape { dim: 2 dim: 3 } }")
    sum_ = layer("sum", "Eltwise", "relu noise")
    net = net_of(data(2, 3) + layer("relu", "ReLU", "data") + dummy + sum_, engine="torch")
    engine = net._engine_pair()[1]
    assert engine.run(0, 3, record=False) == 1
    assert engine.run(3, 3, record=False) == 3
    assert net.forward(data=np.full((2, 3), 5))["sum"].tolist() == [[5] * 3] * 2


def test_batch_norm_in_training_moves_its_statistics_once_a_forward() -> None:
    text = FORCED + data(4, 3, 2, 2) + layer("bn", "BatchNorm", "data", rest="batch_norm_param { }")
    net = net_of(text, TRAIN)
    x = normal(4, 3, 2, 2)
    net.forward(data=x)
    for _ in range(2):
        net.backward(bn=normal(4, 3, 2, 2, seed=2))
    assert net.params["bn"][2].data == 1
    np.testing.assert_allclose(net.params["bn"][0].data, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    net._engine_pair()[1].forget()
    net.backward()  # replayed
    assert net.params["bn"][2].data == 1


def test_dropout_in_training_uses_one_mask_forward_and_backward() -> None:
    net = net_of(FORCED + data(20, 30) + layer("d", "Dropout", "data", "data"), TRAIN)
    out = net.forward(data=np.ones((20, 30)))["data"].copy()
    net.backward(data=np.ones((20, 30)))
    np.testing.assert_array_equal(net.blobs["data"].diff, out)
    assert set(np.unique(out)) == {0, 2}


def test_a_shared_input_gets_the_sum_of_its_readers_gradients() -> None:
    net = net_of(
        FORCED
        + data(2, 3)
        + layer("a", "Power", "data", rest="power_param { scale: 2 }")
        + layer("b", "AbsVal", "data")
    )
    net.forward(data=-np.ones((2, 3)))
    net.blobs["a"].diff[...] = 1
    net.blobs["b"].diff[...] = 10
    np.testing.assert_array_equal(net.backward()["data"], np.full((2, 3), -8))


def test_a_layer_without_a_gradient_gives_zeros() -> None:
    net = net_of(
        FORCED + data(2, 3) + ip("ip", "data", 4) + layer("s", "Slice", "ip", "x y", "slice_param { slice_point: 1 }")
    )
    net.forward(data=normal(2, 3))
    net.blobs["data"].diff[...] = 7
    assert not net.backward()["data"].any()


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_flatten_and_reshape_pass_diffs_on(phase: int) -> None:
    text = FORCED + data(2, 3, 4) + layer("f", "Flatten", "data")
    net = net_of(text + layer("r", "Reshape", "f", rest="reshape_param { shape { dim: 0 dim: 2 dim: -1 } }"), phase)
    net.forward(data=normal(2, 3, 4))
    diff = normal(2, 2, 6, seed=3)
    np.testing.assert_array_equal(net.backward(r=diff)["data"].ravel(), diff.ravel())


def test_errors_in_a_layers_forward_say_where() -> None:
    net = net_of(data(2, 3) + data(2, 3, name="b") + layer("e", "Eltwise", "data b"), engine="torch")
    net.blobs["b"].reshape(3, 2)
    with pytest.raises(ShapeError, match=r"In test.prototxt:3, layer 'e'"):
        net.forward()
