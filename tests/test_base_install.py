"""pycaffe with the extra `images` alone, in a fresh environment: inference works, and what needs torch says so."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

SCRIPT = """
import importlib.util, sys
import numpy as np
import caffe, pycaffe.errors

for missing in ("torch", "lmdb", "plyvel", "ray"):
    assert importlib.util.find_spec(missing) is None, missing

class Double(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff

open("net.prototxt", "w").write('''
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "double" type: "Python" bottom: "conv" top: "double" python_param { module: "__main__" layer: "Double" } }
layer { name: "fc" type: "InnerProduct" bottom: "double" top: "fc"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
''')
caffe.set_random_seed(3)
net = caffe.Net("net.prototxt", caffe.TEST)
x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
net.blobs["data"].data[...] = x
prob = net.forward()["prob"].copy()
np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-5)

features = net.forward(end="fc")["fc"].copy()
weights, bias = net.params["fc"][0].data, net.params["fc"][1].data
flat = net.blobs["double"].data.reshape(2, -1)
np.testing.assert_allclose(features, flat @ weights.T + bias, rtol=1e-4, atol=1e-5)

weights.flat = 0  # net surgery
bias[...] = np.arange(6)
np.testing.assert_allclose(net.forward(end="fc")["fc"], np.tile(np.arange(6), (2, 1)), atol=1e-6)

net.save("saved.caffemodel")
again = caffe.Net("net.prototxt", "saved.caffemodel", caffe.TEST)
again.blobs["data"].data[...] = x
np.testing.assert_allclose(again.forward()["prob"], net.forward()["prob"], atol=1e-6)

from pycaffe.images import ImagePreprocess
import cv2
cv2.imwrite("grey.png", np.full((20, 30, 3), 100, np.uint8))
assert (ImagePreprocess(mean=(90, 95, 100), resize=(5, 7))("grey.png") == np.array([10, 5, 0]).reshape(3, 1, 1)).all()

try:
    net.backward()
except pycaffe.errors.MissingExtra as error:
    assert 'pip install "pycaffe[train]"' in str(error), error
else:
    raise AssertionError("backward without torch must say what is missing")
print("ok")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inference_without_torch(tmp_path: pathlib.Path) -> None:
    venv.create(tmp_path / "env")
    python = str(tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-compile", f"{ROOT}[images]"], check=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["ok"], done.stderr
