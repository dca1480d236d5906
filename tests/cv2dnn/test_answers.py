"""Every method, against what OpenCV 4.14 answered (scripts/opencv_answers records it)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from pycaffe import cv2dnn, read_net_from_caffe
from tests.cv2dnn import answers
from tests.cv2dnn.conftest import Files
from tests.cv2dnn.model_answers import ask_models, close

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "opencv"


@pytest.mark.parametrize("name", answers.CASES)
def test_descriptions(name: str, files: Files) -> None:
    net, case = read_net_from_caffe(*files(name)), answers.CASES[name]
    said: dict[str, Any] = answers.describe(net, case)
    said |= answers.describe_after_forward(net, case)
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    said = json.loads(json.dumps(said))
    assert {key: said[key] for key in expected if said[key] != expected[key]} == {}
    assert said.keys() == expected.keys()


@pytest.mark.parametrize("name", answers.CASES)
def test_values(name: str, files: Files) -> None:
    case = answers.CASES[name]

    def read() -> cv2dnn.Net:
        return read_net_from_caffe(*files(name))

    arrays = answers.run(read, case)
    for form, (blob, options) in answers.input_forms(case).items():
        arrays[f"form/{form}"] = answers.run_inputs(read(), case, blob, **options)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        recorded = {key.removeprefix("shape/") for key in golden if key.startswith("shape/")}
        assert recorded == arrays.keys()
        for key in recorded:
            array, values = arrays[key], golden[f"values/{key}"]
            assert array.shape == tuple(golden[f"shape/{key}"]), key
            assert array.dtype == values.dtype, key
            # The values that were recorded, as record() of scripts/opencv_answers chose them.
            chosen = np.random.default_rng(0).permutation(array.size)[: values.size]
            got = array.ravel()[chosen] if values.size < array.size else array.ravel()
            np.testing.assert_allclose(got, values, rtol=2e-4, atol=1e-4 * max(1, abs(values).max()), err_msg=key)


def test_models(files: Files) -> None:
    expected = json.loads((GOLDEN / "models.json").read_text(encoding="utf-8"))
    got = ask_models(cv2dnn, files)
    assert got.keys() == expected.keys()
    # Resizing is OpenCV's own, and its versions differ in the last digits.
    assert {key: (expected[key], got[key]) for key in expected if not close(expected[key], got[key], 2e-3)} == {}
