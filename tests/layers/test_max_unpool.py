from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "MaxUnpool" bottom: "b0" bottom: "b1" top: "t0" max_unpool_param {{ {param} }} }}'


@pytest.mark.parametrize("name", ["MaxUnpool", "MaxUnPool"])
def test_undoes_a_pooling(name: str) -> None:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 4, 2, 3))
    mask = np.stack([generator.permutation(35)[:6] for _ in range(8)]).reshape(x.shape)

    def expect(x, mask):
        y = np.zeros((2, 4, 35), np.float32)
        for n, c in np.ndindex(2, 4):
            y[n, c, mask[n, c].astype(int).ravel()] = x[n, c].ravel()
        return y.reshape(2, 4, 5, 7)

    check_layer(layer("dst_h: 5 dst_w: 7").replace("MaxUnpool", name), [x, mask], expect=expect)


def test_after_a_pooling_with_a_mask() -> None:
    pool = """layer { name: "p" type: "Pooling" bottom: "b0" top: "p" top: "mask"
                      pooling_param { kernel_size: 2 stride: 2 } }"""
    text = pool + layer("dst_h: 4 dst_w: 6").replace('"b0"', '"p"').replace('"b1"', '"mask"')
    x = np.random.default_rng(2).permutation(2 * 3 * 4 * 6).reshape(2, 3, 4, 6) + 1
    for engine in ("torch", "onnxruntime"):
        net = build(text, x.shape, engine=engine)
        net.blobs["b0"].data[...] = x
        net.forward()
        blocks = x.reshape(2, 3, 2, 2, 3, 2)
        largest = (blocks == blocks.max((3, 5), keepdims=True)).reshape(x.shape)
        np.testing.assert_array_equal(net.blobs["t0"].data, x * largest)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"dst_h and dst_w are required. Got dst_h 4 and dst_w 0"):
        build(layer("dst_h: 4"), (2, 3, 2, 2), (2, 3, 2, 2))
    with pytest.raises(ShapeError, match="the mask has the shape of the values"):
        build(layer("dst_h: 4 dst_w: 4"), (2, 3, 2, 2), (2, 3, 2, 1))
    net = build(layer("dst_h: 4 dst_w: 4"), (1, 1, 2, 2), (1, 1, 2, 2), engine="torch")
    net.blobs["b1"].data[...] = 16
    with pytest.raises(InputError, match=r"index 16.0 out of range.*The top has 16 places in a plane"):
        net.forward()
