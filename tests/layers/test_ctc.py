"""The arithmetic of the CTC losses against all paths one by one, and against torch's own loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._ctc import Targets, check_scores, ctc_costs, sequence_lengths, sequences_by_step
from tests.layers.paths import likelihood, softmax

LABELS = [[1, 2], [2], [], [1, 1], [2, 1, 2]]


def scores(steps: int, batch: int, classes: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(steps).normal(0, 2, (steps, batch, classes)))


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("blank", [0, 3])
def test_costs_are_those_of_all_paths(merge: bool, blank: int) -> None:
    labels = [[label - (blank == 3) for label in row] for row in LABELS]
    lengths = [5, 2, 4, 3, 5]
    x = scores(5, 5, 4)
    costs, possible = ctc_costs(x, Targets(labels, lengths, blank), merge)
    for n, (row, length) in enumerate(zip(labels, lengths)):
        want = likelihood(softmax(x[:length, n].numpy()), row, blank, merge)
        assert possible[n] and float(costs[n]) == pytest.approx(-np.log(want), rel=1e-10)


def test_costs_and_gradients_are_torchs() -> None:
    rng = np.random.default_rng(2)
    lengths = [30, 17, 25, 30]
    labels = [rng.integers(1, 11, size).tolist() for size in (9, 6, 1, 13)]
    x = scores(30, 4, 11).requires_grad_()
    costs, possible = ctc_costs(x, Targets(labels, lengths, 0))
    assert possible.all()
    flat = torch.tensor([label for row in labels for label in row])
    want = torch.nn.functional.ctc_loss(
        torch.log_softmax(x, 2),
        flat,
        torch.tensor(lengths),
        torch.tensor([len(row) for row in labels]),
        reduction="none",
    )
    torch.testing.assert_close(costs, want)
    weights = torch.arange(1.0, 5.0)
    torch.testing.assert_close(
        torch.autograd.grad((costs * weights).sum(), x)[0], torch.autograd.grad((want * weights).sum(), x)[0]
    )


def test_what_does_not_fit_is_told_apart_and_has_finite_gradients() -> None:
    x = scores(3, 4, 4).requires_grad_()
    costs, possible = ctc_costs(x, Targets([[1, 1], [1, 1], [1, 2, 3, 1], []], [3, 2, 3, 0], 0))
    assert possible.tolist() == [True, False, False, True]
    assert costs[3].item() == 0 and costs[1].item() > 1e29
    (gradient,) = torch.autograd.grad(costs.sum(), x)
    assert gradient.isfinite().all() and not gradient[:, 3].any()


@pytest.mark.parametrize(
    "targets, message",
    [
        (Targets([[4]], [3], 0), "Label 4 of sequence 0 is out of range: labels must be in 0 .. 3, and not the blank"),
        (Targets([[0]], [3], 0), "Label 0 of sequence 0"),
        (Targets([[-1]], [3], 0), "Label -1 of sequence 0"),
        (Targets([[1]], [4], 0), r"Sequence 0 must have 0 \.\. 3 steps. Got 4"),
        (Targets([[1]], [3], 4), "The blank label must be a class"),
    ],
)
def test_bad_targets(targets: Targets, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ctc_costs(scores(3, 1, 4), targets)


def test_lengths_by_indicators() -> None:
    indicators = torch.tensor([[0, 0, 0.0], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    assert sequence_lengths(indicators, 4, 3) == [3, 1, 4]
    assert sequence_lengths(indicators[:1], 1, 3) == [1, 1, 1]


def test_labels_end_at_a_negative_one() -> None:
    labels = torch.tensor([[3, -1, 1.0], [4, 2, 5], [-1, 2, 6]])
    assert sequences_by_step(labels, 3) == [[3, 4], [], [1, 5, 6]]


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4, 2), (0, 2, 4), (3, 2, 4, 1, 1)])
def test_shapes_of_scores(shape: tuple[int, ...]) -> None:
    assert check_scores((3, 2, 4, 1)) == (3, 2, 4)
    with pytest.raises(ShapeError, match=r"Scores must be \(time, batch, classes\)"):
        check_scores(shape)
