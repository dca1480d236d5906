"""From image files and a list of them to a database (tools/convert_imageset.cpp)."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.data.image_list import read_image_list
from pycaffe.data.listed_records import Record, ToolLog, write_listed_records
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2, read_source
from pycaffe.proto import schema

__all__ = ["ImageFormat", "StoredImage", "convert_imageset", "store_image"]

logger = logging.getLogger(__name__)
LOG = ToolLog(logger, "convert_imageset.cpp", shuffling=86, total=89, encode_type=92, progress=147, end=153)


class ImageFormat(NamedTuple):
    """How images are stored.

    Attributes:
        resize_height, resize_width: 0 or less for as it is; both are needed.
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
        return max(self.resize_height, self.resize_width, self.min_dim, self.max_dim) > 0


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
    return write_listed_records(
        list_file,
        read_image_list(list_file),
        path,
        partial(_record, root_folder, image_format),
        partial(_log_failure, root_folder),
        LOG,
        assumes_encoded=bool(image_format.encode_type) and not image_format.encoded,
        backend=backend,
        shuffle=shuffle,
        check_size=check_size,
    )


def _record(root_folder: str, image_format: ImageFormat, line: tuple[str, int]) -> Record:
    stored = store_image(root_folder, *line, image_format, f"{LOG.file}:117")
    return Record(stored.datum, stored.shape)


def _log_failure(root_folder: str, name: str, error: InputError) -> None:
    logger.error(f"Could not open or find file {root_folder + name}. {error}", extra={"place": "io.cpp:80"})


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
