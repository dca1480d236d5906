from __future__ import annotations

import base64
import pathlib

import numpy as np
import pytest

from pycaffe.cli._report.thumbnails import EXTENT, thumbnail
from pycaffe.images import colour_of, decode, write_image


def pixels(uri: str | None) -> np.ndarray:
    assert uri is not None
    return decode(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))


def test_boxes_shrink_with_their_image(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "image.png")
    write_image(path, np.full((256, 512, 3), 200, np.uint8))
    plain, drawn = pixels(thumbnail(path)), pixels(thumbnail(path, [(3, 128, 64, 384, 192)]))
    assert plain.shape == drawn.shape == (EXTENT // 2, EXTENT, 3)
    assert np.abs(plain.astype(int) - 200).max() < 5
    assert np.abs(drawn[16, 40:90].astype(int) - colour_of(3)).mean() < 60
    assert np.abs(drawn[25:40, 40:90].astype(int) - 200).max() < 20
    changed = np.argwhere(np.abs(drawn.astype(int) - plain).max(axis=2) > 40)
    corners = [*changed.min(axis=0), *changed.max(axis=0)]
    assert corners == pytest.approx([16, 32, 48, 96], abs=2), "JPEG spreads a line"


def test_a_file_that_went_has_no_picture(tmp_path: pathlib.Path) -> None:
    assert thumbnail(str(tmp_path / "gone.png"), [(1, 0, 0, 1, 1)]) is None
