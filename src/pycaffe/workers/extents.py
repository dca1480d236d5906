"""Which batch extents a worker runs, and what it does when its device has no memory for one."""

from __future__ import annotations

__all__ = ["all_pieces", "is_out_of_memory", "pieces"]

# torch, CUDA and cuDNN, onnxruntime's arenas.
OUT_OF_MEMORY = ("out of memory", "failed to allocate memory", "available memory of", "cudnn_status_alloc_failed")


def pieces(count: int, full: int) -> list[int]:
    """The extents that `count` items run with: `full` ones, and powers of two for the rest.

    The engine keeps a compiled net for each extent (unless the layers allow all), so they have to be few.
    """
    whole, rest = divmod(count, full)
    powers = [1 << bit for bit in range(rest.bit_length()) if rest >> bit & 1]
    return [full] * whole + powers[::-1]


def all_pieces(full: int) -> list[int]:
    """Every extent that `pieces` may give, the largest first."""
    return list(dict.fromkeys([full, *(1 << bit for bit in reversed(range((full - 1).bit_length()))), 1]))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a forward failed because its device has no memory for it: half the batch may still fit."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in OUT_OF_MEMORY)
