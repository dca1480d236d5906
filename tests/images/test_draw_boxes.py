from __future__ import annotations

import numpy as np

from pycaffe.images.draw_boxes import PALETTE, colour_of, draw_boxes


def test_a_box_has_its_classes_colour_and_the_image_stays_as_it_was() -> None:
    image = np.full((30, 50, 3), 7, np.uint8)
    drawn = draw_boxes(image, np.float32([[10, 5, 20.4, 15]]), [4])
    outline = np.zeros((30, 50), bool)
    outline[5:16, 10:21] = True
    outline[6:15, 11:20] = False
    assert (drawn[outline] == colour_of(4)).all()
    assert (drawn[~outline] == 7).all()
    assert (image == 7).all()


def test_the_first_box_is_uppermost_and_borders_are_kept_to() -> None:
    drawn = draw_boxes(np.zeros((8, 9, 3), np.uint8), np.float32([[0, 0, 9, 8], [0, 0, 9, 8]]), [1, 2])
    assert (drawn[-1] == colour_of(1)).all()
    assert (drawn[:, -1] == colour_of(1)).all()


def test_text_stands_above_the_box_or_within() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    above = draw_boxes(image, np.float32([[20, 50, 60, 90]]), [0], ["cat é 0.50"])
    assert (above[45, 21] == colour_of(0)).all()
    assert not above[55:85, 25:55].any()
    within = draw_boxes(image, np.float32([[180, 0, 199, 99]]), [0], ["cat"])
    assert (within[1] == colour_of(0)).any()


def test_no_boxes() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(draw_boxes(image, np.empty((0, 4), np.float32), [], []), image)


def test_colours_come_again() -> None:
    assert len(set(PALETTE)) == len(PALETTE)
    assert colour_of(len(PALETTE) + 3) == PALETTE[3]
