from __future__ import annotations

import builtins
import io
import pathlib
import struct
from typing import Any

import cv2
import numpy as np
import pytest
import skimage
from skimage.transform import resize as skimage_resize

import caffe.io
from caffe.proto import caffe_pb2
from pycaffe.errors import InputError, MissingExtra

RNG = np.random.default_rng(17)
PHOTOGRAPHS = sorted(
    path
    for path in (pathlib.Path(skimage.__file__).parent / "data").iterdir()
    if path.suffix in (".png", ".jpg", ".tif") and path.name != "multipage_rgb.tif"
)


class TestBlobProto:
    def test_new_and_old_shapes(self) -> None:
        values = [float(value) for value in range(24)]
        new = caffe_pb2.BlobProto(data=values)
        new.shape.dim.extend([2, 3, 4])
        old = caffe_pb2.BlobProto(data=values, num=1, channels=2, height=3, width=4)
        for blob, shape in ((new, (2, 3, 4)), (old, (1, 2, 3, 4))):
            array = caffe.io.blobproto_to_array(blob)
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array, np.arange(24).reshape(shape))

    def test_one_value_without_a_shape_is_a_scalar(self) -> None:
        array = caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=[123]))
        assert array.shape == ()
        assert array == 123

    def test_doubles_are_read(self) -> None:
        blob = caffe_pb2.BlobProto(double_data=[1 / 3, 2], double_diff=[3, 4])
        blob.shape.dim.append(2)
        assert caffe.io.blobproto_to_array(blob).tolist() == [1 / 3, 2]
        assert caffe.io.blobproto_to_array(blob, return_diff=True).tolist() == [3, 4]

    def test_a_shape_that_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"BlobProto of shape \(\) holds 6 values"):
            caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=range(6)))

    def test_round_trip_with_gradients(self) -> None:
        data, diff = RNG.random((2, 3, 4, 5)).astype(np.float32), RNG.random((2, 3, 4, 5)).astype(np.float32)
        blob = caffe.io.array_to_blobproto(data, diff)
        np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), data)
        np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), diff)
        assert not caffe.io.array_to_blobproto(data).diff

    def test_vectors(self) -> None:
        arrays = [RNG.random((2, 3)).astype(np.float32), np.arange(4)]
        text = caffe.io.arraylist_to_blobprotovector_str(arrays)
        assert isinstance(text, bytes)
        again = caffe.io.blobprotovector_str_to_arraylist(text)
        assert len(again) == 2
        for before, after in zip(arrays, again):
            np.testing.assert_array_equal(before, after)


class TestDatum:
    def test_bytes_stay_bytes_and_the_rest_become_floats(self) -> None:
        pixels = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
        datum = caffe.io.array_to_datum(pixels, label=7)
        assert (datum.label, datum.channels, datum.height, datum.width) == (7, 3, 4, 5)
        assert datum.data == pixels.tobytes()
        array = caffe.io.datum_to_array(datum)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, pixels)
        array[0, 0, 0] = 1  # writable, and no part of the message
        floats = caffe.io.array_to_datum(pixels.astype(np.int32))
        assert not floats.data
        assert not floats.HasField("label")
        assert caffe.io.datum_to_array(floats).dtype == np.float64
        np.testing.assert_array_equal(caffe.io.datum_to_array(floats), pixels)

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"Incorrect array shape\. Expected .* got \(4, 5\)"):
            caffe.io.array_to_datum(np.zeros((4, 5)))
        with pytest.raises(ValueError, match=r"Datum of shape \(3, 2, 2\) holds 4 values"):
            caffe.io.datum_to_array(caffe_pb2.Datum(channels=3, height=2, width=2, data=b"four"))
        with pytest.raises(ValueError, match="Datum is an encoded image"):
            caffe.io.datum_to_array(caffe_pb2.Datum(channels=3, height=2, width=2, data=b"JPEG", encoded=True))


class TestLoadImage:
    @pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
    def test_photographs_as_scikit_image_reads_them(self, path: pathlib.Path) -> None:
        pixels = skimage.io.imread(path)
        if path.suffix == ".tif":
            pixels = pixels[0]
        expected = skimage.img_as_float(pixels).astype(np.float32)
        if expected.ndim == 2:
            expected = np.repeat(expected[:, :, None], 3, axis=2)
        image = caffe.io.load_image(str(path))
        assert (image.dtype, image.flags.c_contiguous) == (np.float32, True)
        # JPEG decoders differ by a level or two; Pillow cuts 16 bits a channel to 8.
        tolerance = 0.01 if path.suffix == ".jpg" else 0.004 if path.name == "chessboard_RGB.png" else 0
        np.testing.assert_allclose(image, expected[:, :, :3], rtol=0, atol=tolerance)

    def test_grey_weighs_the_channels_and_keeps_grey_as_it_is(self, tmp_path: pathlib.Path) -> None:
        rgb = RNG.integers(0, 256, (5, 8, 3), dtype=np.uint8)
        path = str(tmp_path / "a.png")
        cv2.imwrite(path, rgb[:, :, ::-1])
        image = caffe.io.load_image(path, color=False)
        assert (image.shape, image.dtype) == ((5, 8, 1), np.float32)
        np.testing.assert_allclose(image[:, :, 0], rgb @ np.array([0.2125, 0.7154, 0.0721]) / 255, rtol=1e-6)
        cv2.imwrite(path, rgb[:, :, 0])
        np.testing.assert_array_equal(
            caffe.io.load_image(path, color=False)[:, :, 0], (rgb[:, :, 0] / 255).astype("f4")
        )

    def test_alpha_is_dropped_and_sixteen_bits_are_divided_by_65535(self, tmp_path: pathlib.Path) -> None:
        path = str(tmp_path / "a.png")
        bgra = RNG.integers(0, 65536, (5, 8, 4), dtype=np.uint16)
        cv2.imwrite(path, bgra)
        np.testing.assert_allclose(caffe.io.load_image(path), bgra[:, :, 2::-1] / 65535, rtol=1e-7)

    def test_a_palette_is_looked_up(self, tmp_path: pathlib.Path) -> None:
        from PIL import Image

        indices = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), mode="P")
        indices.putpalette([0, 0, 0, 255, 0, 51, 0, 102, 255])
        indices.save(tmp_path / "a.png")
        image = caffe.io.load_image(tmp_path / "a.png")
        np.testing.assert_allclose(image[0], [[0, 0, 0], [1, 0, 0.2], [0, 0.4, 1]], rtol=1e-6)

    def test_a_buffer_just_written_is_read_from_its_start(self) -> None:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 6, 3), (255, 0, 0), np.uint8)).save(buffer, format="JPEG")
        image = caffe.io.load_image(buffer)
        assert image.shape == (4, 6, 3)
        np.testing.assert_allclose(image, np.broadcast_to([1, 0, 0], image.shape), atol=0.01)

    def test_exif_orientation_is_ignored(self) -> None:
        jpeg = cv2.imencode(".jpg", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
        turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
        assert caffe.io.load_image(io.BytesIO(turned)).shape == (4, 6, 3)

    def test_float_images_stay_as_they_are(self, tmp_path: pathlib.Path) -> None:
        pixels = RNG.random((5, 8, 3), dtype=np.float32)
        cv2.imwrite(str(tmp_path / "a.tif"), pixels)
        np.testing.assert_array_equal(caffe.io.load_image(tmp_path / "a.tif"), pixels[:, :, ::-1])

    def test_a_missing_file(self) -> None:
        with pytest.raises(InputError, match=r"Could not open or find file 'no\.jpg'"):
            caffe.io.load_image("no.jpg")


class TestResizeImage:
    @pytest.mark.parametrize("order", [0, 1, 3])
    @pytest.mark.parametrize("shape", [(7, 11, 3), (40, 30, 1), (1, 6, 3)])
    @pytest.mark.parametrize("new_dims", [(7, 11), (14, 5), (3, 20), (1, 1), (64, 101)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
    def test_one_or_three_channels_as_scikit_image(
        self, order: int, shape: tuple[int, ...], new_dims: tuple[int, int], dtype: type
    ) -> None:
        image = (RNG.random(shape) * 200 + 50).astype(dtype)
        low, high = float(image.min()), float(image.max())
        unit = (image.astype(np.float64) - low) / (high - low)
        expected = (
            skimage_resize(unit, new_dims, order=order, mode="constant", anti_aliasing=False) * (high - low) + low
        )
        result = caffe.io.resize_image(image, new_dims, order)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=2e-6)

    @pytest.mark.parametrize("order", [0, 1, 3])
    @pytest.mark.parametrize("new_dims", [(14, 5), (3, 20), (1, 1), (7, 11)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
    def test_other_channel_counts_as_scipys_zoom(self, order: int, new_dims: tuple[int, int], dtype: type) -> None:
        from scipy.ndimage import zoom

        image = (RNG.random((7, 11, 4)) * 200 - (50 if dtype != np.uint8 else 0)).astype(dtype)
        expected = zoom(image, (new_dims[0] / 7, new_dims[1] / 11, 1), order=order).astype(np.float32)
        np.testing.assert_allclose(caffe.io.resize_image(image, new_dims, order), expected, rtol=2e-6, atol=1e-4)

    def test_a_constant_image_and_one_with_nan(self) -> None:
        result = caffe.io.resize_image(np.full((4, 5, 3), 7), (2, 3))
        assert (result.dtype, result.tolist()) == (np.float32, [[[7, 7, 7]] * 3] * 2)
        assert np.isnan(caffe.io.resize_image(np.full((4, 5, 3), np.nan), (2, 3))).all()

    def test_numpy_sizes_and_bad_shapes(self) -> None:
        assert caffe.io.resize_image(np.eye(4)[:, :, None], np.array([2, 3])).shape == (2, 3, 1)
        with pytest.raises(InputError, match=r"of shape \(4, 4\) to \(2, 3\)"):
            caffe.io.resize_image(np.eye(4), (2, 3))
        with pytest.raises(InputError, match=r"to \(0, 3\)"):
            caffe.io.resize_image(np.eye(4)[:, :, None], (0, 3))

    def test_without_scipy_the_error_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without_scipy(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("scipy"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_scipy)
        image = np.eye(4)[:, :, None]
        assert caffe.io.resize_image(image, (2, 3), 1).shape == (2, 3, 1)
        with pytest.raises(MissingExtra, match="needs SciPy"):
            caffe.io.resize_image(image, (2, 3), 3)


class TestOversample:
    def test_corners_centre_and_mirrors(self) -> None:
        images = RNG.random((2, 7, 10, 3)).astype(np.float32)
        crops = caffe.io.oversample(list(images), (4, 5))
        assert (crops.shape, crops.dtype) == ((20, 4, 5, 3), np.float32)
        for index, image in enumerate(images):
            five = [image[:4, :5], image[:4, 5:], image[3:, :5], image[3:, 5:], image[1:5, 2:7]]
            for number, crop in enumerate(five):
                np.testing.assert_array_equal(crops[10 * index + number], crop)
                np.testing.assert_array_equal(crops[10 * index + 5 + number], crop[:, ::-1])

    def test_a_crop_that_is_too_large(self) -> None:
        with pytest.raises(InputError, match="crops of 8 x 5 from images of 7 x 10"):
            caffe.io.oversample(np.zeros((1, 7, 10, 3)), (8, 5))


class TestTransformer:
    def transformer(self, channels: int = 3) -> caffe.io.Transformer:
        return caffe.io.Transformer({"data": (2, channels, 4, 5)})

    def test_every_step_in_its_order(self) -> None:
        transformer = self.transformer()
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_channel_swap("data", (2, 1, 0))
        transformer.set_raw_scale("data", 255)
        transformer.set_mean("data", np.array([104, 117, 123]))
        transformer.set_input_scale("data", 0.5)
        image = RNG.random((4, 5, 3)).astype(np.float32)
        before = image.copy()
        result = transformer.preprocess("data", image)
        mean = np.array([104, 117, 123])[:, None, None]
        expected = (image.transpose(2, 0, 1)[::-1] * np.float32(255) - mean) * 0.5
        assert (result.shape, result.dtype) == ((3, 4, 5), np.float32)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_allclose(transformer.deprocess("data", result[None]), image, atol=1e-6)

    def test_images_are_resized_and_nothing_else_is_done_unasked(self) -> None:
        image = RNG.random((9, 7, 3))
        result = self.transformer().preprocess("data", image)
        np.testing.assert_array_equal(result, caffe.io.resize_image(image.astype(np.float32), (4, 5)))

    def test_scaling_leaves_the_callers_image_alone(self) -> None:
        transformer = self.transformer()
        transformer.set_raw_scale("data", 2)
        image = np.ones((4, 5, 3), np.float32)
        assert transformer.preprocess("data", image).max() == 2
        assert image.max() == 1

    def test_a_shape_may_be_a_list(self) -> None:
        transformer = caffe.io.Transformer({"data": [1, 3, 4, 5]})
        image = RNG.random((4, 5, 3)).astype(np.float32)
        np.testing.assert_array_equal(transformer.preprocess("data", image), image)
        transformer.set_mean("data", np.ones((3, 4, 5)))
        np.testing.assert_array_equal(transformer.mean["data"], np.ones((3, 4, 5)))

    def test_deprocess_of_a_grey_image(self) -> None:
        transformer = self.transformer(1)
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_mean("data", np.array([5.0]))
        image = RNG.random((4, 5, 1)).astype(np.float32)
        result = transformer.deprocess("data", transformer.preprocess("data", image)[None])
        np.testing.assert_allclose(result, image, atol=1e-6)

    def test_a_mean_of_another_size_is_resized(self) -> None:
        transformer = self.transformer()
        mean = RNG.random((3, 8, 10)) * 50 + 100
        transformer.set_mean("data", mean)
        expected = mean.reshape(3, 4, 2, 5, 2).mean((2, 4))  # halving: each new pixel lies amid four
        np.testing.assert_allclose(transformer.mean["data"], expected, rtol=1e-6)

    def test_a_plane_as_mean(self) -> None:
        transformer = self.transformer()
        transformer.set_mean("data", np.full((8, 10), 3.0))
        np.testing.assert_array_equal(transformer.mean["data"], np.full((1, 4, 5), 3.0))
        grey = self.transformer(1)
        plane = RNG.random((4, 5))
        grey.set_mean("data", plane)
        np.testing.assert_array_equal(grey.mean["data"], plane)

    @pytest.mark.parametrize(
        ("method", "argument", "match"),
        [
            ("set_transpose", (0, 1), r"same number of dimensions as the input\. Expected 3 for 'data', got \(0, 1\)"),
            ("set_channel_swap", (1, 0), r"as the input channels\. Expected 3 for 'data', got \(1, 0\)"),
            ("set_mean", np.zeros(2), r"Mean channels incompatible with input\. Expected 3, got 2"),
            ("set_mean", np.zeros((1, 3, 4, 5)), r"Mean shape invalid: \(1, 3, 4, 5\)"),
        ],
    )
    def test_bad_settings(self, method: str, argument: Any, match: str) -> None:
        with pytest.raises(InputError, match=match):
            getattr(self.transformer(), method)("data", argument)

    @pytest.mark.parametrize(
        "method",
        [
            "preprocess",
            "deprocess",
            "set_transpose",
            "set_channel_swap",
            "set_raw_scale",
            "set_mean",
            "set_input_scale",
        ],
    )
    def test_an_unknown_input(self, method: str) -> None:
        with pytest.raises(InputError, match=r"label is not one of the net inputs: \['data'\]"):
            getattr(self.transformer(), method)("label", np.zeros(3))
