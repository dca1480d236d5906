"""What a solver's rule is: how a gradient becomes the value that is subtracted from a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pycaffe.layers._torch import Tensor

__all__ = ["UpdateRule"]


class UpdateRule:
    """Base of the rules. A rule works on any slice of a parameter: element i of a result depends on elements i alone.

    Args:
        param: the SolverParameter, read anew at each step.

    Attributes:
        type: the type in solver prototxts; `register_solver` sets it.
        num_histories: how many arrays as large as the parameter the rule keeps from step to step; zeros at first.
        subtracts_history: what is subtracted is `history[0]` as `compute` leaves it; else it is `diff`.
        num_scratch: how many more it overwrites within one step.

    Raises:
        SolverError: the rule refuses a value of `param`.
    """

    type: ClassVar[str] = ""
    num_histories: ClassVar[int] = 1
    num_scratch: ClassVar[int] = 1
    subtracts_history: ClassVar[bool] = False

    def __init__(self, param: Any) -> None:
        self.param = param

    def compute(
        self, diff: Tensor, history: Sequence[Tensor], scratch: Sequence[Tensor], rate: float, iteration: int
    ) -> None:
        """Turns the gradient in `diff` into the value to subtract, and moves `history` on. All in place.

        Where `subtracts_history`, `diff` may hold anything afterwards.

        Args:
            diff: flat float32, the regularised gradient.
            history: `num_histories` of the same size.
            scratch: `num_scratch` of the same size; they hold anything.
            rate: the learning rate times the parameter's lr_mult.
            iteration: how many steps there were before.
        """
        raise NotImplementedError(self.type)
