"""Small pictures as data URIs, made from the files at the end of a job."""

from __future__ import annotations

import base64
from collections.abc import Sequence

__all__ = ["thumbnail"]

EXTENT = 128  # pixels of the longer side
PIXELS = 40_000_000  # larger images are left out: decoding one takes a second and 120 MB
QUALITY = 80


def thumbnail(path: str, boxes: Sequence[tuple[int, float, float, float, float]] = ()) -> str | None:
    """A JPEG as a data URI, with boxes (class, left, top, right, bottom in the image's pixels) drawn in.

    None where the file went meanwhile, or is too large.
    """
    import numpy as np

    from pycaffe.errors import InputError
    from pycaffe.images import draw_boxes, encode
    from pycaffe.images.decode import decode, load_cv2, read_source
    from pycaffe.images.header import read_header

    cv2 = load_cv2("thumbnails")
    try:
        data, _ = read_source(path)
        header = read_header(data)
        if header is not None and header.size is not None and header.size[0] * header.size[1] > PIXELS:
            return None
        image = decode(data)
    except InputError:
        return None
    height, width = image.shape[:2]
    factor = min(1.0, EXTENT / max(height, width))
    small = cv2.resize(
        image, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    if boxes:
        corners = np.array([box[1:] for box in boxes], np.float32) * factor
        small = draw_boxes(small, corners, [box[0] for box in boxes])
    return "data:image/jpeg;base64," + base64.b64encode(encode(small, ".jpg", QUALITY)).decode("ascii")
