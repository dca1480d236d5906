from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest

from pycaffe.blob import Blob, FloatArray, Storage
from pycaffe.errors import ShapeError


def counting(array: FloatArray) -> None:
    array[...] = np.arange(array.size)


# -- shapes


def test_shape_count_and_legacy_names() -> None:
    blob = Blob((2, 3, 5, 4))
    assert (blob.shape, blob.count) == ((2, 3, 5, 4), 120)
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 5, 4)


def test_missing_axes_have_the_legacy_extent_one() -> None:
    blob = Blob((7, 3))
    assert (blob.num, blob.channels, blob.height, blob.width) == (7, 3, 1, 1)
    assert (Blob().count, Blob().num) == (1, 1)


def test_legacy_names_need_at_most_four_axes() -> None:
    with pytest.raises(ShapeError, match=r"Cannot use legacy accessors on Blobs with > 4 axes\..*\(1, 2, 3, 4, 5\)"):
        _ = Blob((1, 2, 3, 4, 5)).width


def test_a_scalar_and_an_empty_blob() -> None:
    scalar = Blob()
    scalar.data[...] = 3
    assert (scalar.data.shape, float(scalar.data)) == ((), 3)
    empty = Blob((0, 3))
    assert (empty.count, empty.data.shape, empty.diff.shape) == (0, (0, 3), (0, 3))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, -1), r"Check failed: shape\[i\] >= 0\. Got shape \(2, -1\)"),
        ((1,) * 33, r"Check failed: shape\.size\(\) <= kMaxBlobAxes \(33 vs\. 32\)"),
        ((2**16, 2**16), r"blob size exceeds INT_MAX\. Got shape \(65536, 65536\)"),
    ],
)
def test_bad_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Blob(shape)
    blob = Blob((2, 3))
    with pytest.raises(ShapeError, match=message) as caught:
        blob.reshape(*shape)
    assert blob.shape == (2, 3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_largest_shapes_are_fine_until_someone_looks() -> None:
    assert Blob((2**16, 2**15 - 1)).count == 2**31 - 2**16
    assert Blob((0, 2**40)).count == 0
    assert Blob((1,) * 32).count == 1


def test_repr() -> None:
    assert (repr(Blob((2, 3))), repr(Blob())) == ("<Blob 2 x 3>", "<Blob scalar>")


# -- values


def test_data_and_diff_start_as_zeros_and_are_apart() -> None:
    blob = Blob((2, 3))
    assert blob.data.dtype == blob.diff.dtype == np.float32
    blob.data[...] = 1
    np.testing.assert_array_equal(blob.data, np.ones((2, 3)))
    np.testing.assert_array_equal(blob.diff, np.zeros((2, 3)))


def test_views_are_live_and_writable() -> None:
    blob = Blob((2, 3))
    view = blob.data
    blob.data[1, 2] = 7
    view[0, 1] = 5
    blob.raw_data()[1, 0] = 4
    np.testing.assert_array_equal(view, [[0, 5, 0], [4, 0, 7]])
    np.testing.assert_array_equal(blob.data, view)


def test_a_view_outlives_its_blob() -> None:
    blob = Blob((2, 3), counting)
    view = blob.data[1:]
    del blob
    gc.collect()
    np.testing.assert_array_equal(view, [[3, 4, 5]])


def test_a_blob_is_filled_at_the_first_look() -> None:
    calls: list[int] = []

    def fill(array: FloatArray) -> None:
        calls.append(array.size)
        counting(array)

    blob = Blob((2, 3), fill)
    blob.diff[...] = 1
    assert calls == []
    assert not blob.data_storage.allocated
    np.testing.assert_array_equal(blob.data, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(blob.raw_data(), blob.data)
    assert calls == [6]


# -- reshape


def test_reshape_keeps_the_buffer_while_it_is_large_enough() -> None:
    blob = Blob((2, 3), counting)
    view = blob.data
    blob.reshape(4)
    np.testing.assert_array_equal(blob.data, [0, 1, 2, 3])
    blob.data[...] = 9
    np.testing.assert_array_equal(view, [[9, 9, 9], [9, 4, 5]])
    blob.reshape(3, 2)
    np.testing.assert_array_equal(blob.data, [[9, 9], [9, 9], [4, 5]])


def test_views_of_a_blob_that_grew_keep_their_old_values() -> None:
    blob = Blob((2, 3), counting)
    data, diff = blob.data, blob.diff
    blob.reshape(2, 4)
    blob.data[...] = 8
    blob.diff[...] = 8
    np.testing.assert_array_equal(data, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(diff, np.zeros((2, 3)))
    assert blob.data.shape == blob.diff.shape == (2, 4)


# -- sharing


def test_sharing_data_leaves_diffs_apart_and_the_other_way_round() -> None:
    one, other = Blob((2, 3), counting), Blob((6,))
    old = other.data
    other.share_data(one)
    one.data[0, 0] = 10
    one.diff[...] = 1
    np.testing.assert_array_equal(other.data, [10, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(other.diff, np.zeros(6))
    np.testing.assert_array_equal(old, np.zeros(6))
    other.share_diff(one)
    np.testing.assert_array_equal(other.diff, np.ones(6))


def test_sharing_needs_equal_counts() -> None:
    message = r"Check failed: count_ == other\.count\(\) \(6 vs\. 4\)"
    with pytest.raises(ShapeError, match=message):
        Blob((2, 3)).share_data(Blob((4,)))
    with pytest.raises(ShapeError, match=message):
        Blob((2, 3)).share_diff(Blob((4,)))


# -- adopted arrays


def test_an_array_is_adopted_where_nobody_has_looked() -> None:
    blob, array = Blob((2, 3), counting), np.ones(6, np.float32)
    assert blob.data_storage.adopt(array)
    array[4] = 5
    np.testing.assert_array_equal(blob.data, [[1, 1, 1], [1, 5, 1]])


def test_an_array_is_copied_where_a_view_exists() -> None:
    blob, array = Blob((2, 3), counting), np.full(6, 8, np.float32)
    view = blob.data
    assert not blob.data_storage.adopt(array)
    np.testing.assert_array_equal(view, np.full((2, 3), 8))
    array[...] = 0
    np.testing.assert_array_equal(blob.data, np.full((2, 3), 8))


def test_a_shorter_array_leaves_the_rest() -> None:
    blob = Blob((2, 3), counting)
    assert not blob.data_storage.adopt(np.full(2, 8, np.float32))
    np.testing.assert_array_equal(blob.data, [[8, 8, 2], [3, 4, 5]])


# -- leases


def test_a_lease_lives_as_long_as_any_view_of_a_view() -> None:
    blob = Blob((2, 3))
    storage = blob.data_storage
    assert not storage.leased
    view = blob.data
    assert storage.leased
    part = view[1].reshape(3, 1).T[:, ::2]
    del view
    gc.collect()
    assert storage.leased
    part[0, 1] = 6
    del part
    gc.collect()
    assert not storage.leased
    np.testing.assert_array_equal(blob.raw_data(), [[0, 0, 0], [0, 0, 6]])


@pytest.mark.parametrize("hold", [memoryview, lambda a: a.flat, lambda a: np.broadcast_to(a, (4, 2, 3)), iter])
def test_what_numpy_makes_of_a_view_keeps_the_lease(hold: object) -> None:
    blob = Blob((2, 3))
    held = hold(blob.data)  # type: ignore[operator]
    gc.collect()
    assert blob.data_storage.leased
    del held
    gc.collect()
    assert not blob.data_storage.leased


def test_engines_take_no_lease_and_copies_hold_none() -> None:
    blob = Blob((2, 3))
    raw = blob.raw_data(), blob.raw_diff(), blob.data_storage.array()
    assert not blob.data_storage.leased
    copied = blob.data.copy(), blob.data + 1, float(blob.data.sum())
    gc.collect()
    assert not blob.data_storage.leased
    del raw, copied


def test_the_views_of_data_and_diff_have_leases_of_their_own() -> None:
    blob = Blob((2, 3))
    view = blob.diff
    assert blob.diff_storage.leased
    assert not blob.data_storage.leased
    del view


# -- versions


class Listener:
    """A watcher that keeps what the storage held when it was told of a change."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.told: list[np.ndarray] = []

    def before_change(self) -> None:
        self.told.append(self.storage.values_of_version().copy())


LISTENERS: list[Listener] = []  # a storage holds its watchers weakly


def watched() -> tuple[Blob, Storage, int]:
    blob = Blob((2, 3), counting)
    LISTENERS.append(Listener(blob.data_storage))
    return blob, blob.data_storage, blob.data_storage.watch(LISTENERS[-1])


def test_watchers_are_told_before_a_change_and_find_the_old_values() -> None:
    blob, storage, version = watched()
    listener = LISTENERS[-1]
    view = blob.data
    view[...] = 7
    assert listener.told == []
    assert (storage.values_of_version() == np.arange(6)).all()
    assert storage.current_version() == version + 1
    assert [told.tolist() for told in listener.told] == [[0, 1, 2, 3, 4, 5]]
    storage.adopt(np.full(6, 9, np.float32))
    assert [told.tolist() for told in listener.told[1:]] == [[7] * 6]
    assert (view == 9).all()


class Run:
    """Values that wait at an engine."""

    def __init__(self, storage: Storage, values: np.ndarray) -> None:
        self.storage, self.values, self.fetched = storage, values, 0

    def fetch(self) -> None:
        self.fetched += 1
        self.storage.put(self.values)


def test_pending_values_are_fetched_at_the_first_look_only() -> None:
    blob = Blob((2, 3))
    run = Run(blob.data_storage, np.arange(6, dtype=np.float32).reshape(2, 3))
    blob.data_storage.expect(run)
    blob.data_storage.touched = False
    assert blob.data_storage.pending is run
    assert (blob.data == run.values).all()
    assert blob.data_storage.touched
    assert (blob.data == run.values).all()
    assert run.fetched == 1
    assert blob.data_storage.pending is None


def test_results_become_the_buffer_or_are_copied_under_views() -> None:
    blob = Blob((2, 3))
    first, second = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    blob.data_storage.put(first)
    assert np.shares_memory(blob.raw_data(), first)
    view = blob.data
    blob.data_storage.put(second)
    assert not np.shares_memory(blob.raw_data(), second)
    assert (view == 2).all()
    blob.reshape(1, 3)
    blob.data_storage.put(np.full((1, 3), 5, np.float32))
    assert (view == [[5, 5, 5], [2, 2, 2]]).all()


def test_without_writes_the_version_stays() -> None:
    blob, storage, version = watched()
    assert storage.current_version() == version
    assert blob.data.sum() == 15
    view = blob.data
    view[0, 0] = view[0, 0]
    assert storage.current_version() == version
    del view
    assert storage.current_version() == version


def test_a_write_through_a_live_view_is_noticed_once() -> None:
    blob, storage, version = watched()
    view = blob.data
    assert storage.current_version() == version
    view[1, 1] = -1
    changed = storage.current_version()
    assert changed > version
    assert storage.current_version() == changed
    view[1, 1] = -2
    assert storage.current_version() > changed


def test_a_write_is_noticed_after_its_view_died() -> None:
    blob, storage, version = watched()
    blob.data[1, 1] = -1
    gc.collect()
    assert not storage.leased
    changed = storage.current_version()
    assert changed > version
    assert storage.current_version() == changed


def test_a_write_is_noticed_where_another_view_follows_before_the_look() -> None:
    blob, storage, version = watched()
    blob.data[1, 1] = -1
    view = blob.data
    assert storage.current_version() > version
    del view


def test_writes_through_a_view_older_than_the_watch_are_noticed() -> None:
    blob = Blob((2, 3), counting)
    view = blob.data
    listener = Listener(blob.data_storage)
    version = blob.data_storage.watch(listener)
    view[...] = 0
    assert blob.data_storage.current_version() > version


def test_bits_are_compared_not_numbers() -> None:
    blob, storage, _ = watched()
    view = blob.data
    view[0, 0] = np.nan
    version = storage.current_version()
    assert storage.current_version() == version  # NaN equals itself here
    view[0, 1] = 0.0
    version = storage.current_version()
    view[0, 1] = -0.0
    assert storage.current_version() > version


def test_adopting_counts_as_one_write() -> None:
    blob, storage, version = watched()
    storage.adopt(np.ones(6, np.float32))
    assert storage.current_version() == version + 1
    view = blob.data
    storage.adopt(np.zeros(6, np.float32))
    assert storage.current_version() == version + 2
    assert storage.current_version() == version + 2
    del view


def test_engines_that_write_parameters_are_not_users() -> None:
    blob, storage, version = watched()
    blob.raw_data()[...] = 3
    assert storage.current_version() == version


def test_blobs_that_share_data_share_versions() -> None:
    blob, storage, version = watched()
    other = Blob((6,))
    other.share_data(blob)
    other.data[2] = 9
    assert storage.current_version() > version


# -- training


def test_buffers_begin_at_a_cache_line() -> None:
    assert [Blob((count,)).data.ctypes.data % 64 for count in (1, 3, 1000, 100003)] == [0, 0, 0, 0]


def test_own_moves_values_that_lie_askew_unless_a_view_is_alive() -> None:
    file = np.arange(9, dtype=np.float32).tobytes() + b"x"
    askew = np.frombuffer(bytearray(b"x" + file), np.float32, 9, 1)
    storage = Storage(9)
    assert storage.adopt(askew)
    view = storage.view((9,))
    storage.own()
    assert storage.array() is askew
    del view
    storage.own()
    assert storage.array().ctypes.data % 64 == 0
    np.testing.assert_array_equal(storage.array(), np.arange(9))


def test_a_change_is_announced_and_counted() -> None:
    class Seen:
        def __init__(self) -> None:
            self.values: list[float] = []

        def before_change(self) -> None:
            self.values.append(float(storage.array()[0]))

    storage, seen = Storage(2), Seen()
    version = storage.watch(seen)
    storage.changing()[...] = 5
    assert seen.values == [0]
    assert storage.current_version() != version


def test_clear_lets_the_buffer_go_where_no_view_is_alive() -> None:
    storage = Storage(3)
    view = storage.view((3,))
    view[...] = 7
    storage.clear()
    assert (view == 0).all()
    assert storage.allocated
    view[...] = 7
    del view
    storage.clear()
    assert not storage.allocated
    assert (storage.array() == 0).all()
