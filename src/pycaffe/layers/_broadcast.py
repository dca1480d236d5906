"""The operand of Scale and Bias: a blob that covers some axes of the bottom, from `axis` on."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import LayerError, ShapeError
from pycaffe.layers._base import canonical_axis
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor

__all__ = ["broadcast", "lower_broadcast", "operand_axis", "operand_shape"]


def operand_shape(bottom: Shape, axis: int, num_axes: int, what: str) -> Shape:
    """The shape of a learned operand: `num_axes` extents of the bottom from `axis` on; -1 is all that follow.

    Raises:
        LayerError: the axes do not exist.
    """
    start = canonical_axis(axis, len(bottom))
    if num_axes < -1:
        raise LayerError(
            f"num_axes must be non-negative, or -1 to extend to the end of bottom[0]. Got num_axes {num_axes!r}."
        )
    if num_axes == -1:
        return bottom[start:]
    if start + num_axes > len(bottom):
        raise LayerError(_past_the_end(what, start, bottom, f"num_axes {num_axes!r}"))
    return bottom[start : start + num_axes]


def operand_axis(bottom: Shape, operand: Shape, axis: int, what: str) -> int:
    """The axis of the bottom at which the operand starts.

    Raises:
        ShapeError: the operand does not fit there.
    """
    start = canonical_axis(axis, len(bottom)) if operand else 0
    if start + len(operand) > len(bottom):
        raise ShapeError(_past_the_end(what, start, bottom, f"{what} {operand!r}"))
    for index, extent in enumerate(operand):
        if bottom[start + index] != extent:
            raise ShapeError(
                f"dimension mismatch between bottom[0]->shape({start + index}) and {what}->shape({index}). "
                f"Got shapes {bottom!r} and {operand!r}."
            )
    return start


def _past_the_end(what: str, start: int, bottom: Shape, got: str) -> str:
    return (
        f"{what} blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = {start}. "
        f"Got bottom {bottom!r}, {got}."
    )


def _ones_behind(num_bottom_axes: int, num_operand_axes: int, start: int) -> int:
    return num_bottom_axes - start - num_operand_axes if num_operand_axes else 0


def broadcast(operand: Tensor, num_bottom_axes: int, start: int) -> Tensor:
    """The operand with axes of extent 1 behind it, so that torch lines it up with the bottom."""
    return operand.reshape((*operand.shape, *(1,) * _ones_behind(num_bottom_axes, operand.dim(), start)))


def lower_broadcast(g: Lowering, operand: str, num_operand_axes: int, num_bottom_axes: int, start: int) -> str:
    """`broadcast` in ONNX."""
    ones = _ones_behind(num_bottom_axes, num_operand_axes, start)
    return g.reshape(operand, (0,) * num_operand_axes + (1,) * ones) if ones else operand
