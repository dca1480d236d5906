"""Trained nets from PyPI packages, on both engines, against reference Caffe (OpenCV: FP16 weights, SSD layers)."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import pycaffe
from tests.conftest import TrainedNet
from tests.layers.case import assert_close

GOLDEN = pathlib.Path(__file__).parent / "golden" / "models"


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("name", ["face_ssd_res10", "open_nsfw", "finemapping_fp16", "refinenet"])
def test_outputs(name: str, engine: str, request: pytest.FixtureRequest) -> None:
    files: TrainedNet = request.getfixturevalue(name)
    with np.load(GOLDEN / f"{name}.npz") as answer:
        net = pycaffe.Net(files.model, pycaffe.TEST, weights=files.weights, engine=engine)
        blob = net.blobs[str(answer["input"]) or net.inputs[0]]
        shape = tuple(int(extent) for extent in answer["shape"])
        blob.reshape(*shape)
        noise = np.random.default_rng(int(answer["seed"])).standard_normal(shape, dtype=np.float32)
        blob.data[...] = noise * np.float32(answer["scale"]) + np.float32(answer["shift"])
        outputs = net.forward()
        keys = [key for key in answer if key.startswith("out/")]
        assert keys
        for key in keys:
            assert_close(key, answer[key], outputs[key.removeprefix("out/")], rtol=2e-4, atol=1e-5)
