"""A program that no one here wrote: hyperlpr 0.0.2 reads licence plates with three nets, on whatever OpenCV is here."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import cv2
import pytest

from pycaffe import cv2dnn
from tests.conftest import fetch
from tests.cv2dnn.hyperlpr_shim import hyperlpr_of_2019, recognise

PLATES = pathlib.Path(__file__).parents[1] / "golden" / "opencv" / "plates"
ANSWERS = json.loads((PLATES / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recogniser() -> Iterator[Any]:
    """One for all photographs, so that input sizes change from call to call."""
    package = fetch("hyperlpr_package")
    cv2dnn.install()
    try:
        with hyperlpr_of_2019(package) as kind:
            yield kind(str(package / "hyperlpr" / "models"))
    finally:
        cv2dnn.uninstall()


@pytest.mark.parametrize("answer", [*ANSWERS, ANSWERS[0]], ids=lambda answer: str(answer["text"]))
def test_it_reads_what_it_read_on_opencv_4(answer: dict[str, Any], recogniser: Any, photographs: pathlib.Path) -> None:
    image = cv2.imread(str(photographs / answer["photograph"]))
    plate = cv2.imread(str(PLATES / f"{answer['text']}.png"))
    top, left = answer["at"]
    image[top : top + plate.shape[0], left : left + plate.shape[1]] = plate
    got = recognise(recogniser, image)
    assert got["detected"] == pytest.approx(answer["detected"], abs=1e-4)
    assert [(text, box) for text, _, box in got["plates"]] == [(text, box) for text, _, box in answer["plates"]]
    # Between the nets the package warps and resizes with OpenCV, whose versions differ a little.
    assert [score for _, score, _ in got["plates"]] == pytest.approx([s for _, s, _ in answer["plates"]], abs=2e-3)


def test_the_mode_without_nets_works_in_the_shim(recogniser: Any) -> None:
    plate = cv2.imread(str(PLATES / "C7D859.png"))
    assert recogniser.fine_mapping(cv2.resize(plate, (136, 36))).shape == (36, 136, 3)
