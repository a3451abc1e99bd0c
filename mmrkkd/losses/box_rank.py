"""Kendall's tau over the candidates of an object."""

import torch
from torch import Tensor

from mmrkkd.ops.checks import check_flag, check_positive

from .min_std import MIN_STD, MinStd
from .object_loss import ObjectLoss
from .schedule import build_schedule

# Added to a deviation before it divides.
EPS = 1e-7
# So many last digits may equal scores differ by.
ROUNDINGS = 16


class BoxRankLoss(ObjectLoss):
    """Minus Kendall's tau of the candidates of each object.

    Where :class:`KendallLoss` ranks the classes of a box, this ranks the
    boxes of an object by their score of its class. With s_i, t_i the logits
    of the class in the n candidates of an object::

        tau = 2 / (n (n - 1))
              sum_{i<j} tanh(k (s_i - s_j)) tanh(k (t_i - t_j))
        loss_box_rank = -w mean over the objects of tau

    in [-w, w]; an object with one candidate has no order and gives 0. A
    logit of -inf has no place among others and gives NaN.

    Experimental: no paper has numbers of it. The ranking of Guan et al. is
    over the classes.

    Args:
        steepness: k > 0. Defaults to 1.0.
        normalize: Standardise the logits of each object's candidates, with
            the unbiased deviation plus 1e-7. Defaults to True.
        candidates: At most so many of each object, those of the teacher's
            highest scores. Defaults to 64.
        min_std: The least deviation that the student's logits are divided
            by, relative to the teacher's among the same candidates or
            absolute, as in :class:`KendallLoss`; 0 for none. Defaults to
            1.0.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.

    Log keys: ``loss_box_rank``.
    """

    def __init__(
        self,
        steepness: float = 1.0,
        normalize: bool = True,
        candidates: int = 64,
        loss_weight: float | dict = 1.0,
        min_std: float | dict | None = MIN_STD,
    ) -> None:
        super().__init__()
        self.steepness = check_positive('steepness', steepness)
        self.normalize = check_flag('normalize', normalize)
        if type(candidates) is not int or candidates < 2:
            raise ValueError(
                f'candidates must be a number >= 2, got {candidates!r}'
            )
        self.candidates = candidates
        self.loss_weight = build_schedule('loss_weight', loss_weight)
        self.min_std = MinStd(min_std)

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`ObjectLoss.scores`: logits."""
        return self.class_logits(logits, labels)

    def per_object(
        self,
        student_scores: Tensor,
        teacher_scores: Tensor,
        objects: Tensor,
        count: int,
    ) -> dict[str, Tensor]:
        """See :meth:`ObjectLoss.per_object`."""
        places, valid = _table(teacher_scores, objects, count, self.candidates)
        student, teacher = student_scores[places], teacher_scores[places]
        if self.normalize:
            floor = self._floor(teacher, valid)
            student = _standardized(student, valid, floor)
            teacher = _standardized(teacher, valid)
        pairs = (
            valid[:, :, None]
            & valid[:, None]
            & torch.ones_like(valid[:1, :, None] & valid[:1, None]).triu(1)
        )
        concordance = _signs(student, self.steepness) * _signs(
            teacher, self.steepness
        )
        # What is no pair may hold anything.
        total = concordance.masked_fill(~pairs, 0.0).sum((1, 2))
        tau = total / pairs.sum((1, 2)).clamp(min=1)
        return dict(loss_box_rank=-self.now(self.loss_weight) * tau)

    def _floor(self, teacher: Tensor, valid: Tensor) -> Tensor:
        """The student's least deviation, of each object, (G, 1)."""
        if self.min_std.kind == 'absolute':
            return teacher.new_full((len(teacher), 1), self.min_std.value)
        _, variance, constant = _spread(teacher, valid)
        deviation = variance.sqrt().masked_fill(constant, 0.0)
        return self.min_std.value * deviation

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'steepness={self.steepness:g}, normalize={self.normalize}, '
            f'candidates={self.candidates}, loss_weight={self.loss_weight}, '
            f'min_std={self.min_std}'
        )


def _table(
    scores: Tensor, objects: Tensor, count: int, most: int
) -> tuple[Tensor, Tensor]:
    """The candidates of each object, the highest scores first.

    Returns:
        (count, K) indices of candidates, 0 where there is none; and (count,
        K) bool, where there is one.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[objects[order].argsort(stable=True)]
    sizes = torch.bincount(objects, minlength=count)
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(order), device=order.device)
    place = place - first[objects[order]]
    # At least one column, so that rows have a highest value.
    width = min(most, int(sizes.max()) if count else 1)
    table = order.new_zeros(count, width)
    valid = torch.zeros(count, width, dtype=torch.bool, device=order.device)
    kept = place < most
    row, column = objects[order[kept]], place[kept]
    table[row, column] = order[kept]
    valid[row, column] = True
    return table, valid


def _standardized(
    values: Tensor, valid: Tensor, floor: Tensor | None = None
) -> Tensor:
    """(G, K), mean 0 and deviation 1 over what is valid of each row.

    Where the deviation is not above its floor, that stands for it, as a
    constant: see :func:`mmrkkd.ops.standardize`.
    """
    apart, variance, constant = _spread(values, valid)
    raised = torch.zeros_like(constant)
    if floor is not None:
        raised = (floor > 0) & (variance.detach().sqrt() <= floor)
    constant = constant & ~raised
    # The root has no slope at 0.
    deviation = variance.masked_fill(constant | raised, 1.0).sqrt()
    if floor is not None:
        deviation = torch.where(raised, floor, deviation)
    return (apart / (deviation + EPS)).masked_fill(constant, 0.0)


def _spread(values: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
    """Of each row (G, K) what is valid, less its mean, 0 elsewhere.

    Returns:
        (G, K); its unbiased variance, (G, 1); and whether that is rounding,
        (G, 1) bool.
    """
    count = valid.sum(1, keepdim=True).clamp(min=1)
    mean = values.masked_fill(~valid, 0.0).sum(1, keepdim=True) / count
    apart = (values - mean).masked_fill(~valid, 0.0)
    variance = apart.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
    # Equal scores, but for rounding, have no order and no gradient.
    highest = values.detach().abs().masked_fill(~valid, 0.0)
    tiny = ROUNDINGS * torch.finfo(values.dtype).eps
    constant = variance <= (tiny * highest.amax(1, keepdim=True)).square()
    return apart, variance, constant


def _signs(values: Tensor, steepness: float) -> Tensor:
    """(G, K) -> (G, K, K), tanh(k (x_i - x_j))."""
    return torch.tanh(steepness * (values[:, :, None] - values[:, None]))
