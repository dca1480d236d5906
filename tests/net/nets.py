"""Small nets from prototxt text, for the tests of graph, net and engines."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np

from pycaffe.net import TEST, Net
from pycaffe.proto.prototxt import parse_net

IP = """
inner_product_param {
  num_output: %d weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 0.3 }
}
"""


def data(*shape: int, name: str = "data") -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def layer(name: str, type: str, bottom: str = "", top: str | None = None, rest: str = "") -> str:
    """A layer block; bottoms and tops are names with blanks between, the top is the layer's name by default."""
    bottoms = " ".join(f'bottom: "{b}"' for b in bottom.split())
    tops = " ".join(f'top: "{t}"' for t in (name if top is None else top).split())
    return f'layer {{ name: "{name}" type: "{type}" {bottoms} {tops} {rest} }}\n'


def ip(name: str, bottom: str, num_output: int, rest: str = "", top: str | None = None) -> str:
    return layer(name, "InnerProduct", bottom, top, IP % num_output + rest)


def net_of(text: str, phase: int = TEST, **kwargs: Any) -> Net:
    return Net(parse_net(text, "test.prototxt"), phase, **kwargs)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def fill_params(net: Net, seed: int = 1) -> None:
    generator = np.random.default_rng(seed)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = generator.standard_normal(blob.shape)


def run_python(script: str, *arguments: str, env: dict[str, str] | None = None, cwd: Any = None, timeout: float = 120):
    """Runs a script in a fresh interpreter, which must succeed; returns the finished process."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


CONV = 'convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.3 } }'
# Gradients of two of these need what the layer after them overwrites.
IN_PLACE = (
    "force_backward: true "
    + data(2, 3, 5, 6)
    + layer("conv", "Convolution", "data", rest=CONV)
    + layer("bn", "BatchNorm", "conv", "conv")
    + layer("scale", "Scale", "conv", "conv", "scale_param { bias_term: true }")
    + layer("tanh", "TanH", "conv", "conv")
    + layer("relu", "ReLU", "conv", "conv", "relu_param { negative_slope: 0.1 }")
    + layer("elu", "ELU", "conv", "conv")
    + layer("pool", "Pooling", "conv", rest="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    + layer("sigmoid", "Sigmoid", "pool", "pool")
    + layer("flat", "Flatten", "pool")
    + layer("exp", "Exp", "flat", "flat")
    + ip("fc", "flat", 7)
    + layer("soft", "Softmax", "fc", "fc")
)


def in_place_net(engine: str | None) -> Net:
    net = net_of(IN_PLACE, engine=engine)
    generator = np.random.default_rng(1)
    for name, blobs in net.params.items():
        for blob in blobs:
            blob.data[...] = 0.3 * generator.standard_normal(blob.shape)
        if name == "bn":
            blobs[1].data[...] = [0.5, 1, 2, 0.7]
            blobs[2].data[...] = 1.5
    return net
