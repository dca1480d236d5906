"""Layers of users: by the decorator, and from an installed package."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest

from pycaffe.errors import LayerError, UnknownLayerType
from pycaffe.layers import Layer, _registry, layer_class, register_layer
from tests.layers.case import check_layer

NET = 'layer { name: "l" type: "{type}" bottom: "b0" top: "t0" python_param { param_str: "3" } }'
TOY = """
from pycaffe.layers import Layer

class Tripled(Layer):
    def setup(self, bottom):
        self.factor = float(self.layer_param.python_param.param_str)
    def reshape(self, bottom):
        return [bottom[0]]
    def forward(self, bottom, params):
        return [self.factor * bottom[0]]
    def lower(self, g, bottom, params):
        return [g.op("Mul", bottom[0], g.constant(self.factor))]

def broken():
    pass
"""


@pytest.fixture
def toy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A folder on sys.path into which pip has installed a package with layers."""
    wheel = tmp_path / "toy_layers-1.0-py3-none-any.whl"
    info = "toy_layers-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("toy_layers.py", TOY)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-layers\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        offers = "Tripled = toy_layers:Tripled\nBroken = toy_layers:broken\nMissing = toy_layers:missing\n"
        file.writestr(f"{info}/entry_points.txt", f"[pycaffe.layers]\n{offers}Pooling = toy_layers:Tripled\n")
        file.writestr(f"{info}/RECORD", "")
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True)
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("toy_layers", None)
    _registry._classes.pop("Tripled", None)


def test_an_installed_package_offers_a_layer(toy: pathlib.Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    check_layer(NET.replace("{type}", "Tripled"), [x], expect=lambda x: 3 * x)


def test_ours_come_first(toy: pathlib.Path) -> None:
    assert layer_class("Pooling").__module__ == "pycaffe.layers.pooling"


@pytest.mark.parametrize(
    "layer_type, message",
    [
        ("Broken", "is no pycaffe.layers.Layer"),
        ("Missing", "Could not load layer type 'Missing' from 'toy_layers:missing'"),
    ],
)
def test_offers_that_are_no_layers(toy: pathlib.Path, layer_type: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        layer_class(layer_type)


def test_two_packages_offer_one_type(toy: pathlib.Path) -> None:
    other = toy / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[pycaffe.layers]\nTripled = other:Tripled\n")
    with pytest.raises(LayerError, match="several packages: other:Tripled, toy_layers:Tripled"):
        layer_class("Tripled")


def test_a_type_of_ours_cannot_be_taken() -> None:
    with pytest.raises(LayerError, match=r"'PReLU' already registered, by pycaffe\.layers\.prelu"):

        @register_layer("PReLU")
        class Mine(Layer):
            pass


def test_an_unknown_type_says_what_to_do() -> None:
    with pytest.raises(
        UnknownLayerType, match=r"Unknown layer type: Pooing .* Did you mean 'Pooling'\? A layer of your own"
    ):
        layer_class("Pooing")
