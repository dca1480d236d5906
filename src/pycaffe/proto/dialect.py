"""Which fork's meaning a layer type has where Caffe's forks give one name two meanings and the parameters do not tell.

SmoothL1Loss, Upsample, BN and weighted SoftmaxWithLoss are such names. A net has one dialect: `Net(..., dialect=...)`,
else the environment's PYCAFFE_DIALECT, else "opencv". That is "ssd" but for how `cv2.dnn` read SSD's layers, where most
of these nets ran last: PriorBox with fractions of pixels, and DetectionOutput with rows of zeros up to keep_top_k.
"""

from __future__ import annotations

import os

from pycaffe.errors import InputError, did_you_mean

__all__ = ["DEFAULT_DIALECT", "DIALECTS", "resolve_dialect"]

DIALECTS = {
    "ssd": "weiliu89/caffe, branch ssd",
    "yolo": "eric612/MobileNet-YOLO",
    "segnet": "alexgkendall/caffe-segnet",
    "rfcn": "daijifeng001/caffe-rfcn",
    "frcnn": "rbgirshick/caffe-fast-rcnn",
    "opencv": "OpenCV 4, readNetFromCaffe; all that it did not read is SSD's",
}
DEFAULT_DIALECT = "opencv"


def resolve_dialect(dialect: str | None) -> str:
    """The dialect itself; for None that of the environment, or the default.

    Raises:
        InputError: there is no such dialect.
    """
    chosen = dialect if dialect is not None else os.environ.get("PYCAFFE_DIALECT") or DEFAULT_DIALECT
    if chosen not in DIALECTS:
        origin = "" if dialect is not None else " from PYCAFFE_DIALECT"
        raise InputError(
            f"Unknown dialect {chosen!r}{origin}. Expected one of {list(DIALECTS)!r}.{did_you_mean(chosen, DIALECTS)}"
        )
    return chosen
