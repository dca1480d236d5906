"""DetectionOutput against SSD's answers, a plain implementation, and what hostile files may hold."""

from __future__ import annotations

import logging
import pathlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe.errors import ExportError, InputError, LayerError, ShapeError
from pycaffe.export import export_onnx, to_torch
from pycaffe.net import TEST, Net
from tests.layers.case import FORKS, build
from tests.layers.plain_detection_output import Settings, detection_output
from tests.net.nets import data, layer, net_of

SQUARES = np.array([[0, 0, 0.2, 0.2], [0, 0, 0.2, 0.2], [0.5, 0.5, 0.75, 1], [0.25, 0.5, 0.75, 1]], np.float32)


@pytest.fixture(autouse=True)
def dialect_of_ssd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCAFFE_DIALECT", "ssd")


def text(param: str) -> str:
    bottoms = 'bottom: "b0" bottom: "b1" bottom: "b2"'
    return f'layer {{ name: "l" type: "DetectionOutput" {bottoms} top: "y" detection_output_param {{ {param} }} }}'


def run(
    param: str, location: np.ndarray, confidence: np.ndarray, prior: np.ndarray, dialect: str | None = None
) -> np.ndarray:
    arrays = [np.asarray(a, np.float32) for a in (location, confidence, prior)]
    inputs = "".join(data(*a.shape, name=f"b{i}") for i, a in enumerate(arrays))
    net = net_of(inputs + text(param), dialect=dialect)
    return net.forward(**{f"b{i}": a for i, a in enumerate(arrays)})["y"]


def priors_of(boxes: np.ndarray, variance: float = 0.1) -> np.ndarray:
    return np.stack([boxes, np.full_like(boxes, variance)]).reshape(1, 2, -1)


def detect(param: str, scores: np.ndarray, dialect: str | None = None) -> np.ndarray:
    """Rows for scores (P, classes) of one image at SQUARES, which are predicted as they are."""
    scores = np.asarray(scores, np.float32)
    zeros = np.zeros((1, scores.shape[0] * 4))
    param = f"num_classes: {scores.shape[1]} {param}"
    return run(param, zeros, scores.reshape(1, -1), priors_of(SQUARES[: len(scores)]), dialect)[0, 0]


@pytest.mark.parametrize("name", sorted(path.stem for path in FORKS.glob("detectionoutput*.prototxt")))
def test_golden(name: str) -> None:
    path = FORKS / f"{name}.prototxt"
    net = Net(path, TEST)
    with np.load(path.with_suffix(".npz")) as answers:
        for key, value in answers.items():
            if key.startswith("in/"):
                net.blobs[key[3:]].data[...] = value
        net.forward()
        for key, value in answers.items():
            if key.startswith("out/"):
                assert net.blobs[key[4:]].data.shape == value.shape
                np.testing.assert_allclose(net.blobs[key[4:]].data, value, rtol=2e-5, atol=2e-6)


def test_by_hand() -> None:
    rows = detect("nms_param { nms_threshold: 0.45 }", [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    want = [
        [0, 1, 0.9, *SQUARES[0]],
        [0, 1, 0.7, *SQUARES[2]],
    ]  # the second is the first; half of the last is the third
    np.testing.assert_allclose(rows, np.array(want, np.float32), rtol=1e-6)
    assert len(detect("nms_param { nms_threshold: 0.5 }", [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])) == 3


def test_rows_are_by_label_then_by_score_and_equals_by_prior() -> None:
    scores = np.array([[0, 0.5, 0.3], [0, 0.1, 0.3], [0, 0.5, 0.9], [0, 0.2, 0.3]])
    rows = detect("nms_param { nms_threshold: 1 }", scores)
    np.testing.assert_allclose(rows[:, 1:3], [[1, 0.5], [1, 0.5], [1, 0.2], [1, 0.1]] + [[2, 0.9]] + [[2, 0.3]] * 3)
    np.testing.assert_array_equal(rows[:2, 3:], SQUARES[[0, 2]])
    np.testing.assert_array_equal(rows[5:, 3:], SQUARES[[0, 1, 3]])


def test_no_detection_is_a_row_for_each_image() -> None:
    shape = (3, 8), (3, 4), (1, 2, 8)
    rows = run("num_classes: 2 confidence_threshold: 2", *(np.ones(s) for s in shape))
    np.testing.assert_array_equal(rows[0, 0], [[i, -1, -1, -1, -1, -1, -1] for i in range(3)])


def test_as_opencv_rows_of_zeros_follow() -> None:
    scores = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    ours = detect("keep_top_k: 5", scores)
    padded = detect("keep_top_k: 5", scores, "opencv")
    assert ours.shape == (2, 7)
    np.testing.assert_array_equal(padded, [*ours, *np.zeros((3, 7))])
    assert not detect("keep_top_k: 5 confidence_threshold: 2", scores, "opencv").any()
    with pytest.raises(ShapeError, match="keep_top_k 1000000000 for 1 images: more than 1048576 rows"):
        detect("keep_top_k: 1000000000", scores, "opencv")


SCORES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.5, 0.75, 1.0, float("nan"), -1.0])
COORDINATES = st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0])
CODES = st.sampled_from([0.0, 0.0, 0.0, 0.5, -0.5, 1.0, -2.0, 0.3, 1000.0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Settings, np.ndarray, np.ndarray, np.ndarray]:
    images, count, classes = draw(st.integers(1, 3)), draw(st.integers(0, 12)), draw(st.integers(1, 4))
    how = Settings(
        classes,
        shared=draw(st.booleans()),
        background=draw(st.integers(-1, classes)),
        nms_threshold=draw(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0])),
        eta=draw(st.sampled_from([1.0, 0.9, 0.5])),
        top_k=draw(st.sampled_from([None, -1, 0, 1, 3, 5, 10**9])),
        keep_top_k=draw(st.sampled_from([-1, 0, 1, 2, 5, 200, 10**9])),
        threshold=draw(st.sampled_from([None, 0.0, 0.2, 0.5])),
        code=draw(st.sampled_from(["CORNER", "CENTER_SIZE", "CORNER_SIZE"])),
        in_target=draw(st.booleans()),
    )
    if how.top_k == -1:
        how.top_k = None
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def array(values: st.SearchStrategy[float], *shape: int) -> np.ndarray:
        few = np.array([draw(values) for _ in range(6)], np.float32)
        return generator.choice(few, shape)

    corners = array(COORDINATES, count, 2)
    boxes = np.concatenate([corners, corners + 0.125 + array(COORDINATES, count, 2)], axis=1)
    prior = np.stack([boxes, array(st.sampled_from([0.1, 0.2, 0.25]), count, 4)]).reshape(1, 2, -1)
    location = array(CODES, images, count * (1 if how.shared else classes) * 4)
    return how, location, array(SCORES, images, count * classes), prior


@given(cases())
@settings(max_examples=500, deadline=None, derandomize=True)
def test_against_a_plain_implementation(case: tuple[Settings, np.ndarray, np.ndarray, np.ndarray]) -> None:
    how, *bottoms = case
    with np.errstate(all="ignore"):
        want = detection_output(*bottoms, how)
    np.testing.assert_array_equal(run(how.prototxt(), *bottoms), want)


@pytest.mark.parametrize("shared", [True, False])
def test_many_boxes_against_a_plain_implementation(shared: bool) -> None:
    generator = np.random.default_rng(11)
    how = Settings(3, shared, nms_threshold=0.6, eta=0.95, keep_top_k=120, threshold=0.05, code="CENTER_SIZE")
    count, images = 300, 2
    corners = generator.random((count, 2), np.float32) * 0.5
    boxes = np.concatenate([corners, corners + 0.1 + generator.random((count, 2), np.float32) * 0.4], axis=1)
    location = generator.standard_normal((images, count * (1 if shared else 3) * 4), np.float32)
    scores = generator.integers(0, 50, (images, count * 3)).astype(np.float32) / 50  # many ties
    bottoms = location, scores, priors_of(boxes)
    np.testing.assert_array_equal(run(how.prototxt(), *bottoms), detection_output(*bottoms, how))


def test_a_net_around_it_runs_compiled_up_to_its_bottoms() -> None:
    head = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    net_text = (
        data(1, 3, 8, 6, name="image")
        + layer("c", "Convolution", "image", "c", "convolution_param { num_output: 4 kernel_size: 1 }")
        + layer("lp", "Permute", "c", "lp", head)
        + layer("lf", "Flatten", "lp", "lf")
        + layer("sp", "Permute", "c", "sp", head)
        + layer("sr", "Reshape", "sp", "sr", "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }")
        + layer("s", "Softmax", "sr", "s", "softmax_param { axis: 2 }")
        + layer("sf", "Flatten", "s", "sf")
        + layer("p", "PriorBox", "c image", "p", "prior_box_param { min_size: 3 }")
        + layer("y", "DetectionOutput", "lf sf p", "y", "detection_output_param { num_classes: 4 }")
    )
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 6))
    results = []
    for engine in ("onnxruntime", "torch"):
        net = net_of(net_text, engine=engine)
        net.params["c"][0].data[...] = np.random.default_rng(1).standard_normal((4, 3, 1, 1))
        results.append(net.forward(image=image)["y"].copy())
        if engine == "onnxruntime":
            assert list(net._engine_pair()[0]._ends.values()) == [len(net.layers) - 2]  # one segment, all but the last
    assert results[0].shape[2] > 1
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_the_number_of_rows_changes_from_forward_to_forward() -> None:
    net = build(
        text("num_classes: 2 nms_param { nms_threshold: 1 } confidence_threshold: 0.5"), (1, 16), (1, 8), (1, 2, 16)
    )
    net.blobs["b2"].data[...] = priors_of(SQUARES)
    for count in (3, 1, 4, 0, 2):
        net.blobs["b1"].data[...] = [[0, 1] * count + [0, 0] * (4 - count)]
        rows = net.forward()["y"]
        assert rows.shape == (1, 1, max(count, 1), 7)
        assert (rows[..., 2] == (1 if count else -1)).all()


def test_visualize_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build(text("num_classes: 2 visualize: true"), (1, 8), (1, 4), (1, 2, 8))
    assert "Layer l: visualize is ignored" in caplog.text


# -- hostile prototxts and values


def test_scores_that_are_no_numbers_are_no_detections() -> None:
    rows = detect("", [[0, np.nan], [0, 0.5], [0, np.nan], [0, np.nan]])
    np.testing.assert_array_equal(rows, np.array([[0, 1, 0.5, *SQUARES[1]]], np.float32))


def test_infinite_boxes_do_no_harm() -> None:
    location = np.array([[0, 0, 1e30, 1e30], [0, 0, 0, 0], [0, 0, -1e30, 0]], np.float32).reshape(1, -1)
    rows = run(
        "num_classes: 1 background_label_id: -1 code_type: CENTER_SIZE",
        location,
        np.ones((1, 3)),
        priors_of(SQUARES[1:]),
    )
    assert np.isinf(rows[0, 0, 0, 3:]).all()
    assert len(rows[0, 0]) == 3


def test_counts_of_a_thousand_million_take_no_memory() -> None:
    tracemalloc.start()
    rows = detect("keep_top_k: 1000000000 nms_param { top_k: 1000000000 }", [[0, 0.5], [0, 0.25], [0, 0.75]])
    assert len(rows) == 2
    shapes = (1, 0), (1, 0), (1, 2, 0)
    rows = run("num_classes: 1000000000 share_location: false", *(np.zeros(s) for s in shapes))
    assert rows.tolist() == [[[[0, -1, -1, -1, -1, -1, -1]]]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "Must specify num_classes"),
        ("num_classes: 2 nms_param { nms_threshold: -0.1 }", r"nms_threshold must be non negative. Got -0.1"),
        ("num_classes: 2 nms_param { nms_threshold: nan }", r"nms_threshold must be non negative. Got nan"),
        ("num_classes: 2 nms_param { eta: 0 }", "eta_ > 0 and eta_ <= 1. Got 0.0"),
        ("num_classes: 2 nms_param { eta: 1.5 }", "eta_ > 0 and eta_ <= 1. Got 1.5"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(text(param), (1, 8), (1, 4), (1, 2, 8))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 12), (1, 4), (1, 2, 8)), r"match number of location predictions. Expected 8 predictions for 2 priors"),
        (((1, 8), (1, 6), (1, 2, 8)), r"match number of confidence predictions. Expected 4 predictions for 2 priors"),
        (((1, 8), (2, 4), (1, 2, 8)), r"bottom\[0\]->num\(\) == bottom\[1\]->num\(\)"),
        (((1, 8), (1, 4), (2, 8)), r"The priors need a shape \(1, 2, 4 \* number of priors\). Got \(2, 8\)"),
        (((1, 8), (1, 4), (1, 1, 8)), r"The priors need a shape .* Got \(1, 1, 8\)"),
    ],
)
def test_bad_shapes(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(text("num_classes: 2"), *shapes)


@pytest.mark.parametrize("code", ["CENTER_SIZE", "CORNER_SIZE"])
def test_a_prior_without_size_is_refused_by_codes_that_divide_by_it(code: str) -> None:
    flat = np.array([[0.2, 0.2, 0.2, 0.4], [0.5, 0.5, 0.4, 0.9]], np.float32)
    with pytest.raises(InputError, match=r"prior_width and prior_height > 0 .* layer 'l'"):
        run(f"num_classes: 2 code_type: {code}", np.zeros((1, 8)), np.ones((1, 4)), priors_of(flat))
    assert len(run("num_classes: 2", np.zeros((1, 8)), np.ones((1, 4)), priors_of(flat))[0, 0]) == 2


def test_a_net_that_ends_in_it_is_not_exported_and_the_error_names_it(tmp_path: pathlib.Path) -> None:
    net = build(text("num_classes: 2"), (1, 8), (1, 4), (1, 2, 8))
    with pytest.raises(ExportError, match=r"layer 'l' of type 'DetectionOutput' to ONNX.*export the net before it"):
        export_onnx(net, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="layer 'l' of type 'DetectionOutput' to torch"):
        to_torch(net)
    assert not list(tmp_path.iterdir())
