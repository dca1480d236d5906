"""A client that nobody here wrote: the package nsfw 0.3.2, unmodified, scores photographs as on reference Caffe."""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
import sys

import pytest
from PIL import Image

SCORES = pathlib.Path(__file__).parents[1] / "golden" / "nsfw_scores.json"


def test_scores_are_those_of_reference_caffe(
    nsfw_package: pathlib.Path, photographs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(nsfw_package, tmp_path / "nsfw")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GLOG_minloglevel", "2")  # the client sets it; put back afterwards
    scores = json.loads(SCORES.read_text())
    compared = 0
    try:
        client = importlib.import_module("nsfw")
        for path in sorted(photographs.iterdir()):
            with Image.open(path) as image:
                safe, unsafe = client.classify(image)
            assert unsafe == pytest.approx(scores[path.name], abs=1e-3), path.name  # JPEG steps inside
            assert safe + unsafe == pytest.approx(1, abs=1e-5)
            compared += 1
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "nsfw"]:
            del sys.modules[name]
    assert compared == 26
