"""ListMLE: the likelihood of the teacher's ranking of the classes."""

import torch
from torch import Tensor

from mmrkkd.ops import checks
from mmrkkd.ops.backends.autograd import with_slopes
from mmrkkd.ops.backends.native_rows import surprise_rows
from mmrkkd.ops.checks import check_flag

from .base import LogitLoss
from .schedule import build_schedule

# In the place of -inf, whose differences would be NaN.
LOWEST = -1e30
# exp(-600) is a normal float64.
WIDEST = 600.0


class ListMLELoss(LogitLoss):
    """Minus the log likelihood of the teacher's ranking (ListMLE).

    With pi the classes from the teacher's highest logit to its lowest, and
    the student's logits s as the worths of a Plackett-Luce model::

        loss_list_mle = -w log P(pi | s)
                      = w sum_k [log sum_{j >= k} exp s(pi_j) - s(pi_k)]

    added up over the places (the last one gives 0) and averaged over the
    samples. It is convex in s and does not change when a number is added to
    all of s; only the teacher's order counts, not its logits. Equal logits
    of the teacher stand in the order of the classes.

    Every place weighs the same, so the many low ones dominate: for C
    classes at random the loss is about log C!. A weight of 1 / C with
    ``label_first`` is the "PLD-ListMLE" of Bassam et al.

    Args:
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.
        label_first: Put the label before all other classes, whatever the
            teacher says. Needs labels then. Defaults to False.

    Log keys: ``loss_list_mle``.

    Source: Xia et al., "Listwise Approach to Learning to Rank: Theory and
        Algorithm", ICML 2008.
    """

    activations = ('softmax', 'sigmoid')
    apart = True

    def __init__(
        self, loss_weight: float | dict = 1.0, label_first: bool = False
    ) -> None:
        super().__init__()
        self.loss_weight = build_schedule('loss_weight', loss_weight)
        self.label_first = check_flag('label_first', label_first)
        self.needs_labels = self.label_first

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        order = ranking(teacher_logits, labels if self.label_first else None)
        surprise = surprise_of(student_logits, order)
        # A sort finds a place for NaN; a maximum with one is NaN.
        unknown = teacher_logits.amax(-1).isnan()
        surprise = surprise.masked_fill(unknown, torch.nan)
        return dict(loss_list_mle=self.now(self.loss_weight) * surprise)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'loss_weight={self.loss_weight}, label_first={self.label_first}'
        )


def ranking(teacher_logits: Tensor, labels: Tensor | None) -> Tensor:
    """Classes from the highest logit to the lowest.

    Args:
        teacher_logits: (N, C).
        labels: (N,), classes to be put first, or None.

    Returns:
        (N, C), int64; equal logits keep the order of the classes.
    """
    if labels is not None:
        # Above all others, whatever those are.
        limit = torch.finfo(teacher_logits.dtype).max
        teacher_logits = teacher_logits.clamp(max=limit).scatter(
            -1, labels.unsqueeze(-1), torch.inf
        )
    return teacher_logits.argsort(dim=-1, descending=True, stable=True)


def surprise_of(
    student_logits: Tensor, order: Tensor, weight: Tensor | None = None
) -> Tensor:
    """-log of how likely each place's class is among those left, added up.

    ::

        sum_k w_k [log sum_{j >= k} exp s(pi_j) - s(pi_k)]

    Args:
        student_logits: s, (N, C). Gets gradient.
        order: pi, (N, C), int64.
        weight: w of each place, (N, C), >= 0, without gradient. Defaults to
            None for 1.

    Returns:
        (N,), >= 0.
    """
    return with_slopes(
        _surprise, _surprise_and_slopes, student_logits, order, weight
    )


def _surprise(
    student_logits: Tensor, order: Tensor, weight: Tensor | None
) -> Tensor:
    """The equation, by autograd."""
    scores = student_logits.gather(-1, order).clamp(min=LOWEST)
    scores = _from_the_largest(scores)
    left = scores.flip(-1).logcumsumexp(-1).flip(-1)
    places = left - scores
    return (places if weight is None else weight * places).sum(-1)


def _surprise_and_slopes(
    student_logits: Tensor, order: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """It, and its gradient: with L_k the logarithm of the inner sum ::

    d / d s(pi_j) = sum_{k <= j} w_k exp(s(pi_j) - L_k) - w_j
    """
    narrow = _narrow(student_logits)
    if narrow is None or not narrow.any():
        return _by_logarithms(student_logits, order, weight)
    powers = _by_powers(student_logits, order, weight)
    if narrow.all():
        return powers
    # Each row by its own kind: what the others hold changes no bit.
    value, slopes = _by_logarithms(student_logits, order, weight)
    return (
        torch.where(narrow, powers[0], value),
        torch.where(narrow.unsqueeze(-1), powers[1], slopes),
    )


def _by_powers(
    student_logits: Tensor, order: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """By sums of exponentials, in float64.

    Some ten times faster than by their logarithms.
    """
    fast = surprise_rows(student_logits, order, weight, LOWEST)
    if fast is not None:
        return fast
    scores = student_logits.gather(-1, order).clamp_(min=LOWEST)
    weight = torch.ones_like(scores) if weight is None else weight
    wide = scores.double()
    wide -= wide.amax(-1, keepdim=True)
    powers = wide.exp()
    left = powers.flip(-1).cumsum(-1).flip(-1)
    slopes = (weight / left).cumsum_(-1).mul_(powers).sub_(weight)
    places = left.log_().sub_(wide).mul_(weight)
    return _of_classes(scores, order, places, slopes)


def _by_logarithms(
    student_logits: Tensor, order: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same for scores of any spread."""
    given = student_logits.gather(-1, order).clamp_(min=LOWEST)
    scores = _from_the_largest(given)
    weight = torch.ones_like(scores) if weight is None else weight
    left = scores.flip(-1).logcumsumexp(-1).flip(-1)
    shares = (weight.log() - left).logcumsumexp(-1)
    slopes = (scores + shares).exp_().sub_(weight)
    places = (left - scores).mul_(weight)
    return _of_classes(given, order, places, slopes)


def _from_the_largest(scores: Tensor) -> Tensor:
    """Scores minus the row's largest: sums of large ones lose digits."""
    return scores - scores.detach().amax(-1, keepdim=True)


def _of_classes(
    scores: Tensor, order: Tensor, places: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum over the places, and the slopes where their classes stand."""
    slopes = slopes.to(scores.dtype).masked_fill_(scores == LOWEST, 0.0)
    result = torch.empty_like(slopes).scatter_(-1, order, slopes)
    return places.sum(-1).to(scores.dtype), result


def _narrow(student_logits: Tensor) -> Tensor | None:
    """Of which rows the exponentials fit into float64.

    Args:
        student_logits: (N, C).

    Returns:
        Bool, (N,); None on another device, where to choose is to wait.
    """
    if not checks.at_hand(student_logits) or not student_logits.numel():
        return None
    smallest = student_logits.amin(-1).clamp_(min=LOWEST)
    return student_logits.amax(-1) - smallest < WIDEST
