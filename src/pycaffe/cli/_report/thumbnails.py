"""Small pictures as data URIs, made from the files at the end of a job."""

from __future__ import annotations

import base64

__all__ = ["thumbnail"]

EXTENT = 128  # pixels of the longer side
PIXELS = 40_000_000  # larger images are left out: decoding one takes a second and 120 MB
QUALITY = 80


def thumbnail(path: str) -> str | None:
    """A JPEG as a data URI; None where the file went meanwhile, or is too large."""
    from pycaffe.errors import InputError
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
    done, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii") if done else None
