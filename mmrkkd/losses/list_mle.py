"""ListMLE: the likelihood of the teacher's ranking of the classes."""

import torch
from torch import Tensor

from mmrkkd.ops.checks import check_flag

from .base import LogitLoss
from .schedule import build_schedule

# In the place of -inf, whose differences would be NaN.
LOWEST = -1e30


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
        places = surprise_of_places(student_logits, order)
        surprise = places.sum(-1)
        # A sort finds a place for NaN.
        unknown = teacher_logits.isnan().any(-1)
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
    order = teacher_logits.argsort(dim=-1, descending=True, stable=True)
    if labels is None:
        return order
    # Stable, so that the others keep their order behind the label.
    later = (order != labels.unsqueeze(-1)).to(torch.uint8)
    return order.gather(-1, later.argsort(dim=-1, stable=True))


def surprise_of_places(student_logits: Tensor, order: Tensor) -> Tensor:
    """-log of how likely each place's class is among those that are left.

    Args:
        student_logits: s, (N, C).
        order: pi, (N, C), int64.

    Returns:
        log sum_{j >= k} exp s(pi_j) - s(pi_k) at place k, (N, C), >= 0.
    """
    scores = student_logits.gather(-1, order).clamp(min=LOWEST)
    left = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return left - scores
