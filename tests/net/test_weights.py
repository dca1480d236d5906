from __future__ import annotations

import warnings

import numpy as np
import pytest

from pycaffe.errors import ShapeError, WeightsError
from pycaffe.net import Net
from tests.net.nets import data, fill_params, ip, layer, net_of, normal

TEXT = 'name: "small" ' + data(2, 3) + ip("ip1", "data", 4) + ip("ip2", "ip1", 5)
SUFFIXES = ["x.caffemodel", "x.caffemodel.h5"]


def filled(text: str = TEXT, seed: int = 1) -> Net:
    net = net_of(text)
    fill_params(net, seed)
    return net


def save(net: Net, path) -> str:
    (net.save_hdf5 if path.name.endswith(".h5") else net.save)(str(path))
    return str(path)


def assert_equal_params(net: Net, other: Net) -> None:
    for name, blobs in other.params.items():
        for got, want in zip(net.params[name], blobs, strict=True):
            np.testing.assert_array_equal(got.data, want.data)


@pytest.mark.parametrize("map_weights", [True, False])
@pytest.mark.parametrize("name", SUFFIXES)
def test_what_is_saved_is_what_is_copied(tmp_path, name: str, map_weights: bool) -> None:
    first = filled()
    path = save(first, tmp_path / name)
    second = net_of(TEXT, weights=path, map_weights=map_weights)
    x = normal(2, 3)
    np.testing.assert_array_equal(second.forward(data=x)["ip2"], first.forward(data=x)["ip2"])
    assert_equal_params(second, first)
    before = (tmp_path / name).read_bytes()
    second.params["ip1"][0].data[...] = 0  # mapped or not, the file is not written
    assert (tmp_path / name).read_bytes() == before
    third = net_of(TEXT)
    third.load_hdf5(path) if name.endswith("h5") else third.copy_from(path)
    assert_equal_params(third, first)


@pytest.mark.parametrize("map_weights", [True, False])
def test_copy_from_is_seen_through_views_and_by_the_compiled_net(tmp_path, map_weights: bool) -> None:
    other = filled(seed=2)
    path = save(other, tmp_path / "x.caffemodel")
    net = net_of(TEXT, map_weights=map_weights)
    fill_params(net)
    views = [blob.data for blob in net.params["ip1"]]
    x = normal(2, 3)
    old = net.forward(data=x)["ip2"].copy()
    net.copy_from(path)
    for view, blob in zip(views, other.params["ip1"]):
        np.testing.assert_array_equal(view, blob.data)
    np.testing.assert_allclose(net.forward(data=x)["ip2"], other.forward(data=x)["ip2"], rtol=1e-6)
    assert np.abs(net.blobs["ip2"].data - old).max() > 0.1


def test_a_file_can_be_written_over_while_a_net_maps_it(tmp_path) -> None:
    path = save(filled(seed=1), tmp_path / "x.caffemodel")
    net = net_of(TEXT, weights=path)
    save(filled(seed=2), tmp_path / "x.caffemodel")
    assert_equal_params(net, filled(seed=1))


def test_layers_of_the_file_that_the_net_lacks_are_ignored(tmp_path) -> None:
    path = save(filled(), tmp_path / "x.caffemodel")
    net = net_of(data(2, 3) + ip("ip1", "data", 4) + ip("new", "ip1", 6))
    new = net.params["new"][0].data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.copy_from(path)
    np.testing.assert_array_equal(net.params["ip1"][0].data, filled().params["ip1"][0].data)
    np.testing.assert_array_equal(net.params["new"][0].data, new)


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_file_from_which_nothing_matched_warns(tmp_path, name: str) -> None:
    path = save(filled(), tmp_path / name)
    net = net_of(data(2, 3) + ip("a", "data", 4))
    with pytest.warns(UserWarning, match=r"No layer of .*x.caffemodel.* has the name of a layer with parameters"):
        net.copy_from(path)


def test_a_net_without_parameters_takes_any_file_in_silence(tmp_path) -> None:
    path = save(filled(), tmp_path / "x.caffemodel")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net_of(data(2, 3) + layer("r", "ReLU", "data"), weights=path)


@pytest.mark.parametrize("name", SUFFIXES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (data(2, 3) + ip("ip1", "data", 4) + ip("ip2", "ip1", 6), r"ip2.*shape mismatch.*5 4 \(20\).*6 4 \(24\)"),
        (TEXT.replace("num_output: 5", "bias_term: false num_output: 5"), "Incompatible number of blobs for layer ip2"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path, name: str, text: str, message: str) -> None:
    path = save(filled(), tmp_path / name)
    net = net_of(text)
    fill_params(net, seed=3)
    before = {name: [b.data.copy() for b in blobs] for name, blobs in net.params.items()}
    with pytest.raises(WeightsError, match=message) as caught:
        net.copy_from(path)
    assert path in str(caught.value)
    for key, blobs in net.params.items():
        for blob, value in zip(blobs, before[key]):
            np.testing.assert_array_equal(blob.data, value)


def test_a_missing_file() -> None:
    with pytest.raises(WeightsError, match=r"no_such\.caffemodel"):
        net_of(TEXT, weights="no_such.caffemodel")


@pytest.mark.parametrize("name", SUFFIXES)
def test_shared_parameters_are_saved_and_loaded(tmp_path, name: str) -> None:
    spec = 'param { name: "w" } param { name: "b" }'
    text = data(2, 3) + ip("ip1", "data", 3, spec) + ip("ip2", "ip1", 3, spec)
    first = filled(text)
    second = net_of(text, weights=save(first, tmp_path / name))
    assert_equal_params(second, first)
    second.params["ip2"][0].data[...] = 3
    assert (second.params["ip1"][0].data == 3).all()


# -- share_with


def test_share_with_shares_data_and_not_diffs() -> None:
    text = "force_backward: true " + TEXT
    first, second = filled(text), net_of(text)
    x = normal(2, 3)
    second.forward(data=x)  # compiled with its own parameters
    second.share_with(first)
    np.testing.assert_allclose(second.forward(data=x)["ip2"], first.forward(data=x)["ip2"], rtol=1e-6)
    first.params["ip1"][0].data[...] *= 2
    np.testing.assert_array_equal(second.params["ip1"][0].data, first.params["ip1"][0].data)
    np.testing.assert_allclose(second.forward(data=x)["ip2"], first.forward(data=x)["ip2"], rtol=1e-6)
    second.params["ip2"][0].data[...] = 0
    np.testing.assert_allclose(first.forward(data=x)["ip2"], [first.params["ip2"][1].data] * 2, rtol=1e-6)
    first.backward(ip2=np.ones((2, 5)))
    assert first.params["ip2"][0].diff.any()
    assert not second.params["ip2"][0].diff.any()


def test_views_from_before_share_with_keep_their_values() -> None:
    first, second = filled(seed=1), filled(seed=2)
    view = second.params["ip1"][0].data
    kept = view.copy()
    second.share_with(first)
    first.params["ip1"][0].data[...] = 0
    np.testing.assert_array_equal(view, kept)


def test_share_with_outlives_the_other_net() -> None:
    first, second = filled(), net_of(TEXT)
    second.share_with(first)
    del first
    np.testing.assert_array_equal(second.params["ip1"][0].data, filled().params["ip1"][0].data)


def test_share_with_a_net_that_does_not_fit_changes_nothing() -> None:
    net = filled(seed=2)
    other = filled(data(2, 3) + ip("ip1", "data", 4) + ip("ip2", "ip1", 6) + ip("other", "ip2", 1))
    with pytest.raises(ShapeError, match=r"Cannot share param 0 weights from layer 'ip2'; shape mismatch"):
        net.share_with(other)
    assert_equal_params(net, filled(seed=2))
    with pytest.raises(ShapeError, match="Incompatible number of blobs for layer ip1: 2 and 1"):
        net.share_with(net_of(data(2, 3) + ip("ip1", "data", 4).replace("num_output", "bias_term: false num_output")))
