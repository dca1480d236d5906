"""Where the largest value lies in rectangles of many sizes, by tables of windows whose sides are powers of two.

A rectangle of any size is covered by four overlapping windows of the largest power of two that fits each side; so a
rectangle costs four look-ups however large it is, and the tables cost a few passes over the image. No Python loop runs
over rectangles.
"""

from __future__ import annotations

from collections.abc import Iterator

from pycaffe.layers._torch import Tensor, torch

__all__ = ["argmax_in_bins"]

CHUNK = 2**21  # values looked up at a time: bounds the memory beyond the result
Table = tuple[Tensor, Tensor]  # largest values and their positions in the plane, (N, H', W', C)


def argmax_in_bins(x: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The position h * W + w of the first largest value, in row order, of each bin: (R, C, PH, PW), int64.

    Args:
        x: (N, C, H, W).
        image: the image of each region, (R).
        rows: first and past-the-end row of each region's bins, (R, PH) both.
        columns: (R, PW) both. An empty bin gives position 0.
    """
    height, width = x.shape[2:]
    position = torch.arange(height * width, dtype=torch.int32, device=x.device).reshape(1, height, width, 1)
    table = x.permute(0, 2, 3, 1).contiguous(), position.expand(x.shape[0], -1, -1, x.shape[1])
    row_level, column_level = _level(rows), _level(columns)
    regions, bins = rows[0].shape[0], (rows[0].shape[1], columns[0].shape[1])
    result = torch.zeros(regions, *bins, x.shape[1], dtype=torch.int64, device=x.device)
    for b, narrow in enumerate(_doubled(table, 2, int(column_level.max()) if regions else -1)):
        used = (column_level == b).any(1)
        highest = int(row_level[used].max()) if bool(used.any()) else -1
        for a, windows in enumerate(_doubled(narrow, 1, highest)):
            chosen = (row_level == a)[:, :, None] & (column_level == b)[:, None, :]
            for some in chosen.nonzero().split(max(1, CHUNK // x.shape[1])):
                r, i, j = some.unbind(1)
                top, bottom = rows[0][r, i], rows[1][r, i] - 2**a
                left, right = columns[0][r, j], columns[1][r, j] - 2**b
                result[r, i, j] = _first_of_four(windows, image[r], (top, bottom), (left, right))
    return result.permute(0, 3, 1, 2)


def _level(bounds: tuple[Tensor, Tensor]) -> Tensor:
    """The largest k with 2^k at most the extent; -1 for an empty one."""
    return torch.frexp((bounds[1] - bounds[0]).to(torch.float64))[1] - 1


def _doubled(table: Table, axis: int, levels: int) -> Iterator[Table]:
    """The table, then that of windows twice as long along `axis`, and so on, up to 2^levels."""
    for level in range(levels + 1):
        if level:
            count = table[0].shape[axis] - 2 ** (level - 1)
            (first, at), (second, there) = (
                [part.narrow(axis, begin, count) for part in table] for begin in (0, 2 ** (level - 1))
            )
            later = second > first  # of equal values the first in row order stays
            table = torch.where(later, second, first), torch.where(later, there, at)
        yield table


def _first_of_four(table: Table, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """The position of the largest value in the windows at four corners: (bins, C)."""
    values, positions = (part.reshape(-1, part.shape[3]) for part in table)
    height, width = table[0].shape[1:3]
    windows = [(image * height + y) * width + x for y in rows for x in columns]
    best, at = values[windows[0]], positions[windows[0]]
    for window in windows[1:]:
        value, position = values[window], positions[window]
        better = (value > best) | ((value == best) & (position < at))
        best, at = torch.where(better, value, best), torch.where(better, position, at)
    return at.to(torch.int64)
