"""MLKD: predictions aligned for instances, the batch and the classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkkd.ops import kl_divergence, standardize
from mmrkkd.ops.checks import check_flag, check_positive
from mmrkkd.ops.rows import wide_dtype

from .base import LogitLoss
from .schedule import build_schedule

WEAK, STRONG = 0, 1
# The released code reads the strong view at the first temperatures only.
RELEASED_STRONG = 3
# Rows for each column from where on their N x N numbers cost more.
TALL = 8


class MLKDLoss(LogitLoss):
    """Alignment of predictions on three levels, at several temperatures.

    Two views of each image, weakly (w) and strongly (s) augmented. With P
    the predictions of a view, (N, C), at one temperature::

        P      = softmax(z / T)
        KD_T   = T^2 KL(P_t || P_s), of each sample
        BC_T   = ||P_t P_t' - P_s P_s'||_F^2 / N     (samples, N x N)
        CC_T   = ||P_t' P_t - P_s' P_s||_F^2 / C     (classes, C x C)

    BC and CC carry no T^2. A sample is chosen where the teacher's
    confidence in the weak view, max_c softmax(t_w) at T = 1, is not above
    the batch's median; a class where the batch's sum of its probability is
    not above the median of the classes. With m and m_c the shares of what
    is chosen (about 1/2), and every sum over the temperatures, the released
    code, and so this class, computes::

        loss_mlkd_instance = w (m sum KD_T(w) + sum_{first 3} KD_T(s)
                                + sum_{the others} KD_T(w))
        loss_mlkd_batch    = w m sum BC_T(w)
        loss_mlkd_class    = w m_c sum CC_T(w)

    which differs from what that code says it does, ``mend_slips=True``::

        loss_mlkd_instance = w (sum KD_T(w) of chosen samples
                                + sum KD_T(s))
        loss_mlkd_batch    = w sum (BC_T(w) + BC_T(s)), rows of chosen
                             samples
        loss_mlkd_class    = w sum (CC_T(w) of rows of chosen classes
                                    + CC_T(s))

    1. Masks choose. The released code reduces every term to a scalar first,
       so that its masks are no more than the factors m and m_c.
    2. The strong view is used at every temperature. The released code gives
       the weak logits at 2 and 6.
    3. Batch and class terms of the strong view count. The released code
       computes and drops them.

    The published numbers come from the released code.

    Args:
        temperatures: Each > 0, at least one. The order matters to the slip
            of the last two. Defaults to (4, 3, 5, 2, 6), of which the first
            is the one that the authors tune.
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`). The
            authors take 0.9 beside task losses of both views with weight
            0.1. Defaults to 1.0.
        standardize: KD_T, and nothing else, sees standardised logits
            (LSKD). Its authors then take 2 as the first temperature and 9
            as the weight. Defaults to False.
        mend_slips: Compute what was meant. Defaults to False.

    Log keys: ``loss_mlkd_instance``, ``loss_mlkd_batch``,
    ``loss_mlkd_class``. Weights of samples enter the mean of the instance
    term; the others see the selected samples as equals, and in a
    distributed run those of their own process.

    Source: Jin et al., Multi-Level Logit Distillation, CVPR 2023, pages
        24276-24285; ``standardize``: Sun et al., arXiv:2403.01427.
    """

    views = 2

    def __init__(
        self,
        temperatures: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
        loss_weight: float | dict = 1.0,
        standardize: bool = False,
        mend_slips: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(temperatures, (list, tuple)) or not temperatures:
            raise ValueError(
                'temperatures must be a list of at least one number > 0, got '
                f'{temperatures!r}'
            )
        self.temperatures = tuple(
            check_positive('each of temperatures', value)
            for value in temperatures
        )
        self.loss_weight = build_schedule('loss_weight', loss_weight)
        self.standardize = check_flag('standardize', standardize)
        self.mend_slips = check_flag('mend_slips', mend_slips)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        sure = teacher_logits[:, WEAK].softmax(-1)
        samples = _not_above_median(sure.amax(-1))
        classes = _not_above_median(sure.sum(0))
        instance = self._instance(student_logits, teacher_logits, samples)
        batch, by_class = self._relations(
            student_logits, teacher_logits, samples, classes
        )
        weight = self.now(self.loss_weight)
        return dict(
            loss_mlkd_instance=weight * instance,
            loss_mlkd_batch=weight * batch.expand_as(instance),
            loss_mlkd_class=weight * by_class.expand_as(instance),
        )

    def _instance(
        self, student_logits: Tensor, teacher_logits: Tensor, samples: Tensor
    ) -> Tensor:
        """(N, 2, C), which samples are chosen (N,) -> (N,)."""
        if self.standardize:
            student_logits = standardize(student_logits)
            teacher_logits = standardize(teacher_logits)
        # Over temperatures, samples and views.
        terms = torch.stack(
            [
                value**2 * kl_divergence(student_logits, teacher_logits, value)
                for value in self.temperatures
            ]
        )
        weak, strong = terms.unbind(-1)
        if self.mend_slips:
            return torch.where(samples, weak.sum(0), 0.0) + strong.sum(0)
        return (
            _share(samples, weak.dtype) * weak.sum(0)
            + strong[:RELEASED_STRONG].sum(0)
            + weak[RELEASED_STRONG:].sum(0)
        )

    def _relations(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        samples: Tensor,
        classes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The sums of BC and of CC over the temperatures, two scalars."""
        batch = by_class = student_logits.new_zeros(())
        views = (WEAK, STRONG) if self.mend_slips else (WEAK,)
        for temperature in self.temperatures:
            for view in views:
                student = (student_logits[:, view] / temperature).softmax(-1)
                teacher = (teacher_logits[:, view] / temperature).softmax(-1)
                rows = _gram_rows(student, teacher)
                columns = _gram_rows(student.T, teacher.T)
                if self.mend_slips:
                    rows = torch.where(samples, rows, 0.0)
                    if view == WEAK:
                        columns = torch.where(classes, columns, 0.0)
                else:
                    rows = _share(samples, rows.dtype) * rows
                    columns = _share(classes, rows.dtype) * columns
                batch = batch + _mean(rows)
                by_class = by_class + _mean(columns)
        return batch, by_class

    def extra_repr(self) -> str:
        """The settings, for the log."""
        temperatures = ', '.join(f'{value:g}' for value in self.temperatures)
        return (
            f'temperatures=({temperatures}), loss_weight={self.loss_weight}, '
            f'standardize={self.standardize}, mend_slips={self.mend_slips}'
        )


def _gram_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """(N, C) each -> squared norms of the rows of their Gram matrices'
    difference, (N,).

    Of many rows, such as 21841 classes of a batch, through matrices of
    C x C: sum_j (t_i t_j - s_i s_j)^2 = t_i T'T t_i' + s_i S'S s_i'
    - 2 t_i T'S s_i', in double, for what is left is small.
    """
    rows, width = student.shape
    if rows <= TALL * width:
        return (teacher @ teacher.T - student @ student.T).square().sum(1)
    wide = wide_dtype(student.device)
    s, t = student.to(wide), teacher.to(wide)
    norms = t @ (t.T @ t) * t + s @ (s.T @ s) * s - 2 * (t @ (t.T @ s)) * s
    return norms.sum(1).to(student.dtype)


def _mean(values: Tensor) -> Tensor:
    """(N,) -> scalar, 0 for N = 0."""
    return values.sum() / max(values.numel(), 1)


def _share(chosen: Tensor, dtype: torch.dtype) -> Tensor:
    """The share of True, a scalar, 0 for none."""
    return chosen.sum().to(dtype) / max(chosen.numel(), 1)


def _not_above_median(values: Tensor) -> Tensor:
    """(N,) -> bool, (N,); the median of an even number is the midpoint."""
    count = values.numel()
    if not count:
        return torch.zeros_like(values, dtype=torch.bool)
    # torch.compile cannot trace torch.quantile.
    ordered = values.sort().values
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return values <= median
