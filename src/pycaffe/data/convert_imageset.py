"""From image files and a list of them to a database (tools/convert_imageset.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.data.database_writer import DatabaseWriter
from pycaffe.data.image_list import read_image_list
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2, read_source
from pycaffe.proto import schema
from pycaffe.rng import child_generator
from pycaffe.threads import available_cores

__all__ = ["ImageFormat", "StoredImage", "check_alike", "convert_imageset", "store_image"]

PROGRESS = 1000  # images between two log lines
logger = logging.getLogger(__name__)


class ImageFormat(NamedTuple):
    """How images are stored.

    Attributes:
        resize_height, resize_width: 0 for as it is; both are needed.
        gray: one channel of luminance instead of three.
        encoded: an image file instead of pixels: the file as it is, or anew where the image is resized or `encode_type`
            is another one. As in the original a file that is stored as it is keeps its colours, whatever `gray` says;
            the Data layer's `force_gray` drops them.
        encode_type: the ending of a format that OpenCV writes, such as "png"; implies `encoded`. The file's by default.
        min_dim, max_dim: instead of resize_height and resize_width, and keeping the aspect: the shorter side is made at
            least, then the longer side at most so many pixels (0: any). SSD's.
    """

    resize_height: int = 0
    resize_width: int = 0
    gray: bool = False
    encoded: bool = False
    encode_type: str = ""
    min_dim: int = 0
    max_dim: int = 0

    def extents(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) as which an image of that height and width is stored."""
        if self.min_dim > 0 or self.max_dim > 0:
            factor = max(1.0, self.min_dim / min(height, width))
            if self.max_dim > 0 and int(factor * max(height, width)) > self.max_dim:
                factor = self.max_dim / max(height, width)
            return max(1, round(height * factor)), max(1, round(width * factor))
        if self.resize_height > 0 and self.resize_width > 0:
            return self.resize_height, self.resize_width
        return height, width

    def resizes(self) -> bool:
        """Whether any of the sizes is given."""
        return any((self.resize_height, self.resize_width, self.min_dim, self.max_dim))


class StoredImage(NamedTuple):
    """A Datum, the shape (H, W, C) of its image, and the image's height and width before it was resized."""

    datum: Any
    shape: tuple[int, ...]
    original: tuple[int, int]


def convert_imageset(
    root_folder: str,
    list_file: str,
    path: str,
    image_format: ImageFormat = ImageFormat(),  # noqa: B008 (it is immutable)
    *,
    backend: str = "lmdb",
    shuffle: bool = False,
    check_size: bool = False,
) -> int:
    """Makes a database of the images in a list. One that cannot be read is left out, and logged.

    Args:
        root_folder: put before each path as it is: end it with a slash.
        list_file: lines `path label`.
        path: the database's folder; nothing may be there yet.
        image_format: how images are stored.
        backend: "lmdb" or "leveldb".
        shuffle: the images are stored in random order.
        check_size: an image of another size than the first is an error.

    Returns:
        The number of records. Their keys are the line's number and path, `00000007_some/path.jpg`.

    Raises:
        DataError: the list or the database is not as it should be, no image could be read, or with `check_size` two
            differ.
        MissingExtra: OpenCV, `lmdb` or `plyvel` is not installed.
    """
    lines = read_image_list(list_file)
    if shuffle:
        _log("Shuffling data", 86)
        lines = [lines[index] for index in child_generator().permutation(len(lines))]
    _log(f"A total of {len(lines)} images.", 89)
    if image_format.encode_type and not image_format.encoded:
        _log("encode_type specified, assuming encoded=true.", 92)
    with DatabaseWriter(path, backend) as writer:
        size: tuple[int, ...] | None = None
        for number, ((name, _), stored) in enumerate(zip(lines, _read_all(root_folder, lines, image_format))):
            if isinstance(stored, InputError):
                text = f"Could not open or find file {root_folder + name}. {stored}"
                logger.error(text, extra={"place": "io.cpp:80"})
                continue
            size = size or stored.shape
            if check_size:
                check_alike(name, stored.shape, size)
            writer.put(f"{number:08d}_{name}".encode(errors="surrogateescape"), stored.datum)
            if writer.count % PROGRESS == 0:
                _log(f"Processed {writer.count} files.", 147)
        if writer.count == 0:
            raise DataError(f"None of the {len(lines)!r} images that {list_file!r} names could be read.")
    if writer.count % PROGRESS:
        _log(f"Processed {writer.count} files.", 153)
    return writer.count


def check_alike(name: str, shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    """Raises DataError where an image has another shape than the first one."""
    if shape != first:
        raise DataError(
            f"Incorrect data field size {np.prod(shape)}. Image {name!r} has the shape {shape!r}, the first one "
            f"{first!r}."
        )


def _read_all(
    root_folder: str, lines: list[tuple[str, int]], image_format: ImageFormat
) -> Iterator[StoredImage | InputError]:
    """The Datum of each line, in order, read on several threads; as many lines at a time as are logged together."""
    read = partial(_read, root_folder, image_format)
    with ThreadPoolExecutor(available_cores()) as threads:
        for start in range(0, len(lines), PROGRESS):
            yield from threads.map(read, lines[start : start + PROGRESS])


def _read(root_folder: str, image_format: ImageFormat, line: tuple[str, int]) -> StoredImage | InputError:
    try:
        return store_image(root_folder, line[0], line[1], image_format, "convert_imageset.cpp:117")
    except InputError as error:
        return error


def store_image(root_folder: str, name: str, label: int, image_format: ImageFormat, place: str) -> StoredImage:
    """The Datum of an image file (ReadImageToDatum of io.cpp); `place` is where the original logs its warning.

    Raises:
        InputError: the file cannot be read or decoded.
    """
    data, _ = read_source(root_folder + name)
    image: npt.NDArray[np.uint8] = decode(data, grey=image_format.gray)
    original = (image.shape[0], image.shape[1])
    height, width = image_format.extents(*original)
    if (height, width) != original:
        image = load_cv2("convert_imageset").resize(image, (width, height)).reshape(height, width, image.shape[2])
    if not image_format.encoded and not image_format.encode_type:
        channels = image.shape[2]
        planes = image.transpose(2, 0, 1).tobytes()
        datum = schema.Datum(channels=channels, height=height, width=width, data=planes, label=label)
        datum.encoded = False
        return StoredImage(datum, image.shape, original)
    ending = _ending(name)
    if not ending:
        text = f"Failed to guess the encoding of '{name}'"
        logger.warning(text, extra={"place": place})
    encoding = image_format.encode_type.lower() or ending
    same = ending == encoding or (ending, encoding) == ("jpeg", "jpg")
    stored = data if same and not image_format.resizes() else _encode(image, encoding)
    return StoredImage(schema.Datum(data=stored, label=label, encoded=True), image.shape, original)


def _ending(name: str) -> str:
    """What follows the last dot; nothing where there is none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def _encode(image: npt.NDArray[np.uint8], encoding: str) -> bytes:
    cv2 = load_cv2("convert_imageset")
    try:
        done, data = cv2.imencode(f".{encoding}", image)
    except cv2.error as error:
        raise DataError(f"OpenCV cannot write images of type {encoding!r}: {str(error).strip()}") from error
    if not done:
        raise DataError(f"OpenCV cannot write images of type {encoding!r}.")
    return bytes(data.tobytes())


def _log(message: str, line: int) -> None:
    logger.info(message, extra={"place": f"convert_imageset.cpp:{line}"})
