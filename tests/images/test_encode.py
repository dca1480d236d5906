from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from pycaffe.errors import InputError
from pycaffe.images import decode, encode, write_image

IMAGE = np.random.default_rng(0).integers(0, 255, (1, 1, 3), np.uint8).repeat(5, 0).repeat(7, 1)
IMAGE[:, 3:] //= 2


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG"])
def test_files_are_read_back(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    write_image(path, IMAGE)
    back = decode(path)
    assert np.abs(back.astype(int) - IMAGE).mean() <= (0 if suffix.lower() == ".png" else 10)
    assert os.listdir(tmp_path) == [path.name]


def test_quality() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert len(encode(noise, ".jpg", 10)) < len(encode(noise, ".jpg")) / 3


def test_what_cannot_be_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"Could not write an image as '\.txt'"):
        write_image(tmp_path / "image.txt", IMAGE)
    with pytest.raises(OSError, match="No such file or directory"):
        write_image(tmp_path / "none" / "image.png", IMAGE)
    assert os.listdir(tmp_path) == []
