"""The ranking loss: minus a soft Kendall's tau."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkkd.ops import kendall_tau, standardize
from mmrkkd.ops.backends.rank_term_fused import rank_term_fused, usable
from mmrkkd.ops.checks import check_choice, check_flag, check_positive
from mmrkkd.ops.constants import constant
from mmrkkd.ops.kendall_tau import check_implementation

from .base import LogitLoss
from .min_std import MIN_STD, MinStd
from .schedule import build_schedule

CHANNEL_ORDERS = ('top', 'min')


class KendallLoss(LogitLoss):
    """Minus the soft Kendall's tau of each sample.

    ::

        loss_rank = -gamma tau_k(z_hat_s, z_hat_t)       in [-gamma, gamma]

    where z_hat is the sample's logits, standardised over the classes. The
    order of the classes does not depend on a temperature, so there is none;
    the steepness k takes its place. At k = 1 on standardised logits the
    smallest value is not -gamma: a student equal to its teacher reaches
    about -0.5 gamma for Gaussian logits. The logged ``kd/tau`` is exact.

    It is the mean over the samples, and each view of an image is one: with
    V views gamma is shared out to them.

    A sample in which either side holds NaN or infinity is NaN. So is one
    whose teacher rules a class out with a logit of -inf, as it has no mean:
    leave classes that are ruled out for all samples to ``ignore_channels``.

    Args:
        rank_weight: gamma >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 1.0.
        steepness: k > 0, see :func:`mmrkkd.ops.kendall_tau`.
            Defaults to 1.0.
        form: 1, 2 or 3, the smooth form of a pair's agreement.
            Defaults to 1.
        normalize: Standardise each sample over its classes, unbiased.
            Defaults to True.
        eps: Added to the standard deviation. Defaults to 1e-7.
        channel_share: Share of the classes that are ranked in each sample,
            in (0, 1]; the teacher's logits choose, and normalisation comes
            before the choice. At least two are ranked. Defaults to 1.0.
        channel_order: 'top' ranks the teacher's highest classes, 'min' its
            lowest. Defaults to 'top'.
        ignore_channels: Classes cut out before everything else, negative
            indices counting from the end: ``[-1]`` leaves a detector's
            background out of the ranking. Defaults to none.
        impl: Backend of the operator, see :func:`mmrkkd.ops.kendall_tau`;
            'approx' makes a GPU's step wait. Defaults to 'auto', on a GPU
            one operator for the whole term.
        min_std: The least deviation that the student's logits are divided
            by (:class:`~mmrkkd.losses.min_std.MinStd`): a number >= 0
            times the teacher's own of that sample, or
            ``dict(absolute=number)`` in logits. Above it nothing changes;
            below it the student's gradient is divided by the floor and not
            by a deviation near 0. 0 is the paper's formula, in which a head
            that starts with nearly constant logits is pulled without
            bounds. Defaults to 1.0 (docs/en/real_images.md).
        loss_weight: The old name of ``rank_weight``, until 0.3.

    Log keys: ``loss_rank``.

    Source: Guan et al., arXiv:2409.17823, eq. 8, algorithm 1, figure 5 (the
        paper does not say which side chooses the share of classes, nor
        whether before normalisation).
    """

    activations = ('softmax', 'sigmoid')
    apart = True

    def __init__(
        self,
        rank_weight: float | dict = 1.0,
        steepness: float = 1.0,
        form: int = 1,
        normalize: bool = True,
        eps: float = 1e-7,
        channel_share: float = 1.0,
        channel_order: str = 'top',
        ignore_channels: Sequence[int] = (),
        impl: str = 'auto',
        min_std: float | dict | None = MIN_STD,
        loss_weight: float | dict | None = None,
    ) -> None:
        super().__init__()
        if loss_weight is not None:
            warnings.warn(
                'KendallLoss(loss_weight=...) is called rank_weight now; the '
                'old name goes with 0.3',
                FutureWarning,
                stacklevel=2,
            )
            rank_weight = loss_weight
        self.rank_weight = build_schedule('rank_weight', rank_weight)
        self.steepness = check_positive('steepness', steepness)
        check_implementation(impl, form)
        self.form, self.impl = form, impl
        self.normalize = check_flag('normalize', normalize)
        self.eps = check_positive('eps', eps)
        self.channel_share = check_positive('channel_share', channel_share)
        if channel_share > 1:
            raise ValueError(
                f'channel_share must be in (0, 1], got {channel_share!r}'
            )
        check_choice('channel_order', channel_order, CHANNEL_ORDERS)
        self.channel_order = channel_order
        self.ignore_channels = _check_channels(ignore_channels)
        self.min_std = MinStd(min_std)

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        kept = self._kept_channels(student_logits)
        if kept is not None:
            channels = constant(kept, student_logits.device)
            student_logits = student_logits.index_select(-1, channels)
            teacher_logits = teacher_logits.index_select(-1, channels)
        if self.normalize:
            student_logits = standardize(
                student_logits, self.eps, self.min_std.floor(teacher_logits)
            )
            teacher_logits = standardize(teacher_logits, self.eps)
        tau = kendall_tau(
            student_logits,
            teacher_logits,
            steepness=self.steepness,
            form=self.form,
            class_mask=self._chosen_channels(teacher_logits),
            impl=self.impl,
        )
        return dict(loss_rank=-self.now(self.rank_weight) * tau)

    def reduced(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
        weight: Tensor | None,
        normalizer: float | Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.reduced`: on a GPU one operator."""
        samples = student_logits, teacher_logits, weight, normalizer
        term = self.fused(*samples)
        if term is None:
            return super().reduced(*samples[:2], labels, *samples[2:])
        return dict(loss_rank=term)

    def fused(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        weight: Tensor | None,
        normalizer: float | Tensor | None,
    ) -> Tensor | None:
        """The term of a batch by one operator, where there is one.

        Args:
            student_logits: (N, C).
            teacher_logits: (N, C).
            weight: (N,), or None.
            normalizer: See :meth:`LogitLoss.reduced`.

        Returns:
            A scalar, or None where the operator cannot be used.
        """
        if self.impl not in ('auto', 'fused') or not usable(
            student_logits, teacher_logits
        ):
            return None
        kept = self._kept_channels(student_logits)
        if kept is not None:
            flags = [c in kept for c in range(student_logits.shape[-1])]
            kept = constant(tuple(flags), student_logits.device)
        return rank_term_fused(
            student_logits,
            teacher_logits,
            scale=-self.now(self.rank_weight),
            weight=weight,
            normalizer=normalizer,
            kept=kept,
            chosen=self._chosen_channels(teacher_logits, kept),
            steepness=self.steepness,
            form=self.form,
            normalize=self.normalize,
            eps=self.eps,
            floor=self.min_std.value if self.normalize else 0.0,
            relative=self.min_std.kind == 'relative',
        )

    def _kept_channels(self, logits: Tensor) -> tuple[int, ...] | None:
        """The indices of the classes that are not cut out; None for all."""
        if not self.ignore_channels:
            return None
        classes = logits.shape[-1]
        for channel in self.ignore_channels:
            if not -classes <= channel < classes:
                raise ValueError(
                    f'ignore_channels must lie in [-{classes}, {classes - 1}]'
                    f' for {classes} classes, got {channel}'
                )
        ignored = {channel % classes for channel in self.ignore_channels}
        kept = tuple(c for c in range(classes) if c not in ignored)
        if len(kept) < 2:
            raise ValueError(
                f'ignore_channels {self.ignore_channels} leaves fewer than 2 '
                f'of {classes} classes to rank'
            )
        return kept

    def _chosen_channels(
        self, teacher_logits: Tensor, kept: Tensor | None = None
    ) -> Tensor | None:
        """The mask of the share of classes that the teacher chooses.

        Args:
            teacher_logits: (N, C).
            kept: Bool, (C,): the classes that there are; None for all.
        """
        if self.channel_share == 1:
            return None
        classes = teacher_logits.shape[-1]
        if kept is not None:
            last = -torch.inf if self.channel_order == 'top' else torch.inf
            teacher_logits = teacher_logits.masked_fill(~kept, last)
            classes = len(self._kept_channels(teacher_logits))
        chosen = max(2, round(self.channel_share * classes))
        indices = teacher_logits.topk(
            chosen, dim=-1, largest=self.channel_order == 'top'
        ).indices
        mask = torch.zeros_like(teacher_logits, dtype=torch.bool)
        return mask.scatter_(-1, indices, True)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        text = (
            f'rank_weight={self.rank_weight}, '
            f'steepness={self.steepness:g}, form={self.form}, '
            f'normalize={self.normalize}'
        )
        if self.channel_share < 1:
            text += f', {self.channel_order} {self.channel_share:.0%}'
        if self.min_std:
            text += f', min_std={self.min_std}'
        if self.ignore_channels:
            text += f', ignore_channels={list(self.ignore_channels)}'
        return text


def _check_channels(channels: Sequence[int]) -> tuple[int, ...]:
    listed = isinstance(channels, Sequence) and not isinstance(channels, str)
    if not listed or not all(type(channel) is int for channel in channels):
        raise ValueError(
            'ignore_channels must be a list of indices of classes, got '
            f'{channels!r}'
        )
    return tuple(channels)
