from __future__ import annotations

import pickle

import pytest

from pycaffe import errors

CLASSES = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, RuntimeError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_runtime_error_pickles_and_is_drawn(cls: type[errors.CaffeError]) -> None:
    assert issubclass(cls, (errors.CaffeError, RuntimeError))
    again = pickle.loads(pickle.dumps(cls("what happened")))
    assert (type(again), str(again)) == (cls, "what happened")
    assert cls.__name__ in (errors.__doc__ or "")


def test_all_is_complete_and_sorted() -> None:
    assert sorted([*(cls.__name__ for cls in CLASSES), "did_you_mean"]) == errors.__all__


def test_the_tree() -> None:
    for cls in (errors.UnknownLayerType, errors.UnknownBottom, errors.DuplicateTop, errors.LayerError):
        assert issubclass(cls, errors.NetError)
    assert issubclass(errors.ShapeError, errors.NetError)
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.WorkerDied, errors.PoolError)
    assert issubclass(errors.MissingExtra, ImportError)


def test_missing_extra_says_what_to_install() -> None:
    error = errors.MissingExtra.of("torch", "train", "Backward")
    assert str(error) == 'Backward needs torch, which is not installed. Install it: pip install "pycaffe[train]"'
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_did_you_mean() -> None:
    assert errors.did_you_mean("Pooing", ["Pooling", "ReLU"]) == " Did you mean 'Pooling'?"
    assert errors.did_you_mean("relu", ["Pooling", "ReLU"]) == " Did you mean 'ReLU'?"
    assert errors.did_you_mean("RoiPooling", ["Pooling", "ROIPooling"]) == " Did you mean 'ROIPooling'?"
    assert errors.did_you_mean("xyz", ["Pooling", "ReLU"]) == ""
    assert errors.did_you_mean("a", []) == ""


def test_located_errors_pickle() -> None:
    from tests.net.nets import net_of

    with pytest.raises(errors.UnknownLayerType) as caught:
        net_of('layer { name: "l" type: "Nope" }')
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert str(again).count("test.prototxt:1") == 1
