from __future__ import annotations

import pytest

from pycaffe.workers.extents import all_pieces, is_out_of_memory, pieces


@pytest.mark.parametrize(
    ("count", "full", "extents"),
    [(8, 8, [8]), (7, 8, [4, 2, 1]), (20, 8, [8, 8, 4]), (11, 5, [5, 5, 1]), (3, 1, [1, 1, 1]), (1, 64, [1])],
)
def test_pieces_are_whole_batches_and_powers_of_two(count: int, full: int, extents: list[int]) -> None:
    assert pieces(count, full) == extents
    assert sum(extents) == count


@pytest.mark.parametrize(("full", "extents"), [(1, [1]), (5, [5, 4, 2, 1]), (8, [8, 4, 2, 1])])
def test_all_pieces_are_those_of_any_count(full: int, extents: list[int]) -> None:
    assert all_pieces(full) == extents
    assert {extent for count in range(1, 100) for extent in pieces(count, full)} == set(extents)


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : ... Failed to allocate memory for requested buffer"), True),
        (RuntimeError("Available memory of 1024 is smaller than requested bytes of 2048"), True),
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("memory"), False),
    ],
)
def test_what_is_taken_for_a_lack_of_memory(error: BaseException, yes: bool) -> None:
    assert is_out_of_memory(error) is yes
