from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycaffe.errors import DataError, InputError, LayerError, ShapeError
from pycaffe.net import Net
from tests.layers.case import FORKS, build, run_fork_golden

CASES = sorted(path.stem for path in FORKS.glob("detectionevaluate_*.prototxt"))


def layer(param: str) -> str:
    return (
        'layer { name: "l" type: "DetectionEvaluate" bottom: "b0" bottom: "b1" top: "y" '
        f"detection_evaluate_param {{ {param} }} }}"
    )


def run(param: str, detections: list[list[float]], objects: list[list[float]]) -> tuple[Net, list[list[float]]]:
    net = build(layer(param), (1, 1, len(detections), 7), (1, 1, len(objects), 8))
    net.blobs["b0"].data[...] = detections
    net.blobs["b1"].data[...] = objects
    net.forward()
    return net, net.blobs["y"].data[0, 0].tolist()


def thing(image: int, label: int, box: tuple[float, ...], difficult: int = 0) -> list[float]:
    return [image, label, 0, *box, difficult]


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert "torch" in run_fork_golden(name)


def test_cases_are_there() -> None:
    assert len(CASES) == 5


LEFT, RIGHT, AWAY = (0.0, 0.0, 0.4, 0.4), (0.5, 0.0, 0.9, 0.4), (0.0, 0.6, 0.4, 1.0)
OBJECTS = [thing(0, 1, LEFT), thing(0, 1, RIGHT, 1), thing(1, 2, LEFT)]
DETECTIONS = [
    [0, 1, 0.5, *LEFT],  # the second to find it
    [0, 1, 0.75, *LEFT],
    [0, 1, 0.25, *RIGHT],  # the difficult one
    [0, 1, 0.125, *AWAY],
    [0, 2, 0.5, *LEFT],  # of no class there
    [1, -1, 0, 0, 0, 0, 0],  # none in this image
    [2, 2, 0.5, *LEFT],  # an image without objects
]


def test_rows_by_hand() -> None:
    _, rows = run("num_classes: 3", DETECTIONS, OBJECTS)
    assert rows == [
        [-1, 1, 2, -1, -1],
        [-1, 2, 1, -1, -1],
        [0, 1, 0.75, 1, 0],
        [0, 1, 0.5, 0, 1],
        [0, 1, 0.25, 1, 0],
        [0, 1, 0.125, 0, 1],
        [0, 2, 0.5, 0, 1],
        [2, 2, 0.5, 0, 1],
    ]


def test_difficult_objects_may_not_count() -> None:
    _, rows = run("num_classes: 3 evaluate_difficult_gt: false", DETECTIONS, OBJECTS)
    assert rows[:2] == [[-1, 1, 1, -1, -1], [-1, 2, 1, -1, -1]]
    assert rows[4] == [0, 1, 0.25, 0, 0]


def test_nothing_found_and_nothing_there() -> None:
    _, rows = run("num_classes: 2", [[0, -1, -1, -1, -1, -1, -1]], [[-1] * 8])
    assert rows == [[-1, 1, 0, -1, -1]]


def test_rows_of_zeros_are_no_detections() -> None:
    """With them OpenCV's DetectionOutput fills up to keep_top_k."""
    _, want = run("num_classes: 3", DETECTIONS, OBJECTS)
    _, rows = run("num_classes: 3", [*DETECTIONS, [0] * 7, [0] * 7], OBJECTS)
    assert rows == want


def sized(tmp_path: Path, text: str) -> str:
    (tmp_path / "sizes.txt").write_text(text, encoding="utf-8")
    return f'name_size_file: "{tmp_path / "sizes.txt"}"'


def test_in_pixels_the_last_one_counts(tmp_path: Path) -> None:
    """Boxes of 2 x 4 and 4 x 4 pixels: 0.5 of each other; as pixels with their last ones, (3 * 5) / (5 * 5)."""
    objects = [thing(0, 1, (0, 0, 0.4, 0.4))]
    detections = [[0, 1, 0.9, 0, 0, 0.2, 0.4]]
    _, plain = run("num_classes: 2 overlap_threshold: 0.55", detections, objects)
    assert plain[1][3:] == [0, 1]
    _, rows = run(f"num_classes: 2 overlap_threshold: 0.55 {sized(tmp_path, 'a 10 10')}", detections, objects)
    assert rows[1][3:] == [1, 0]
    _, rows = run(f"num_classes: 2 overlap_threshold: 0.61 {sized(tmp_path, 'a 10 10')}", detections, objects)
    assert rows[1][3:] == [0, 1]


@pytest.mark.parametrize(
    ("resize", "size", "low", "high"),
    [
        ("height: 100 width: 100", "200 400", (100, 50), (300, 150)),
        ("height: 100 width: 100 resize_mode: FIT_LARGE_SIZE_AND_PAD", "200 400", (100, 0), (300, 200)),
        ("height: 100 width: 100 resize_mode: FIT_LARGE_SIZE_AND_PAD", "400 200", (0, 100), (200, 300)),
        ("height: 100 width: 100 resize_mode: FIT_SMALL_SIZE", "200 400", (100, 50), (300, 150)),
        (
            "height: 50 width: 50 resize_mode: FIT_SMALL_SIZE height_scale: 160 width_scale: 480",
            "200 400",
            (120, 40),
            (360, 120),
        ),
    ],
)
def test_boxes_in_pixels(resize: str, size: str, low: tuple[int, int], high: tuple[int, int]) -> None:
    from pycaffe.layers._output_boxes import output_boxes
    from pycaffe.proto.prototxt import parse_text
    from pycaffe.proto.schema import ResizeParameter

    param = parse_text(ResizeParameter(), resize, "r")
    height, width = (int(word) for word in size.split())
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [-1, -1, 2, 2]], np.float32)
    got, sizes = output_boxes(boxes, (height, width), param)
    np.testing.assert_allclose(got[0], [*low, *high], rtol=1e-6)
    scaled = "scale" in resize
    extent = np.subtract(high, low) + (0 if scaled else 1)
    np.testing.assert_allclose(sizes[0], extent[0] * extent[1], rtol=1e-6)
    assert (got >= 0).all()
    assert (got <= [width, height, width, height]).all()


def test_sizes_go_round_by_images_with_detections(tmp_path: Path) -> None:
    param = "num_classes: 2 " + sized(tmp_path, "a 10 10\n\nb 20 20\nc 30 30\n")
    net, _ = run(param, [[i, 1, 0.5, *LEFT] for i in (0, 2)], [thing(0, 1, LEFT)])
    (evaluate,) = (node.layer for node in net._graph.nodes if node.type == "DetectionEvaluate")
    assert evaluate.state() == {"place": 2}
    net.forward()
    assert evaluate.state() == {"place": 1}
    evaluate.restore({"place": 2})
    assert evaluate.state() == {"place": 2}
    for wrong in ({"place": 3}, {"place": None}, {}):
        with pytest.raises(DataError, match="is no place in"):
            evaluate.restore(wrong)


def test_what_is_wrong(tmp_path: Path) -> None:
    for param, match in (
        ("", "Must provide num_classes"),
        ("num_classes: 2 overlap_threshold: 0", "overlap_threshold"),
    ):
        with pytest.raises(LayerError, match=match):
            run(param, DETECTIONS, OBJECTS)
    with pytest.raises(DataError, match=r"Failed to open name size file: missing\.txt"):
        run('num_classes: 2 name_size_file: "missing.txt"', DETECTIONS, OBJECTS)
    with pytest.raises(DataError, match=r"sizes\.txt:2: 'b 3' is not `name height width`"):
        run("num_classes: 2 " + sized(tmp_path, "a 1 2\nb 3"), DETECTIONS, OBJECTS)
    with pytest.raises(LayerError, match="resize_height > 0"):
        run(f"num_classes: 3 resize_param {{ }} {sized(tmp_path, 'a 1 2')}", DETECTIONS, OBJECTS)
    with pytest.raises(InputError, match="Found background label in the dataset"):
        run("num_classes: 3", DETECTIONS, [thing(0, 0, LEFT)])
    with pytest.raises(InputError, match="Found background label in the detection results"):
        run("num_classes: 3", [[0, 0, 0.5, *LEFT]], OBJECTS)
    with pytest.raises(InputError, match="not finite"):
        run("num_classes: 3", [[0, np.nan, 0.5, *LEFT]], OBJECTS)
    with pytest.raises(ShapeError, match=r"Got \(1, 1, 3, 6\)"):
        build(layer("num_classes: 3"), (1, 1, 3, 6), (1, 1, 3, 8))
    with pytest.raises(ShapeError, match="INT_MAX"):
        build(layer("num_classes: 4000000000"), (1, 1, 3, 7), (1, 1, 3, 8))
