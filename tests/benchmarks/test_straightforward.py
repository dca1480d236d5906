from __future__ import annotations

import math
from collections import Counter
from typing import Any

import measure
import numpy as np
import onnxruntime
import pytest
from straightforward import straightforward_model

import caffe
from tests.conftest import TrainedNet

GENERATED = [name for name in measure.NETS if name not in ("open_nsfw", "vgg16")]
PARAMETERS = {  # of the published files
    "lenet": 431_080,
    "caffenet": 60_965_224,
    "googlenet": 6_998_552,
    "squeezenet_v1_1": 1_235_496,
    "mobilenet_v1": 4_231_976,
    "resnet50": 25_557_096,  # conv1 has a bias there: 64 more than elsewhere
    "vgg16": 138_357_544,
}


def loaded(name: str, batch: int = 1) -> Any:
    caffe.set_random_seed(measure.SEED)
    net = caffe.Net(measure.net_param(name, batch), caffe.TEST)
    measure.fill_statistics(net)
    return net


def run_straightforward(model: Any, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    assert source.shape == ["batch", *x.shape[1:]]
    return session.run(None, {source.name: x})[0]


def check(name: str, net: Any, batch: int = 1) -> None:
    """Pycaffe and the straightforward graph agree, on numbers worth timing."""
    (source,), (output,) = net.inputs, net.outputs
    net.blobs[source].reshape(batch, *net.blobs[source].shape[1:])
    x = np.random.default_rng(2).standard_normal(net.blobs[source].shape, dtype=np.float32)
    net.blobs[source].data[...] = x
    want = net.forward()[output].copy()
    got = run_straightforward(straightforward_model(measure.net_param(name), net), x)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(want.reshape(batch, -1).sum(1), 1, rtol=1e-4)
    assert want.std() > 1e-4 / want.shape[1], "the outputs say nothing"
    for blob in net.blobs.values():
        size = np.abs(blob.data)
        assert np.isfinite(size).all()
        assert 1e-4 < size.max() < 1e4
        assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any(), "denormal numbers are slow"


@pytest.mark.parametrize("name", ["lenet", *GENERATED])
def test_the_straightforward_graph_is_the_net(name: str) -> None:
    check(name, loaded(name))


def test_a_batch_is_symbolic() -> None:
    check("lenet", loaded("lenet"), batch=3)


@pytest.mark.slow
def test_the_straightforward_graph_of_vgg16_is_the_net() -> None:
    check("vgg16", loaded("vgg16"))


def test_the_straightforward_graph_of_open_nsfw_is_the_net(open_nsfw: TrainedNet) -> None:
    check("open_nsfw", caffe.Net(str(open_nsfw.model), caffe.TEST, weights=str(open_nsfw.weights)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_nets_have_the_published_number_of_parameters(name: str) -> None:
    net = measure.net_param(name)
    for layer in net.layer:  # values do not matter here
        for part in ("convolution_param", "inner_product_param"):
            getattr(layer, part).ClearField("weight_filler")
    shapes = [
        blob.shape
        for blobs in caffe.Net(net, caffe.TEST).params.values()
        for blob in blobs
        if len(blobs) != 3  # BatchNorm's statistics
    ]
    assert sum(math.prod(shape) for shape in shapes) == PARAMETERS[name]


def test_nothing_is_folded() -> None:
    net = loaded("mobilenet_v1")
    kinds = Counter(node.op_type for node in straightforward_model(measure.net_param("mobilenet_v1"), net).graph.node)
    layers = Counter(layer.type for layer in net.layers)
    assert kinds == {
        "Conv": layers["Convolution"],
        "BatchNormalization": layers["BatchNorm"],
        "Mul": layers["Scale"],
        "Add": layers["Scale"],
        "Relu": layers["ReLU"],
        "GlobalAveragePool": 1,
        "Softmax": 1,
    }
    assert layers["BatchNorm"] == 27
    model = straightforward_model(measure.net_param("caffenet"), loaded("caffenet"))
    assert Counter(node.op_type for node in model.graph.node)["LRN"] == 2


def test_a_layer_that_it_does_not_know() -> None:
    spec = caffe.NetSpec()
    spec.data = caffe.layers.Input(shape={"dim": [1, 2, 3, 4]})
    spec.top = caffe.layers.AbsVal(spec.data)
    param = spec.to_proto()
    with pytest.raises(NotImplementedError, match=r"Layer 'top' \(AbsVal\) has no straightforward form"):
        straightforward_model(param, caffe.Net(param, caffe.TEST))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 pad: 1 }', "AVE with padding"),
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 2 stride: 2 }', "AVE with padding"),  # hangs over
        ('type: "Eltwise" bottom: "data" eltwise_param { operation: MAX }', "only sums"),
    ],
)
def test_what_it_does_not_express(layer: str, message: str) -> None:
    from google.protobuf import text_format

    text = (
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 5 } } }'
        f'layer {{ name: "l" bottom: "data" top: "t" {layer} }}'
    )
    param = text_format.Parse(text, caffe.proto.caffe_pb2.NetParameter())
    with pytest.raises(NotImplementedError, match=message):
        straightforward_model(param, caffe.Net(param, caffe.TEST))
