"""Operations of layers that the trained nets do not have, as OpenCV 4.14 counted them."""

from __future__ import annotations

import pytest

import pycaffe

SHAPE = (2, 3, 8, 10)


@pytest.mark.parametrize(
    ("layer", "flops"),
    [
        ('type: "LRN" lrn_param { local_size: 5 }', 2640),
        ('type: "LRN" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }', 9600),
        ('type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }', 1200),
        ('type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 }', 1080),
        ('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', 12),
        ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 }', 1890),
        ('type: "Sigmoid"', 1440),
        ('type: "BNLL"', 2400),
        ('type: "AbsVal"', 480),
        ('type: "ELU"', 960),
        ('type: "Power" power_param { power: 2 scale: 3 }', 4800),
        ('type: "Power" power_param { scale: 3 }', 960),
        ('type: "MVN"', 2898),
        ('type: "MVN" mvn_param { across_channels: true normalize_variance: false }', 2886),
        ('type: "Deconvolution" convolution_param { num_output: 5 kernel_size: 2 stride: 2 }', 11520),
        ('type: "Exp"', 1440),
        ('type: "Log"', 480),
        ('type: "Softmax"', 1920),
        ('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', 0),
        ('type: "Swish"', 1440),
    ],
)
def test_one_layer(layer: str, flops: int) -> None:
    net = pycaffe.read_net_from_caffe(
        b'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 10 } } }'
        + f'layer {{ name: "l" bottom: "data" top: "l" {layer} }}'.encode()
    )
    assert net.getFLOPS(1, SHAPE) == net.getFLOPS(SHAPE) == flops
