from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import pathlib
import sys

import numpy as np
import pytest

from pycaffe.engines import openvino_session
from pycaffe.engines.openvino_session import has_native_bfloat16
from pycaffe.engines.rewrites.blocked_layout import block_size
from pycaffe.errors import MissingExtra, NetError
from pycaffe.images import ImagePreprocess
from pycaffe.net import TRAIN, Net
from tests.conftest import TrainedNet
from tests.layers.case import GOLDEN, VALUE, assert_close, lowers
from tests.net.nets import CONV, data, ip, layer, net_of, normal, run_python

TEXT = (
    data(2, 3, 12, 14)
    + layer("conv", "Convolution", "data", rest=CONV)
    + layer("bn", "BatchNorm", "conv")
    + layer("relu", "ReLU", "bn", "bn")
    + layer("norm", "LRN", "bn")
    + layer("pool", "Pooling", "norm", rest="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    + ip("fc", "pool", 5)
    + layer("prob", "Softmax", "fc")
)
CASES = sorted(path.stem for path in GOLDEN.glob("*.prototxt") if not path.stem.endswith("_train"))


def pair(**kwargs: object) -> tuple[Net, Net]:
    net, want = net_of(TEXT, engine="openvino", **kwargs), net_of(TEXT, engine="torch")
    want.params["bn"][0].data[...] = [0.1, -0.2, 0.3, 0]
    want.params["bn"][1].data[...] = [1, 2, 0.5, 1]
    want.params["bn"][2].data[...] = 1
    net.share_with(want)
    return net, want


@pytest.mark.parametrize("name", CASES)
def test_reference_caffes_answers(name: str) -> None:
    net = Net(GOLDEN / f"{name}.prototxt", engine="openvino")
    if not lowers(net):
        with pytest.raises(NetError, match="has no ONNX form, and engine='openvino' was asked for"):
            net.forward()
        return
    with np.load(GOLDEN / f"{name}.npz") as answers:
        for key, value in answers.items():
            kind, _, rest = key.partition("/")
            if kind == "in":
                net.blobs[rest].data[...] = value
            elif kind == "param":
                layer_name, index = rest.split("/")
                net.params[layer_name][int(index)].data[...] = value
        net.forward()
        for key, value in answers.items():
            if key.startswith("out/"):
                blob = key.partition("/")[2]
                assert_close(blob, value, net.blobs[blob].data, **VALUE)


def test_every_blob_is_there_when_somebody_looks() -> None:
    net, want = pair()
    for seed in range(3):
        net.forward(data=normal(2, 3, 12, 14, seed=seed))
        want.forward(data=normal(2, 3, 12, 14, seed=seed))
        net.blobs["data"].data[...] = 7  # the forward's values are asked for, not this one's
        for name in ("conv", "bn", "norm", "pool", "fc", "prob"):
            np.testing.assert_allclose(net.blobs[name].data, want.blobs[name].data, rtol=1e-4, atol=1e-5)


def test_a_pending_blob_keeps_the_parameters_of_its_forward() -> None:
    net, want = pair()
    x = normal(2, 3, 12, 14)
    net.forward(data=x)
    want.forward(data=x)
    conv = want.blobs["conv"].data.copy()
    net.params["conv"][0].data[...] *= 2
    np.testing.assert_allclose(net.blobs["conv"].data, conv, rtol=1e-4, atol=1e-5)


def test_surgery_through_old_and_new_views() -> None:
    net, want = pair()
    old = net.params["fc"][1].data
    x = normal(2, 3, 12, 14)
    for change in (lambda: old.__setitem__(0, 3), lambda: net.params["conv"][0].data.__imul__(0.5)):
        before = net.forward(data=x)["prob"].copy()
        change()
        after = net.forward(data=x)["prob"]
        np.testing.assert_allclose(after, want.forward(data=x)["prob"], rtol=1e-4, atol=1e-6)
        assert np.abs(after - before).max() > 1e-2


def test_batches_of_many_sizes_are_compiled_for_each_and_few_kept() -> None:
    net, want = pair()
    for size in [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]:
        for n in (net, want):
            n.blobs["data"].reshape(size, 3, 12, 14)
        x = normal(size, 3, 12, 14, seed=size)
        np.testing.assert_allclose(net.forward(data=x)["prob"], want.forward(data=x)["prob"], rtol=1e-4, atol=1e-6)
    sessions = [s for c in net._engine_pair()[0]._compiled.values() for s in c.sessions]
    assert max(len(session._compiled) for session in sessions) == openvino_session.MAX_COMPILED


def test_a_part_of_the_net() -> None:
    net, want = pair()
    values = normal(2, 4, 12, 14)
    for n in (net, want):
        n.forward()
        n.blobs["norm"].data[...] = values
    got, expected = net.forward(start="pool", end="fc"), want.forward(start="pool", end="fc")
    assert list(got) == ["fc"]
    np.testing.assert_allclose(got["fc"], expected["fc"], rtol=1e-4, atol=1e-5)


def test_an_input_that_goes_straight_out_and_one_that_gives_its_shape_alone() -> None:
    text = data(2, 3, 6, 7) + data(2, 3, 4, 5, name="like") + layer("drop", "Dropout", "data")
    text += layer("crop", "Crop", "data like", rest="crop_param { axis: 2 offset: 1 }")
    net = net_of(text, engine="openvino")
    x = normal(2, 3, 6, 7)
    out = net.forward(data=x, like=np.zeros((2, 3, 4, 5)))
    np.testing.assert_array_equal(out["drop"], x)
    np.testing.assert_array_equal(out["crop"], x[:, :, 1:5, 1:6])
    out["drop"][...] = 0
    assert (net.blobs["data"].data == x).all(), "the input is not the output's memory"


def rounds() -> bool:
    """Whether OpenVINO computes with bfloat16 numbers when it is asked to: with AVX-512, be it emulated."""
    return block_size() == 16


def test_bfloat16_is_near_and_not_the_same() -> None:
    net, want = pair(precision="bfloat16")
    for seed in range(4):
        x = normal(2, 3, 12, 14, seed=seed)
        got, expected = net.forward(blobs=["conv", "fc"], data=x), want.forward(blobs=["conv", "fc"], data=x)
        for name in ("conv", "fc"):
            error = np.abs(got[name] - expected[name]).max() / np.abs(expected[name]).max()
            if rounds():
                assert 1e-5 < error < 0.02, f"{name}: bfloat16 has 8 bits"
            else:
                assert error < 1e-5, f"{name}: computed in float32, as the warning says"
        np.testing.assert_allclose(got["prob"], expected["prob"], atol=0.05)
    used = {session.precision for c in net._engine_pair()[0]._compiled.values() for session in c.sessions}
    assert used == {f"<Type: '{'bfloat16' if rounds() else 'float32'}'>"}


def test_a_cpu_without_bfloat16_instructions_is_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "_warned", False)
    with caplog.at_level(logging.WARNING, logger="pycaffe.engines"):
        for _ in range(2):
            net_of(TEXT, precision="bfloat16").forward()
            net_of(TEXT, engine="openvino").forward()
    assert len(caplog.records) == (0 if has_native_bfloat16() else 1)
    instead = "is emulated and slower than float32" if rounds() else "is computed in float32"
    assert all(record.message.endswith(f"precision='bfloat16' {instead}.") for record in caplog.records)


@pytest.mark.slow
def test_bfloat16_leaves_open_nsfws_verdicts(open_nsfw: TrainedNet, photographs: pathlib.Path) -> None:
    prepare = ImagePreprocess(resize=256, crop=224)
    inputs = [prepare(str(path)) for path in sorted(photographs.iterdir())]
    net = Net(open_nsfw.model, weights=open_nsfw.weights, precision="bfloat16")
    float32 = Net(open_nsfw.model, weights=open_nsfw.weights, engine="onnxruntime")
    found = net.compare(inputs, float32)
    assert found.inputs == len(inputs) >= 20
    assert found.outputs["prob"].top1 == 1
    assert found.outputs["prob"].largest < 0.03
    assert (found.outputs["prob"].largest > 1e-4) == rounds()
    assert found.outputs["prob"].cosine > 0.999


def test_threads_are_passed_on() -> None:
    for threads in (1, 2):
        net, _ = pair(threads=threads)
        net.forward()
        ((session,),) = [c.sessions for c in net._engine_pair()[0]._compiled.values()]
        assert session._settings["INFERENCE_NUM_THREADS"] == threads
    assert session.precision == "<Type: 'float32'>"


def test_backward_after_a_forward_of_openvino() -> None:
    net, want = (net_of("force_backward: true " + TEXT, engine=engine) for engine in ("openvino", "torch"))
    net.share_with(want)
    x, diff = normal(2, 3, 12, 14), normal(2, 5, seed=1)
    for n in (net, want):
        n.forward(data=x)
    got, expected = net.backward(prob=diff)["data"], want.backward(prob=diff)["data"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected).max() > 1e-4


def test_what_a_train_phase_net_draws_has_no_form() -> None:
    text = data(2, 3) + layer("drop", "Dropout", "data", rest="dropout_param { dropout_ratio: 0.9 }")
    with pytest.raises(NetError, match=r"'drop' \(Dropout\) has no ONNX form, and engine='openvino' was asked for"):
        net_of(text, TRAIN, engine="openvino").forward()


def test_without_openvino_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else find(name, *a))
    with pytest.raises(
        MissingExtra, match=r'needs openvino, which is not installed.*pip install "pycaffe\[openvino\]"'
    ):
        net_of(TEXT, precision="bfloat16")


def test_a_model_that_openvino_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(TEXT, engine="openvino")
    monkeypatch.setitem(openvino_session.TYPES, "float32", "f77")
    with pytest.raises(NetError, match=r"OpenVINO cannot compile this net for inputs of shapes \(\(2, 3, 12, 14\),\)"):
        net.forward()


def test_a_run_that_fails() -> None:
    net, _ = pair()
    net.forward()
    ((session,),) = [c.sessions for c in net._engine_pair()[0]._compiled.values()]
    ((request, _),) = session._compiled.values()
    session._request = lambda shapes: (request, {})
    with pytest.raises(NetError, match=r"(?s)OpenVINO cannot run this net: .*incompatible"):
        session.run(["prob"], {"blob/data": normal(2, 3, 9, 9)})


def test_openvino_does_not_report_its_use() -> None:
    run_python(
        "import sys, pycaffe\n"
        "from tests.engines.test_openvino_session import TEXT, net_of\n"
        "net_of(TEXT, engine='openvino').forward()\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules"
    )


def test_weights_are_copied_once() -> None:
    """64 MB of weights: what the plugin packs, and nothing beside it."""
    script = """
import numpy as np
from tests.net.nets import data, ip, net_of
def anonymous():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
warm = net_of(data(1, 8) + ip("fc", "data", 8), engine="openvino")
warm.forward()
net = net_of(data(4, 4096) + ip("fc", "data", 4096), engine="openvino")
net.params["fc"][0].raw_data()[...] = 1
before = anonymous()
net.forward()
print(anonymous() - before)
"""
    if sys.platform == "linux":
        assert float(run_python(script).stdout) < 1.25 * 64


net_in_parent: Net | None = None


def child_answer(seed: int) -> np.ndarray:
    assert net_in_parent is not None
    return net_in_parent.forward(data=normal(2, 3, 12, 14, seed=seed))["prob"].copy()


@pytest.mark.parametrize("ran_before", [True, False])
def test_children_of_a_fork_compile_anew(ran_before: bool) -> None:
    global net_in_parent
    net_in_parent, want = pair()
    expected = [want.forward(data=normal(2, 3, 12, 14, seed=i))["prob"].copy() for i in range(6)]
    try:
        if ran_before:
            np.testing.assert_allclose(child_answer(0), expected[0], rtol=1e-4, atol=1e-6)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            got = pool.map_async(child_answer, range(6)).get(60)
            pool.close()
            pool.join()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(child_answer(1), expected[1], rtol=1e-4, atol=1e-6)
    finally:
        net_in_parent = None


def test_a_child_that_exits_by_itself() -> None:
    run_python("""
import os, sys, time
import numpy as np
from tests.engines.test_openvino_session import TEXT, net_of
net = net_of(TEXT, engine="openvino")
want = net.forward()["prob"].copy()
pid = os.fork()
if pid == 0:
    sys.exit(5 if np.allclose(net.forward()["prob"], want) else 3)
deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        assert os.waitstatus_to_exitcode(status) == 5, status
        break
    time.sleep(0.05)
else:
    os.kill(pid, 9)
    raise SystemExit("the child hangs")
""")
