from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import pycaffe
from pycaffe import Box, Detection, ImagePreprocess, InputError, Net, detect
from pycaffe.images import write_image
from tests.conftest import TrainedNet
from tests.detection.tiny_detector import LEFT, RIGHT, halves

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models_real"
IMAGE = halves((204, 0, 0), (0, 255, 0))


def box(parts: tuple[float, float, float, float], height: int = 8, width: int = 24) -> Box:
    return Box(parts[0] * width, parts[1] * height, parts[2] * width, parts[3] * height)


@pytest.mark.parametrize("kind", ["array", "path", "bytes"])
def test_objects_with_label_score_and_box_from_the_best_down(
    detector: tuple[str, str], tmp_path: pathlib.Path, kind: str
) -> None:
    path = tmp_path / "image.png"
    write_image(path, IMAGE)
    image: Any = {"array": IMAGE, "path": path, "bytes": path.read_bytes()}[kind]
    net = Net(detector[0], weights=detector[1])
    found = detect(net, image, labels={2: "cat"})
    assert found == [
        Detection(2, "cat", pytest.approx(1, abs=1e-6), pytest.approx(box(RIGHT), abs=1e-4)),
        Detection(1, "class 1", pytest.approx(0.8, abs=1e-6), pytest.approx(box(LEFT), abs=1e-4)),
    ]
    assert detect(net, image, threshold=0.9) == [found[0]._replace(label="class 2")]


def test_an_image_of_any_size_and_another_preprocessing(detector: tuple[str, str]) -> None:
    net = Net(detector[0], weights=detector[1])
    for height, width in ((4, 6), (40, 30)):
        (found,) = detect(net, halves((0, 255, 0), (0, 0, 0), height, width), threshold=0.9)
        assert found.box == pytest.approx(box(LEFT, height, width), abs=1e-3)
    rgb = ImagePreprocess(mean=None, resize=(4, 6), channel_order="RGB")
    assert [each.class_id for each in detect(net, halves((0, 0, 255), (0, 0, 0)), preprocess=rgb)] == [1]


def test_nothing(detector: tuple[str, str]) -> None:
    assert detect(Net(detector[0], weights=detector[1]), np.zeros((3, 5, 3), np.uint8)) == []


def test_a_function_decodes(net: tuple[str, str]) -> None:
    def decode(outputs: dict[str, Any]) -> Any:
        assert outputs["score"].shape == (7,)
        return [[outputs["score"].argmax(), 0.75, 0.5, 0, 1, 0.5]]

    classifier = Net(net[0], weights=net[1])
    (found,) = detect(classifier, IMAGE, decode=decode)
    assert (found.class_id, found.box) == (int(classifier.blobs["score"].data.argmax()), Box(12, 0, 24, 4))


def test_bad_images_and_nets(detector: tuple[str, str], net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    good = Net(detector[0], weights=detector[1])
    with pytest.raises(InputError, match=r"Could not open or find file 'missing\.jpg'"):
        detect(good, "missing.jpg")
    with pytest.raises(InputError, match="Could not decode the image bytes: it is empty"):
        detect(good, b"")
    with pytest.raises(InputError, match="no layer of the types DetectionOutput"):
        detect(Net(net[0], weights=net[1]), IMAGE)
    model = tmp_path / "two.prototxt"
    shape = "input_param { shape { dim: 1 dim: 3 dim: 4 dim: 6 } }"
    model.write_text(f'layer {{ name: "a" type: "Input" top: "a" top: "b" {shape} }}', encoding="utf-8")
    with pytest.raises(InputError, match="detect needs a net with one input of shape"):
        detect(Net(model), IMAGE)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_res10_finds_what_it_found_on_opencv(
    face_ssd_res10: TrainedNet, photographs: pathlib.Path, engine: str
) -> None:
    """126 detections of a photograph, as OpenCV 4.14 gives them; the input is the same to the last bit."""
    net = Net(face_ssd_res10.model, pycaffe.TEST, weights=face_ssd_res10.weights, engine=engine)
    preprocess = ImagePreprocess(mean=(104, 177, 123), resize=300)
    path = photographs / "astronaut.png"
    (face,) = detect(net, path, preprocess=preprocess, labels={1: "face"})
    rows, expected = net.blobs["detection_out"].data[0, 0], np.load(GOLDEN / "res10_astronaut.npz")["out_detection_out"]
    assert rows.shape == expected[0, 0].shape == (200, 7)
    assert np.array_equal(rows[:, :2], expected[0, 0, :, :2])
    np.testing.assert_allclose(rows, expected[0, 0], rtol=0, atol=1e-4)
    best = expected[0, 0, 0]
    assert (face.class_id, face.label, face.score) == (1, "face", pytest.approx(best[2], abs=1e-4))
    assert face.box == pytest.approx(tuple(best[3:] * 512), abs=0.05)
