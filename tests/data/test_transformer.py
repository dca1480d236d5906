from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.data import DataTransformer
from pycaffe.errors import DataError, LayerError
from pycaffe.net import TEST, TRAIN
from pycaffe.proto import schema

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 7, 9), np.uint8)  # (C, H, W)
MEAN = np.random.default_rng(1).uniform(0, 255, IMAGE.shape).astype(np.float32)


def loop(image, shape, top, left, mirrored, mean, scale):
    """The formula, a pixel at a time."""
    out = np.zeros(shape, np.float32)
    for c in range(shape[0]):
        for h in range(shape[1]):
            for w in range(shape[2]):
                value = np.float32(image[c, top + h, left + w]) - np.float32(mean[c, top + h, left + w])
                out[c, h, shape[2] - 1 - w if mirrored else w] = value * np.float32(scale)
    return out


def run(image: np.ndarray, phase: int, **fields: object) -> np.ndarray:
    transformer = DataTransformer(schema.TransformationParameter(**fields), phase)
    out = np.full(transformer.output_shape(image, "i"), np.nan, np.float32)
    transformer.transform(image, out, "i", *transformer.draw(1))
    return out


@pytest.fixture
def mean_file(tmp_path: Path) -> str:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(schema.BlobProto(data=MEAN.ravel(), shape={"dim": [1, *MEAN.shape]}).SerializeToString())
    return str(path)


def test_without_parameters_it_copies() -> None:
    np.testing.assert_array_equal(run(IMAGE, TRAIN), IMAGE)
    floats = np.random.default_rng(2).standard_normal((2, 3, 5), np.float32)
    np.testing.assert_array_equal(run(floats, TEST), floats)


@pytest.mark.parametrize("values", [[10.5], [10.5, 20.25, 30]])
def test_centre_crop_and_mean_values_in_test(values: list[float]) -> None:
    mean = np.broadcast_to(np.array(values, np.float32).reshape(-1, 1, 1), IMAGE.shape)
    want = loop(IMAGE, (3, 4, 4), 1, 2, False, mean, 0.3)  # (7 - 4) // 2 and (9 - 4) // 2
    np.testing.assert_array_equal(run(IMAGE, TEST, crop_size=4, mean_value=values, scale=0.3), want)


def test_mean_file_is_as_large_as_the_image_and_cropped_with_it(mean_file: str) -> None:
    want = loop(IMAGE, (3, 4, 4), 1, 2, False, MEAN, 0.3)
    np.testing.assert_array_equal(run(IMAGE, TEST, crop_size=4, mean_file=mean_file, scale=0.3), want)


def test_random_crops_reach_every_place_alike_and_mirror_half(mean_file: str) -> None:
    rng.seed(3)
    param = schema.TransformationParameter(crop_size=5, mirror=True, mean_file=mean_file, scale=0.5)
    transformer = DataTransformer(param, TRAIN)
    candidates = {
        (top, left, mirrored): loop(IMAGE, (3, 5, 5), top, left, mirrored, MEAN, 0.5)
        for top in range(3) for left in range(5) for mirrored in (False, True)
    }  # fmt: skip
    counts: Counter[object] = Counter()
    draws = 3000
    for _ in range(draws):
        out = np.empty((3, 5, 5), np.float32)
        transformer.transform(IMAGE, out, "i", *transformer.draw(1))
        (place,) = [place for place, want in candidates.items() if np.array_equal(out, want)]
        counts[place] += 1
    expected = draws / len(candidates)
    chi_square = sum((counts[place] - expected) ** 2 / expected for place in candidates)
    assert set(counts) == set(candidates)
    assert chi_square < 59  # 99.9 % of 29 degrees of freedom: 58.3


def test_test_phase_mirrors_too_but_never_moves_the_crop() -> None:
    rng.seed(4)
    transformer = DataTransformer(schema.TransformationParameter(crop_size=4, mirror=True), TEST)
    centre = IMAGE[:, 1:5, 2:6]
    mirrored = 0
    for _ in range(200):
        out = np.empty((3, 4, 4), np.float32)
        transformer.transform(IMAGE, out, "i", *transformer.draw(1))
        is_mirrored = np.array_equal(out, centre[:, :, ::-1])
        assert is_mirrored or np.array_equal(out, centre)
        mirrored += is_mirrored
    assert 70 < mirrored < 130


def test_draws_follow_the_seed() -> None:
    def draw() -> list[np.ndarray]:
        rng.seed(5)
        transformer = DataTransformer(schema.TransformationParameter(crop_size=2, mirror=True), TRAIN)
        outs = [np.empty((3, 2, 2), np.float32) for _ in range(6)]
        for out in outs:
            transformer.transform(IMAGE, out, "i", *transformer.draw(1))
        return outs

    np.testing.assert_array_equal(draw(), draw())


def test_bad_parameters(mean_file: str) -> None:
    with pytest.raises(LayerError, match="Cannot specify mean_file and mean_value at the same time"):
        run(IMAGE, TEST, mean_file=mean_file, mean_value=[1])
    with pytest.raises(LayerError, match=r"Specify either 1 mean_value or as many as channels: 3. Got 2"):
        run(IMAGE, TEST, mean_value=[1, 2])


def test_images_that_do_not_fit(mean_file: str) -> None:
    with pytest.raises(DataError, match=r"datum_height >= crop_size \(7 vs. 8\). i has the shape"):
        run(IMAGE, TEST, crop_size=8)
    with pytest.raises(DataError, match=r"datum_width >= crop_size \(9 vs. 10\)"):
        run(IMAGE.repeat(2, axis=1), TEST, crop_size=10)
    with pytest.raises(DataError, match=r"data_mean_ shape. i has the shape \(3, 7, 8\)"):
        run(IMAGE[:, :, 1:], TEST, mean_file=mean_file)
    transformer = DataTransformer(schema.TransformationParameter(), TEST)
    with pytest.raises(DataError, match="all images of a batch must have one size"):
        transformer.transform(IMAGE, np.empty((3, 7, 8), np.float32), "i", *transformer.draw(1))
    with pytest.raises(DataError, match="datum_channels > 0"):
        transformer.output_shape(np.empty((0, 2, 3), np.uint8), "i")


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mean", ["none", "file", "one", "each"])
def test_images_that_are_alike_become_the_same_together(
    phase: int, crop: int, mirror: bool, mean: str, mean_file: str
) -> None:
    fields: dict[str, object] = {
        "none": {}, "file": {"mean_file": mean_file}, "one": {"mean_value": [3]}, "each": {"mean_value": [3, 5, 7]},
    }[mean]  # fmt: skip
    rng.seed(6)
    param = schema.TransformationParameter(crop_size=crop, mirror=mirror, scale=0.5, **fields)
    transformer = DataTransformer(param, phase)
    images = np.random.default_rng(7).integers(0, 256, (5, *IMAGE.shape), np.uint8)
    draws = transformer.draw(5)
    want, got = (np.empty((5, *transformer.output_shape(IMAGE, "i")), np.float32) for _ in range(2))
    for image, out, row in zip(images, want, draws):
        transformer.transform(image, out, "i", row)
    transformer.transform_alike(images, got, "i", draws)
    np.testing.assert_array_equal(got, want)


def test_a_state_of_the_draws() -> None:
    transformer = DataTransformer(schema.TransformationParameter(mirror=True), TRAIN)
    transformer.draw(3)
    state = transformer.state()
    want = transformer.draw(4)
    transformer.restore(state)
    np.testing.assert_array_equal(transformer.draw(4), want)
