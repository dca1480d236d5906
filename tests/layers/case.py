"""Runs one layer, or one golden case, on both engines and compares values, shapes and gradients.

`run_golden(name)` holds both engines against reference Caffe's answers (tests/golden/layers), `run_fork_golden(name)`
against a fork's (tests/golden/forks). `check_layer` holds them against a NumPy function and the torch gradient against
finite differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pycaffe.engines.segment import SegmentNotLowerable, lower_segment
from pycaffe.layers import HostLayer
from pycaffe.net import TEST, TRAIN, Net
from pycaffe.proto.prototxt import parse_net

GOLDEN = Path(__file__).parents[1] / "golden" / "layers"
FORKS = GOLDEN.parent / "forks"  # FORK.txt: whose answer a case is, by the dialect's name
VALUE = {"rtol": 2e-5, "atol": 2e-6}  # the tolerances that reference Caffe's answers came with
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}
Arrays = Sequence[np.ndarray] | np.ndarray


def assert_close(what: str, want: np.ndarray, got: np.ndarray, *, rtol: float, atol: float) -> None:
    """Asserts the same shape and an error of at most `rtol` of the largest value (or `atol`)."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite"
    if want.size:
        error = float(np.abs(got.astype(np.float64) - want).max())
        allowed = max(rtol * max(float(np.abs(want).max()), 1e-6), atol)
        assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def lowers(net: Net) -> bool:
    """Whether every layer of the net has an ONNX form."""
    try:
        lower_segment(net._graph, 0, len(net._graph.nodes) - 1)
    except SegmentNotLowerable:
        return False
    return True


def run_golden(name: str) -> list[str]:
    """Runs a golden case on torch and, where its net lowers, on onnxruntime; returns the engines that ran."""
    return _run_case(GOLDEN / f"{name}.prototxt", None)


def run_fork_golden(name: str) -> list[str]:
    """As `run_golden`, of a fork's case in that fork's dialect; `_cu` says that the answer is that of its GPU code."""
    dialects = dict(line.split() for line in (FORKS / "FORK.txt").read_text(encoding="utf-8").splitlines())
    return _run_case(FORKS / f"{name}.prototxt", dialects[name].removesuffix("_cu"))


def _run_case(path: Path, dialect: str | None) -> list[str]:
    phase = TRAIN if path.stem.endswith("_train") else TEST
    engines = ["torch"]
    if phase == TEST and lowers(Net(path, phase, dialect=dialect)):
        engines.append("onnxruntime")
    for engine in engines:
        with np.load(path.with_suffix(".npz")) as answers:
            _run_golden_on(engine, path, phase, dialect, dict(answers))
    return engines


def _run_golden_on(engine: str, path: Path, phase: int, dialect: str | None, answers: dict[str, np.ndarray]) -> None:
    net = Net(path, phase, engine=engine, dialect=dialect)
    for key, value in answers.items():
        kind, *name = key.split("/")
        if kind == "in":
            net.blobs[name[0]].data[...] = value
        elif kind == "param":
            net.params[name[0]][int(name[1])].data[...] = value
    net.forward()
    compared = 0
    for key, value in answers.items():
        kind, *name = key.split("/")
        if kind == "out":
            assert_close(f"{engine} {key}", value, net.blobs[name[0]].data, **VALUE)
            compared += 1
        elif kind == "after":
            assert_close(f"{engine} {key}", value, net.params[name[0]][int(name[1])].data, **VALUE)
    assert compared, f"{path.name}: the case holds no output"
    if not any(key.startswith(("diff/", "paramdiff/")) for key in answers):
        return
    for key, value in answers.items():
        if key.startswith("topdiff/"):
            net.blobs[key.partition("/")[2]].diff[...] = value
    net.clear_param_diffs()
    net.backward()
    for key, value in answers.items():
        kind, *name = key.split("/")
        if kind == "diff":
            assert_close(f"{engine} {key}", value, net.blobs[name[0]].diff, **GRADIENT)
        elif kind == "paramdiff":
            assert_close(f"{engine} {key}", value, net.params[name[0]][int(name[1])].diff, **GRADIENT)


def build(layer_text: str, *bottom_shapes: Sequence[int], phase: int = TEST, engine: str | None = None) -> Net:
    """A net of Input layers b0, b1, ... with these shapes and the given layers; gradients reach every bottom."""
    inputs = ""
    for i, shape in enumerate(bottom_shapes):
        dims = " ".join(f"dim: {extent}" for extent in shape)
        inputs += f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {dims} }} }} }}\n'
    return Net(parse_net(f"force_backward: true\n{inputs}{layer_text}", "test.prototxt"), phase, engine=engine)


def check_layer(
    layer_text: str,
    bottoms: dict[str, np.ndarray] | Sequence[np.ndarray],
    params: Sequence[np.ndarray] | None = None,
    *,
    expect: Callable[..., Arrays],
    phase: int = TEST,
    rtol: float = 2e-5,
    atol: float = 2e-6,
    lowers: bool = True,
    gradient: bool = True,
) -> Net:
    """Compares the tops of a layer named "l" with `expect(*bottoms, *params)` on both engines.

    Args:
        lowers: whether the layer must have an ONNX form; False asserts that it has none.
        gradient: whether to hold the torch gradient against finite differences in float64.

    Returns:
        The net that ran on torch.
    """
    arrays = [np.asarray(a, np.float32) for a in (bottoms.values() if isinstance(bottoms, dict) else bottoms)]
    values = [np.asarray(p, np.float32) for p in params or []]
    want = expect(*arrays, *values)
    wanted = [want] if isinstance(want, np.ndarray) else list(want)
    net = _check_engine("torch", layer_text, arrays, values, wanted, phase, rtol, atol)
    if phase == TEST:
        can = _lowers_alone(net)
        assert can == lowers, f"ONNX form: {can}, expected {lowers}"
        if can:
            _check_engine("onnxruntime", layer_text, arrays, values, wanted, phase, rtol, atol)
    if gradient:
        check_gradient(net)
    return net


def _lowers_alone(net: Net) -> bool:
    index = net._layer_names.index("l")
    if net._graph.nodes[index].layer.not_lowered is not None:
        return False
    try:
        lower_segment(net._graph, index, index)
    except SegmentNotLowerable:
        return False
    return True


def _check_engine(
    engine: str,
    layer_text: str,
    arrays: list[np.ndarray],
    values: list[np.ndarray],
    wanted: list[np.ndarray],
    phase: int,
    rtol: float,
    atol: float,
) -> Net:
    net = build(layer_text, *(a.shape for a in arrays), phase=phase, engine=engine)
    for i, array in enumerate(arrays):
        net.blobs[f"b{i}"].data[...] = array
    for blob, value in zip(net.params.get("l", []), values, strict=bool(values)):
        blob.data[...] = value
    net.forward()
    tops = net.top_names["l"]
    assert len(tops) >= len(wanted)
    for name, array in zip(tops, wanted):
        assert_close(f"{engine} top {name}", np.asarray(array), net.blobs[name].data, rtol=rtol, atol=atol)
    return net


def check_gradient(net: Net, layer: str = "l", directions: int = 3, rtol: float = 1e-4) -> None:
    """Holds a layer's gradients against finite differences of its forward in float64, along random directions.

    A step that crosses a kink shows as a difference between two step sizes; such a direction is drawn again.
    """
    import torch

    index = net._layer_names.index(layer)
    node = net._graph.nodes[index]
    assert not isinstance(node.layer, HostLayer)
    generator = np.random.default_rng(7)
    bottom = [torch.from_numpy(net._graph.blobs[i].raw_data().astype(np.float64)) for i in node.bottom]
    params = [torch.from_numpy(b.raw_data().astype(np.float64)) for b in node.layer.blobs]
    leaves = [
        t for t, need in zip([*bottom, *params], [*node.bottom_need_backward, *node.layer.param_propagate_down]) if need
    ]
    with torch.no_grad():
        tops = node.layer.forward(bottom, params)
    weights = [torch.from_numpy(generator.standard_normal(tuple(t.shape))) for t in tops]

    def objective() -> Any:
        return sum((t * w).sum() for t, w in zip(node.layer.forward(bottom, params), weights))

    grads = _layer_gradients(node, bottom, params, weights)
    checked = 0
    for _ in range(directions * 4):
        steps = [torch.from_numpy(generator.standard_normal(tuple(t.shape))) for t in leaves]
        slopes = [_slope(objective, leaves, steps, epsilon) for epsilon in (1e-6, 2e-6)]
        scale = max(abs(slopes[0]), 1e-3)
        if abs(slopes[0] - slopes[1]) > rtol * scale:
            continue  # a kink
        found = float(sum((g * s).sum() for g, s in zip(grads, steps)))
        assert abs(found - slopes[0]) <= 10 * rtol * scale, f"gradient {found}, finite differences {slopes[0]}"
        checked += 1
        if checked == directions:
            return
    raise AssertionError("no direction without a kink was found")


def _slope(objective: Callable[[], Any], leaves: list[Any], steps: list[Any], epsilon: float) -> float:
    import torch

    values = []
    with torch.no_grad():
        for sign in (1, -1):
            for leaf, step in zip(leaves, steps):
                leaf.add_(step, alpha=sign * epsilon)
            values.append(float(objective()))
            for leaf, step in zip(leaves, steps):
                leaf.sub_(step, alpha=sign * epsilon)
    return (values[0] - values[1]) / (2 * epsilon)


def _layer_gradients(node: Any, bottom: list[Any], params: list[Any], weights: list[Any]) -> list[Any]:
    """The gradients of all leaves that need one, by the layer's own backward where it has one."""
    import torch

    need = [*node.bottom_need_backward, *node.layer.param_propagate_down]
    if node.layer.has_own_backward():
        with torch.no_grad():
            top = node.layer.forward(bottom, params)
            by_bottom, by_param = node.layer.backward(weights, top, bottom, params, list(node.bottom_need_backward))
        found = [*by_bottom, *by_param]
        return [torch.zeros_like(t) if g is None else g for t, g, n in zip([*bottom, *params], found, need) if n]
    leaves = [t.detach().requires_grad_(n) for t, n in zip([*bottom, *params], need)]
    top = node.layer.forward(leaves[: len(bottom)], leaves[len(bottom) :])
    wanted = [t for t in leaves if t.requires_grad]
    objective = sum((t * w).sum() for t, w in zip(top, weights) if t.requires_grad)
    if not wanted or not torch.is_tensor(objective):
        return [torch.zeros_like(t) for t in wanted]
    grads = torch.autograd.grad(objective, wanted, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, grads)]
