from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caffe.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    compose,
    conv_params,
    coord_map,
    coord_map_from_to,
    crop,
    crop_params,
    inverse,
)
from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L


def spec(pool: int = 2, stride: Any = 2, kernel: Any = 4, **conv: Any) -> NetSpec:
    """Data → conv → pool → deconv, which undoes the pooling."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 60, 80]})
    n.conv = L.Convolution(n.data, num_output=3, **{"kernel_size": 3, **conv})
    n.pool = L.Pooling(n.conv, kernel_size=pool, stride=pool)
    n.up = L.Deconvolution(n.pool, convolution_param={"num_output": 3, "kernel_size": kernel, "stride": stride})
    return n


def check(found: tuple[Any, Any, Any], axis: int | None, scale: Any, shift: Any) -> None:
    assert found[0] == axis
    np.testing.assert_allclose(found[1], scale)
    np.testing.assert_allclose(found[2], shift)


def test_maps_of_single_layers() -> None:
    data = L.Input()
    check(coord_map(L.Convolution(data, kernel_size=5, stride=2, pad=1).fn), 1, 1 / 2, -1 / 2)
    check(coord_map(L.Convolution(data, kernel_size=[3, 5], dilation=2, pad=[0, 4]).fn), 1, 1, [-2, 0])
    check(coord_map(L.Convolution(data, convolution_param={"kernel_size": 3, "axis": 2}).fn), 2, 1, -1)
    check(coord_map(L.Deconvolution(data, kernel_size=4, stride=2, pad=1).fn), 1, 2, 0.5)
    check(coord_map(L.Pooling(data, kernel_size=2, stride=2).fn), 1, 1 / 2, -1 / 4)
    check(coord_map(L.Crop(data, data, offset=[3, 4]).fn), 1, 1, [-3, -4])
    check(coord_map(L.ReLU(data).fn), None, 1, 0)
    with pytest.raises(UndefinedMapException, match="InnerProduct has no coordinate map"):
        coord_map(L.InnerProduct(data, num_output=2).fn)


def test_params_with_defaults() -> None:
    axis, stride, kernel, pad = conv_params(L.Im2col(L.Input(), kernel_size=3).fn)
    assert (axis, stride.tolist(), kernel.tolist(), pad.tolist()) == (1, [1], [3], [0])
    axis, offset = crop_params(L.Crop(L.Input(), L.Input(), crop_param={"axis": 3}).fn)
    assert (axis, offset.tolist()) == (3, [0])
    with pytest.raises(AssertionError, match=r"legacy _h/_w params; the Convolution layer has \['kernel_h', 'pad_w'\]"):
        conv_params(L.Convolution(L.Input(), kernel_h=3, pad_w=1).fn)


def test_compose_and_inverse() -> None:
    check(compose((1, 2, 3), (1, 5, 7)), 1, 10, 17)
    check(compose((None, 1, 0), (2, 5, 7)), 2, 5, 7)
    check(compose((2, 5, 7), (None, 1, 0)), 2, 5, 7)
    check(compose((1, 4, 6), inverse((1, 4, 6))), 1, 1, 0)
    with pytest.raises(AxisMismatchException, match="axis 1 and axis 2"):
        compose((1, 2, 3), (2, 2, 3))


def test_pooling_and_its_upsampling_cancel() -> None:
    n = spec()
    check(coord_map_from_to(n.up, n.data), 1, 1, 0)
    four = spec(pool=4, stride=4, kernel=8)
    check(coord_map_from_to(four.up, four.data), 1, 1, -1)
    padded = spec(pad=7)
    check(coord_map_from_to(padded.up, padded.data), 1, 1, -7)


def test_each_axis_by_itself() -> None:
    n = spec(kernel_size=[3, 5], stride=[2, 2], pad=[0, 10])
    n.both = L.Convolution(n.data, kernel_size=[3, 5], pad=[1, 0])
    check(coord_map_from_to(n.both, n.data), 1, 1, [0, 2])


def test_layers_in_between_that_pass_coordinates_on() -> None:
    n = spec()
    n.relu = L.ReLU(n.up)
    n.same = L.Convolution(n.relu, kernel_size=1)
    check(coord_map_from_to(n.same, n.data), 1, 1, 0)


def test_only_the_first_bottom_of_crop_is_followed() -> None:
    n = spec()
    n.crop = L.Crop(n.up, n.data, axis=2, offset=5)
    check(coord_map_from_to(n.crop, n.data), 1, 1, 5)


def test_crop_sets_axis_and_offset() -> None:
    n = spec(pool=4, stride=4, kernel=8)
    n.score = crop(n.up, n.data)
    param = n.to_proto().layer[-1].crop_param
    assert (param.axis, list(param.offset)) == (2, [1])
    n.same = crop(L.ReLU(n.data), n.data)
    param = n.to_proto().layer[-1].crop_param
    assert (param.axis, list(param.offset)) == (2, [0])


def test_what_cannot_be_cropped() -> None:
    n = spec(pool=3)
    with pytest.raises(AssertionError, match="scale mismatch on crop"):
        crop(n.up, n.data)
    n = spec(kernel_size=9)
    n.up = L.Deconvolution(n.pool, kernel_size=4, stride=2, pad=9)
    with pytest.raises(AssertionError, match="cannot crop negative offset"):
        crop(n.up, n.data)
    n = spec(kernel=5)
    with pytest.raises(AssertionError, match="cannot crop noninteger offset"):
        crop(n.up, n.data)


def test_tops_that_are_not_connected() -> None:
    n = spec()
    n.ip = L.InnerProduct(n.up, num_output=10)
    with pytest.raises(RuntimeError, match="Could not compute map between tops; are they connected by spatial layers"):
        coord_map_from_to(n.ip, n.data)
