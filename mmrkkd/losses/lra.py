"""Alignment of the soft ranks of the logits."""

import torch
from torch import Tensor

from mmrkkd.ops import pearson, soft_rank, standardize
from mmrkkd.ops.checks import check_choice, check_flag, check_positive

from .base import LogitLoss
from .schedule import build_schedule

DISTANCES = ('l2', 'l1', 'spearman')


class LRALoss(LogitLoss):
    """Logit ranking alignment (LRA).

    With r the soft ranks of a sample's logits, in [1, C]
    (:func:`mmrkkd.ops.soft_rank`, e the regularization)::

        l2:        loss_lra = w (1 / C) sum_c (r_s(c) - r_t(c))^2
        l1:        loss_lra = w (1 / C) sum_c |r_s(c) - r_t(c)|
        spearman:  loss_lra = w (1 - Pearson(r_s, r_t))      in [0, 2 w]

    averaged over the samples. Ranking upwards or downwards gives the same
    loss, since the two ranks of a class add up to C + 1.

    **At the published e = 1 and 100 or more classes this ranks nothing.**
    Logits of usual size (deviation 3, even 15) are then all pooled in one
    block, where r is exactly (mean z - z) / e + (C + 1) / 2: l2 is the mean
    square error of the centred logits, w / C |s - t|^2, with s and t the
    logits minus their mean (2 w times distillation at T -> inf, with its
    factor T^2), l1 their mean absolute error, spearman one minus Pearson's
    correlation of the logits. The diagnostic ``kd/lra_blocks`` of
    ``log_blocks`` shows it: it is 1 there, and C where every class has a
    rank of its own.

    Ranks in earnest need a small e, in proportion to the deviation d of the
    logits and to 1 / C. For Gaussian logits e = 5 d / C gives 0.02 C blocks,
    3 d / C 0.2 C, d / C 0.7 C and 0.1 d / C nearly C (10 classes: somewhat
    more). A class that is alone in its block gets no gradient: nearly C
    blocks teach nearly nothing. ``standardize`` makes d = 1, whatever the
    models::

        dict(
            type='mmrkkd.LRALoss',
            distance='spearman',
            standardize=True,
            regularization=0.03,
        )  # 100 classes

    There l2 and l1 are large, up to w (C^2 - 1) / 3 and w C / 2, and their
    gradients are divided by e: lower w, or take the bounded spearman.

    A sample in which either side holds NaN or infinity is NaN, one whose
    teacher rules a class out with a logit of -inf too.

    Args:
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 5.0, CIFAR-100's value for l2 (10.0 on Tiny
            ImageNet; the paper prints none for the other distances).
        regularization: e > 0, in logits; in deviations with
            ``standardize``. Defaults to 1.0, the paper's.
        distance: 'l2', 'l1' or 'spearman'. Defaults to 'l2'.
        standardize: Standardise each sample's logits over its classes
            before ranking them. The paper does not. Defaults to False.
        log_blocks: Log ``kd/lra_blocks``, which ranks the student's logits
            once more. Defaults to False.

    Log keys: ``loss_lra``; with ``log_blocks`` the diagnostic
    ``kd/lra_blocks``, the number of blocks in [1, C] of the student's ranks,
    averaged over the samples.

    Source: Lu et al., "Knowledge Distillation Based on Logit Ranking
        Alignment", ICIC 2025, eqs. 8-12, with the soft ranks of Blondel et
        al., arXiv:2002.08871. That ranking needs a smaller e is this
        project's derivation.
    """

    activations = ('softmax', 'sigmoid')
    apart = True

    def __init__(
        self,
        loss_weight: float | dict = 5.0,
        regularization: float = 1.0,
        distance: str = 'l2',
        standardize: bool = False,
        log_blocks: bool = False,
    ) -> None:
        super().__init__()
        self.loss_weight = build_schedule('loss_weight', loss_weight)
        self.regularization = check_positive('regularization', regularization)
        check_choice('distance', distance, DISTANCES)
        self.distance = distance
        self.standardize = check_flag('standardize', standardize)
        self.log_blocks = check_flag('log_blocks', log_blocks)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        if self.standardize:
            student_logits = standardize(student_logits)
            teacher_logits = standardize(teacher_logits)
        distances = self._distances(
            self._ranks(student_logits), self._ranks(teacher_logits)
        )
        terms = dict(loss_lra=self.now(self.loss_weight) * distances)
        if self.log_blocks:
            terms['kd/lra_blocks'] = count_blocks(
                student_logits, self.regularization
            )
        return terms

    def _ranks(self, logits: Tensor) -> Tensor:
        return soft_rank(logits, regularization=self.regularization)

    def _distances(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.distance == 'l2':
            return (student - teacher).square().mean(-1)
        if self.distance == 'l1':
            return (student - teacher).abs().mean(-1)
        return 1 - pearson(student, teacher)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return (
            f'loss_weight={self.loss_weight}, '
            f'regularization={self.regularization:g}, '
            f'distance={self.distance}, standardize={self.standardize}'
        )


@torch.no_grad()
def count_blocks(values: Tensor, regularization: float) -> Tensor:
    """How many blocks the soft ranks of each row pool its classes into.

    It ranks once more, as :func:`mmrkkd.ops.soft_rank` keeps its blocks to
    itself: finding them in the ranks takes longer and is not exact.

    Args:
        values: What is ranked, (N, n), float32 or float64.
        regularization: e of the ranks.

    Returns:
        (N,), in [1, n], in the dtype of the values; NaN for a row that
        holds NaN or infinity.
    """
    _, _, first = torch.ops.mmrkkd.soft_rank(values, -1 / regularization)
    blocks = 1 + (first.diff(dim=-1) != 0).sum(-1)
    finite = values.isfinite().all(-1)
    return blocks.to(values.dtype).masked_fill(~finite, torch.nan)
