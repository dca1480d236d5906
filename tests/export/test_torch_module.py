from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import pycaffe
from pycaffe.errors import ExportError, InputError, ShapeError
from pycaffe.net import TEST, TRAIN, Net
from tests.export.nets import CAFFENET, MIXED, answer, assert_same, filled, noise
from tests.layers.case import GOLDEN
from tests.net.nets import data, ip, layer, net_of, normal, run_python


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def arrays(module: torch.nn.Module, outputs: object) -> dict[str, np.ndarray]:
    found = outputs if isinstance(outputs, dict) else {module.outputs[0]: outputs}
    return {name: value.detach().numpy() for name, value in found.items()}


@pytest.mark.parametrize("text", [CAFFENET, MIXED])
def test_values_of_any_shape(text: str) -> None:
    net = filled(text)
    module = pycaffe.to_torch(net)
    for batch in (1, 4):
        inputs = noise(net, batch)
        assert_same(answer(net, inputs), arrays(module, module(**tensors(inputs))), rtol=1e-6)
        assert_same(answer(net, inputs), arrays(module, module(*tensors(inputs).values())), rtol=1e-6)


def test_names() -> None:
    module = pycaffe.to_torch(filled(MIXED))
    assert [name for name, _ in module.named_parameters()] == [
        *("conv.weight", "conv.bias", "scale.weight", "scale.bias", "branch.weight", "branch.bias"),
        *("up.weight", "up.bias", "prelu.weight"),
    ]
    assert [name for name, _ in module.named_buffers()] == ["bn.mean_sum", "bn.variance_sum", "bn.scale_factor"]
    assert (module.inputs, module.outputs) == (["data"], ["elu", "flat"])
    assert "(conv): LayerParameters(Convolution, weight=(6, 3, 3, 3), bias=(6,))" in repr(module)


def test_layer_names_that_a_module_cannot_have() -> None:
    net = net_of(
        data(2, 3) + ip("a.b", "data", 4) + ip("a_b", "a.b", 4) + ip("forward", "a_b", 4) + ip("x/y", "forward", 4)
    )
    module = pycaffe.to_torch(net)
    assert [name for name, _ in module.named_children()] == ["a_b", "a_b_", "forward_", "x/y"]
    inputs = noise(net)
    assert_same(answer(net, inputs), arrays(module, module(**tensors(inputs))))


CASES = sorted(path.stem for path in GOLDEN.glob("*.prototxt") if path.stem != "dropout_train")


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_of_reference_caffe(name: str) -> None:
    net = Net(GOLDEN / f"{name}.prototxt", TRAIN if name.endswith("_train") else TEST, engine="torch")
    with np.load(GOLDEN / f"{name}.npz") as file:
        want = dict(file)
    for key, value in want.items():
        kind, _, place = key.partition("/")
        if kind == "param":
            net.params[place.split("/")[0]][int(place.split("/")[1])].data[...] = value
    module = pycaffe.to_torch(net)
    inputs = {
        i: torch.from_numpy(want[f"in/{i}"]).requires_grad_(bool(np.any(want.get(f"diff/{i}", 0))))
        for i in module.inputs
    }
    outputs = module(**inputs)
    found = outputs if isinstance(outputs, dict) else {module.outputs[0]: outputs}
    for blob in found:
        got = found[blob].detach().numpy()
        np.testing.assert_allclose(got, want[f"out/{blob}"], rtol=2e-5, atol=2e-5, err_msg=blob)
    learnt = [blob for blob in found if found[blob].requires_grad]
    weights = net.blob_loss_weights
    diffs = [want.get(f"topdiff/{b}", np.full(found[b].shape, weights[b], np.float32)) for b in learnt]
    if not any(np.any(want[key]) for key in want if key.startswith(("diff/", "paramdiff/"))):
        return  # Embed's case has neither a loss nor force_backward: Caffe runs no backward
    torch.autograd.backward(
        [found[blob] for blob in learnt], [torch.from_numpy(d).reshape(found[b].shape) for b, d in zip(learnt, diffs)]
    )
    for key, value in want.items():
        kind, _, place = key.partition("/")
        if kind == "diff" and place in inputs:
            gradient = inputs[place].grad
        elif kind == "paramdiff":
            child = module.get_submodule(place.split("/")[0])
            gradient = child.values()[int(place.split("/")[1])].grad
        else:
            continue
        got = np.zeros_like(value) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_a_forward_of_another_shape_between_forward_and_backward() -> None:
    """A layer with a backward of its own keeps what belongs to its forward."""
    net = net_of(data(2, 3, 4) + layer("max", "Eltwise", "data data", rest="eltwise_param { operation: MAX }"))
    module = pycaffe.to_torch(net)
    first = torch.from_numpy(normal(2, 3, 4)).requires_grad_()
    output = module(first)
    module(torch.zeros(5, 3, 4))
    output.sum().backward()
    assert first.grad is not None
    assert first.grad.tolist() == np.ones((2, 3, 4)).tolist()


# -- phases


def test_train_and_eval() -> None:
    text = data(64, 3, 5) + layer("bn", "BatchNorm", "data") + layer("drop", "Dropout", "bn")
    net = net_of(text)
    net.params["bn"][1].data[...] = 4
    net.params["bn"][2].data[...] = 1
    module = pycaffe.to_torch(net)
    x = torch.from_numpy(3 + 2 * normal(64, 3, 5))
    assert not module.training
    torch.testing.assert_close(module(x), x / np.sqrt(4 + 1e-5))
    assert module.bn.scale_factor.tolist() == [1]
    module.train()
    output = module(x)
    kept = output != 0
    assert 0.4 < kept.float().mean() < 0.6
    normalized = (x - x.mean((0, 2), keepdim=True)) / torch.sqrt(x.var((0, 2), correction=0, keepdim=True) + 1e-5)
    torch.testing.assert_close(output[kept], 2 * normalized[kept], rtol=1e-4, atol=1e-4)
    assert module.bn.scale_factor.tolist() == [pytest.approx(1.999)]
    torch.testing.assert_close(module.bn.mean_sum, x.mean((0, 2)))
    module.eval()
    assert module(x).tolist() == module(x).tolist()
    assert net.params["bn"][2].data.tolist() == [1], "copies"


def test_a_net_in_training_begins_in_training_and_a_layers_own_phase_stays() -> None:
    always = layer("drop", "Dropout", "data", rest="phase: TRAIN").replace("phase", "phase", 1)
    module = pycaffe.to_torch(net_of(data(50, 40) + always, TRAIN))
    assert module.training
    module = pycaffe.to_torch(net_of(data(50, 40) + always, TEST))
    assert not module.training
    assert 0.4 < (module(torch.ones(50, 40)) == 0).float().mean() < 0.6


def test_training_learns_and_frozen_layers_stay() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = net_of(data(8, 3) + ip("a", "data", 6, frozen) + layer("relu", "ReLU", "a", "a") + ip("b", "a", 2))
    for blob, seed in zip([*net.params["a"], *net.params["b"]], range(4)):
        blob.data[...] = normal(*blob.shape, seed=seed)
    module = pycaffe.to_torch(net).train()
    assert [name for name, p in module.named_parameters() if p.requires_grad] == ["b.weight", "b.bias"]
    x, target = torch.from_numpy(normal(8, 3)), torch.from_numpy(normal(8, 2, seed=1))
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((module(x) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# -- parameters


def test_parameters_are_copies_unless_shared() -> None:
    net = filled(CAFFENET)
    inputs = noise(net)
    copied, shared = pycaffe.to_torch(net), pycaffe.to_torch(net, shared=True)
    before = net.forward(**inputs)["prob"].copy()
    with torch.no_grad():
        for module in (copied, shared):
            module.fc7.bias += torch.tensor([9.0, 0, 0, 0, 0, 0, 0])
        assert net.params["fc7"][1].data[0] == pytest.approx(shared.fc7.bias[0].item())
        after = net.forward(**inputs)["prob"].copy()
        assert after[:, 0].min() > before[:, 0].max()
        np.testing.assert_allclose(after, shared(**tensors(inputs)).numpy(), atol=1e-5)
        np.testing.assert_allclose(after, copied(**tensors(inputs)).numpy(), atol=1e-5)


def test_a_shared_module_trains_the_net_and_its_statistics() -> None:
    net = filled(MIXED)
    module = pycaffe.to_torch(net, shared=True).train()
    module(**tensors(noise(net)))
    assert net.params["bn"][2].data.tolist() == [pytest.approx(1.7 * 0.999 + 1)]


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
def test_parameters_that_layers_share_stay_shared(mode: str) -> None:
    spec = f'param {{ name: "w" share_mode: {mode} }}'
    rest = spec + " inner_product_param { num_output: %d bias_term: false %s weight_filler { type: 'xavier' } }"
    a = layer("a", "InnerProduct", "data", rest=rest % (6, ""))
    b = layer("b", "InnerProduct", "a", rest=rest % ((4, "") if mode == "PERMISSIVE" else (6, "transpose: false")))
    net = net_of(data(2, 4 if mode == "PERMISSIVE" else 6) + a + b)
    module = pycaffe.to_torch(net)
    inputs = noise(net)
    for copied in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            copied.a.weight.mul_(2)
        if mode == "STRICT":
            assert copied.b.weight is copied.a.weight
        else:
            assert not dict(copied.b.named_parameters()), "a's weight in another shape"
        want = {name: 4 * values for name, values in answer(net, inputs).items()}
        assert_same(want, arrays(copied, copied(**tensors(inputs))))
        with torch.no_grad():
            copied.a.weight.div_(2)


# -- as any module


def test_state_dict_deepcopy_pickle_and_torch_save() -> None:
    net = filled(MIXED)
    module = pycaffe.to_torch(net)
    inputs = tensors(noise(net))
    want = arrays(module, module(**inputs))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    other = pycaffe.to_torch(filled(MIXED, seed=8))
    other.load_state_dict(module.state_dict())
    for again in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
        other,
    ):
        assert_same(want, arrays(again, again(**inputs)))
        assert again is not module
        assert set(again.state_dict()) == set(module.state_dict())
    with torch.no_grad():
        copied = copy.deepcopy(module)
        copied.conv.weight.zero_()
    assert_same(want, arrays(module, module(**inputs)))


def test_a_pickle_opens_in_another_process(tmp_path) -> None:
    net = filled(CAFFENET)
    module = pycaffe.to_torch(net)
    torch.save(
        {"module": module, "inputs": tensors(noise(net)), "prob": module(**tensors(noise(net)))}, tmp_path / "m.pt"
    )
    script = (
        "import sys, torch; saved = torch.load(sys.argv[1], weights_only=False)\n"
        "torch.testing.assert_close(saved['module'](**saved['inputs']), saved['prob'])"
    )
    run_python(script, str(tmp_path / "m.pt"))


def test_double_precision_and_labels_of_integers() -> None:
    text = data(2, 3, 5) + data(2, name="label") + ip("fc", "data", 4) + layer("loss", "SoftmaxWithLoss", "fc label")
    net = net_of(text)
    module = pycaffe.to_torch(net).double()
    loss = module(torch.from_numpy(normal(2, 3, 5)).double(), label=torch.tensor([1, 3]))
    assert loss.dtype == torch.float64
    want = net.forward(data=normal(2, 3, 5), label=np.array([1, 3]))["loss"]
    assert loss.item() == pytest.approx(float(want), rel=1e-6)


def test_work_in_place_on_shared_memory_is_seen() -> None:
    net = net_of(
        data(2, 3, 4)
        + layer("flat", "Flatten", "data")
        + layer("split", "Split", "flat", "one two")
        + layer("relu", "ReLU", "one", "one")
        + layer("sum", "Eltwise", "one two")
    )
    inputs = noise(net)
    module = pycaffe.to_torch(net)
    want = answer(net, inputs)
    assert_same(want, arrays(module, module(**tensors(inputs))))
    assert want["sum"].min() == 0, "the second reader of the Split saw the ReLU"


# -- refusals


def test_inputs_that_do_not_fit() -> None:
    module = pycaffe.to_torch(net_of(data(2, 3) + data(2, 3, name="b") + layer("sum", "Eltwise", "data b")))
    x = torch.zeros(2, 3)
    for positional, named, got in [
        ((x,), {}, r"\['1 unnamed'\]"),
        ((x, x, x), {}, r"\['3 unnamed'\]"),
        ((x,), {"data": x}, r"\['1 unnamed', 'data'\]"),
        ((), {"data": x, "c": x}, r"\['data', 'c'\]"),
    ]:
        with pytest.raises(InputError, match=rf"one tensor for each of the inputs \['data', 'b'\], got {got}"):
            module(*positional, **named)
    with pytest.raises(InputError, match=r"Input 'b' must be a torch.Tensor, got 'ndarray'"):
        module(x, np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"test.prototxt:\d, layer 'sum'"):
        module(x, torch.zeros(2, 4))


def test_layers_on_the_host_are_refused() -> None:
    net = net_of(
        layer("d", "DummyData", top="data", rest="dummy_data_param { shape { dim: 2 dim: 3 } }") + ip("a", "data", 2)
    )
    with pytest.raises(ExportError, match=r"'d' of type 'DummyData' to torch.*test.prototxt:1, layer 'd'.*deploy form"):
        pycaffe.to_torch(net)


def test_a_recurrent_layer_carries_its_state() -> None:
    text = data(2, 3, 4, name="x") + data(2, 3, name="cont") + layer("l", "LSTM", "x cont", rest=
        'recurrent_param { num_output: 5 weight_filler { type: "gaussian" std: 0.5 } }')  # fmt: skip
    net = net_of(text)
    module = pycaffe.to_torch(net)
    inputs = {"x": normal(2, 3, 4), "cont": np.ones((2, 3), np.float32)}
    for _ in range(3):
        assert_same(answer(net, inputs), arrays(module, module(**tensors(inputs))))
