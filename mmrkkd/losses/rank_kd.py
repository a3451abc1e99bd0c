"""RKKD: a distillation loss together with the ranking loss."""

from collections.abc import Sequence

from torch import Tensor, nn

from .base import LogitLoss
from .binary_kd import BinaryKDLoss
from .build import build_loss
from .kd import KDLoss
from .kendall import KendallLoss
from .min_std import MIN_STD
from .placement import Select
from .schedule import build_schedule


class RankKDLoss(LogitLoss):
    """Ranking-enhanced distillation: any logit loss plus Kendall's tau.

    ::

        loss = alpha L_KD - gamma tau_k,     alpha = kd_weight,
                                             gamma = rank_weight

    The third term of the paper's eq. 9, beta times the task loss, is the
    distiller's ``task_weight``.

    Args:
        temperature: T of the KL term; only without ``kd``.
            Defaults to 4.0.
        kd_weight: alpha >= 0, or a schedule (:func:`build_schedule`).
            Defaults to 0.9.
        rank_weight: gamma >= 0, or a schedule. Defaults to 0.9 (the paper
            sets gamma = alpha).
        steepness: k of the ranking term. Defaults to 1.0.
        form: 1, 2 or 3. Defaults to 1.
        normalize: See :class:`KendallLoss`. Defaults to True.
        channel_share: See :class:`KendallLoss`. Defaults to 1.0.
        channel_order: See :class:`KendallLoss`. Defaults to 'top'.
        ignore_channels: See :class:`KendallLoss`; the KD loss still sees
            every class. Defaults to none.
        kd: The loss to enhance, a registered type's config or a module.
            Defaults to :class:`KDLoss`; on scores that a sigmoid decides,
            to :class:`BinaryKDLoss`.
        impl: Backend of the ranking operator. Defaults to 'auto'.
        eps: See :class:`KendallLoss`. Defaults to 1e-7.
        min_std: See :class:`KendallLoss`; 0 is the paper's formula.
            Defaults to 1.0.
        rank_locations: Where the ranking term applies, if elsewhere than
            the KD loss, see :class:`Placement`. Defaults to None: where the
            KD loss does, and on a dense head 'top'.
        rank_top: The share of 'top', see :class:`Placement`. Defaults to
            0.01.

    A teacher's logit of -inf, a class ruled out, makes the ranking term NaN
    unless ``ignore_channels`` holds the class.

    The ranking term is the mean over the samples, and each view of an image
    is one, whatever the KD loss makes of views. Where a recipe for V views
    ranks each of them with weight gamma and adds up, as MLKD does its own
    terms, ``rank_weight`` is V gamma.

    Log keys: those of the KD loss (``loss_kd``) and ``loss_rank``.

    Source: Guan et al., arXiv:2409.17823, eq. 9.
    """

    def __init__(
        self,
        temperature: float | None = None,
        kd_weight: float | dict = 0.9,
        rank_weight: float | dict = 0.9,
        steepness: float = 1.0,
        form: int = 1,
        normalize: bool = True,
        channel_share: float = 1.0,
        channel_order: str = 'top',
        ignore_channels: Sequence[int] = (),
        kd: dict | nn.Module | None = None,
        impl: str = 'auto',
        eps: float = 1e-7,
        min_std: float | dict | None = MIN_STD,
        rank_locations: str | None = None,
        rank_top: float = 0.01,
    ) -> None:
        super().__init__()
        self.kd_weight = build_schedule('kd_weight', kd_weight)
        self.kd_is_chosen = kd is not None or temperature is not None
        if kd is None:
            kd = KDLoss(
                temperature=4.0 if temperature is None else temperature
            )
        elif temperature is not None:
            raise ValueError(
                'temperature belongs to the default KL term; with kd=... set '
                f'it there, got temperature={temperature!r}'
            )
        self.kd = build_loss(kd, LogitLoss)
        if any(isinstance(part, KendallLoss) for part in self.kd.modules()):
            raise ValueError(
                'kd ranks already, and its loss_rank would be overwritten: '
                'give the loss inside it instead, or KendallLoss alone, got '
                f'kd={type(self.kd).__name__}'
            )
        self.views = self.kd.views
        self.needs_labels = self.kd.needs_labels
        self.apart = self.kd.apart
        self.rank = KendallLoss(
            rank_weight=rank_weight,
            steepness=steepness,
            form=form,
            normalize=normalize,
            channel_share=channel_share,
            channel_order=channel_order,
            ignore_channels=ignore_channels,
            impl=impl,
            eps=eps,
            min_std=min_std,
        )
        self.rank.place(locations=rank_locations, top=rank_top)

    def place(self, **options: object) -> None:
        """See :meth:`Placed.place`; either part may have its own."""
        super().place(**options)
        for part in (self.kd, self.rank):
            if part.placement.locations is None:
                part.place(**options)

    def suit(self, activation: str) -> None:
        """See :meth:`Placed.suit`."""
        if activation == 'sigmoid' and not self.kd_is_chosen:
            self.kd = BinaryKDLoss()
            self.kd.placement = self.placement
        self.kd.suit(activation)

    def located(self, select: Select) -> dict[str, Tensor]:
        """See :meth:`Placed.located`."""
        stated = self.placement.normalizer is not None
        alike = self.kd.default_normalizer == self.rank.default_normalizer
        if self.rank.placement.locations is None and (stated or alike):
            return super().located(select)
        terms = self._weighted(self.kd.located(select))
        return {**terms, **self.rank.located(select)}

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        terms = self._weighted(
            self.kd.per_sample(student_logits, teacher_logits, labels)
        )
        terms['loss_rank'] = self._ranking(student_logits, teacher_logits)
        return terms

    def reduced(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
        weight: Tensor | None,
        normalizer: float | Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.reduced`: on a GPU the ranking is one op."""
        samples = student_logits, teacher_logits, labels, weight, normalizer
        if self.views > 1:
            # Each view is a sample of the ranking's.
            if weight is not None:
                weight = weight.unsqueeze(1).expand(-1, self.views).flatten()
            if normalizer is not None:
                normalizer = normalizer * self.views
        classes = student_logits.shape[-1]
        rank = self.rank.fused(
            student_logits.reshape(-1, classes),
            teacher_logits.reshape(-1, classes),
            weight,
            normalizer,
        )
        if rank is None:
            return super().reduced(*samples)
        return {
            **self._weighted(self.kd.reduced(*samples)),
            'loss_rank': rank,
        }

    def _weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = self.now(self.kd_weight)
        return {
            name: weight * value if 'loss' in name else value
            for name, value in terms.items()
        }

    def _ranking(
        self, student_logits: Tensor, teacher_logits: Tensor
    ) -> Tensor:
        """The ranking term (N,), the mean of a sample's views."""
        classes = student_logits.shape[-1]
        terms = self.rank.per_sample(
            student_logits.reshape(-1, classes),
            teacher_logits.reshape(-1, classes),
            None,
        )
        # A view count of -1 would be ambiguous for an empty batch.
        views = terms['loss_rank'].view(len(student_logits), self.views)
        return views.mean(1)

    def extra_repr(self) -> str:
        """The settings, for the log."""
        return f'kd_weight={self.kd_weight}'
