from __future__ import annotations

import numpy as np
import pytest

from pycaffe.data.annotated_datum import Annotations
from pycaffe.data.annotated_transformer import AnnotatedImage, AnnotatedTransformer
from pycaffe.errors import DataError, LayerError
from pycaffe.proto.prototxt import parse_text
from pycaffe.proto.schema import BatchSampler, TransformationParameter

TRAIN, TEST = 0, 1
HEIGHT, WIDTH = 40, 60
BOX = (0.25, 0.5, 0.75, 0.75)  # of pixels that are 200, columns 15 .. 44 and rows 20 .. 29; the others are 50


def image(*boxes: tuple[float, ...]) -> AnnotatedImage:
    pixels = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    pixels[20:30, 15:45] = 200
    box = np.array(boxes or [BOX], np.float32)
    count = len(box)
    objects = Annotations(np.arange(1, count + 1), np.zeros(count, int), box, np.zeros(count, bool))
    return AnnotatedImage(pixels, objects, "it")


def transformer(text: str, phase: int = TRAIN, samplers: tuple[str, ...] = ()) -> AnnotatedTransformer:
    param = parse_text(TransformationParameter(), text, "t")
    return AnnotatedTransformer(param, phase, [parse_text(BatchSampler(), each, "s") for each in samplers])


def run(made: AnnotatedTransformer, seed: int, source: AnnotatedImage | None = None) -> tuple[np.ndarray, Annotations]:
    moved, draws = made.transform(source or image(), seed)
    out = np.empty(made.plain.output_shape(moved.pixels.transpose(2, 0, 1), "it"), np.float32)
    made.finish(moved, draws, out)
    return out, moved.objects


def bright_part(out: np.ndarray) -> np.ndarray:
    """The box of the bright pixels."""
    rows, columns = np.nonzero(out[0] > 125)
    _, height, width = out.shape
    return np.array(
        [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    )


@pytest.mark.parametrize(
    ("text", "samplers"),
    [
        ("mirror: true", ()),
        ("resize_param { height: 80 width: 80 }", ()),
        ("mirror: true crop_size: 36", ()),
        ("crop_h: 38 crop_w: 50 mirror: true", ()),
        ("resize_param { height: 90 width: 90 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 50 }", ()),
        ("resize_param { height: 60 width: 60 resize_mode: FIT_SMALL_SIZE } crop_size: 55", ()),
        ("expand_param { max_expand_ratio: 3 } mean_value: 9 resize_param { height: 100 width: 120 }", ()),
        ("resize_param { height: 100 width: 100 }", ("sampler { min_scale: 0.5 max_aspect_ratio: 2 } max_sample: 1",)),
        (
            "mirror: true expand_param { max_expand_ratio: 2 } mean_value: 9 resize_param { height: 100 width: 100 } "
            "emit_constraint { emit_type: CENTER }",
            ("sampler { min_scale: 0.6 } max_sample: 1",),
        ),
    ],
)
def test_boxes_follow_their_pixels(text: str, samplers: tuple[str, ...]) -> None:
    made = transformer(text, samplers=samplers)  # whose parts end at whole pixels of the small image
    seen = 0
    for seed in range(30):
        out, objects = run(made, seed)
        if len(objects.box):
            seen += 1
            np.testing.assert_allclose(objects.box[0], bright_part(out), atol=0.1 if samplers else 0.04)
    assert seen > 10


def test_the_centre_is_cut_in_tests_and_the_mean_goes() -> None:
    out, objects = run(transformer("crop_size: 30 mean_value: 50 scale: 0.5", TEST), 0)
    assert out.shape == (3, 30, 30)
    assert set(np.unique(out)) == {0, 75}
    np.testing.assert_allclose(objects.box, [[0, 0.5, 1, 0.5 + 1 / 3]], atol=1e-6)


def test_what_is_left_of_objects() -> None:
    boxes = ((0.0, 0.0, 0.3, 0.3), (0.9, 0.1, 0.2, 0.5), (0.0, 0.0, 0.01, 0.01), (-0.5, -0.5, 2.0, 2.0))
    crop = "crop_h: 20 crop_w: 30"  # x from 0.25 to 0.75, y too
    kept = {
        "": [1, 4],
        "emit_constraint { emit_type: CENTER }": [4],
        "emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.01 }": [1, 4],
        "emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 0.035 }": [4],
    }
    for text, labels in kept.items():
        _, objects = run(transformer(f"{crop} {text}", TEST), 0, image(*boxes))
        assert objects.label.tolist() == labels
        assert (objects.box >= 0).all()
        assert (objects.box <= 1).all()


def test_extrapolation_to_height_scale_and_width_scale() -> None:
    text = "resize_param { height: 60 width: 60 resize_mode: FIT_SMALL_SIZE height_scale: 30 width_scale: 45 }"
    _, objects = run(transformer(text, TEST), 0)
    np.testing.assert_allclose(objects.box, [np.array(BOX) * [2, 2, 2, 2]], rtol=1e-6)
    with pytest.raises(DataError, match="crop_width >= width_scale"):
        run(transformer(text.replace("45", "95"), TEST), 0)


def test_seeds_decide_and_go_on_from_a_state() -> None:
    made = transformer("mirror: true expand_param { max_expand_ratio: 2 } resize_param { height: 9 width: 9 }")
    np.testing.assert_array_equal(run(made, 5)[0], run(made, 5)[0])
    state = made.state()
    seeds = made.draw(4).tolist()
    made.restore(state)
    assert made.draw(4).tolist() == seeds
    assert len(set(seeds)) == 4


def test_a_part_of_less_than_a_pixel_is_one() -> None:
    made = transformer("", samplers=("sampler { min_scale: 0.001 max_scale: 0.001 } max_sample: 1",))
    moved, _ = made.transform(image(), 0)
    assert moved.pixels.shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("resize_param { width: 3 }", r"height\(\) > 0"),
        ("expand_param { max_expand_ratio: 1 }", "max_expand_ratio > 1"),
        ("expand_param { max_expand_ratio: nan }", "max_expand_ratio > 1"),
        ("distort_param { hue_delta: -1 }", "hue_delta must be non-negative"),
        ("distort_param { contrast_lower: -1 }", "contrast lower must be non-negative"),
        ("distort_param { saturation_lower: 2 saturation_upper: 1 }", "saturation upper must be >= lower"),
        ("crop_h: 3", "crop_h and crop_w are needed both"),
    ],
)
def test_impossible(text: str, match: str) -> None:
    with pytest.raises(LayerError, match=match):
        transformer(text)


def test_expansion_is_bounded() -> None:
    made = transformer("expand_param { max_expand_ratio: 1e9 }")
    with pytest.raises(DataError, match="is too large"):
        run(made, 0)
