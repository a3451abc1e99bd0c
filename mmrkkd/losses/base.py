"""What every logit loss has in common: checks, precision, reduction."""

import torch
from torch import Tensor, nn

from mmrkkd.ops import checks
from mmrkkd.ops.backends.autograd import keepable, transformed
from mmrkkd.ops.checks import check_logits, check_positive

from .placement import FEW, Placed
from .row_blocks import LARGE, reduced_in_blocks
from .schedule import Progress, Schedule

# What PyTorch takes for an index.
INDICES = (torch.int64, torch.int32)


class DistillationLoss(nn.Module):
    """What losses of logits and of features have in common: schedules.

    Weights may be schedules (:func:`build_schedule`); whoever runs the
    training keeps :func:`set_progress` informed.
    """

    # A base of losses, and no loss itself: every subclass is one unless it
    # says so too.
    is_base = True
    progress = Progress()

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.is_base = cls.__dict__.get('is_base', False)

    def now(self, schedule: Schedule) -> float:
        """The value of a schedule at this point of the run."""
        return schedule(self.progress)


class LogitLoss(Placed, DistillationLoss):
    """Base of the losses between a student's and a teacher's logits.

    A subclass implements :meth:`per_sample` and nothing else. This class
    checks the inputs, computes in float32 or wider under autocast, detaches
    the teacher, and reduces::

        term = sum_n w_n per_sample_n / sum_n w_n        (w_n = 1 by default)

    Where nothing is selected (N = 0, or every weight 0) the term is 0 and
    its gradient is 0, so that the terms of all processes of a distributed
    run have the same names whatever their batches hold. With a
    ``normalizer`` the sum is divided by it and not by the weights.

    A loss whose samples have nothing to do with each other says so by
    ``apart``: those of weight 0 are then masked, and a GPU goes on. For the
    others they are picked out, for which a training step waits. If it also
    learns nothing it may set ``by_rows``: very many samples are then worked
    on block by block.

    A class that the teacher rules out, its logit -inf, has probability 0:
    losses of probabilities are finite there and have their gradient. Losses
    that standardise or rank the logits say what they make of it.

    Methods that compare several augmented views of each image set
    ``views``: they are called with (V, N, C) logits, and their
    ``per_sample`` gets (N, V, C). For all others views are more samples.
    """

    is_base = True
    views = 1
    needs_labels = False
    min_classes = 2
    apart = False
    by_rows = False

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """The named terms of each sample, already weighted.

        Args:
            student_logits: (N, C), float32 or float64; (N, V, C) where
                ``views`` is above 1.
            teacher_logits: Same shape and dtype, detached.
            labels: (N,), int64, or None.

        Returns:
            Log key to (N,). Terms whose key contains 'loss' are optimised:
            MMEngine adds up exactly those. Others are diagnostics. A term
            that belongs to the whole batch is expanded to (N,).
        """
        raise NotImplementedError(
            f'{type(self).__name__} must implement per_sample()'
        )

    def forward(
        self,
        student_logits: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
        *,
        preds_S: Tensor | None = None,
        preds_T: Tensor | None = None,
    ) -> dict[str, Tensor] | Tensor:
        """Computes the loss of a batch.

        Args:
            student_logits: Scores before softmax, (..., C): leading
                dimensions are samples. Gets gradient. With ``views`` above
                1 it is (V, ..., C), the same samples in each view.
            teacher_logits: Same shape and device. Gets no gradient.
            labels: (...), class indices, for losses that need them. Views
                of a sample have the same label: the first view's is used.
            weight: (...), >= 0, the weight of each sample in the mean, the
                same in all views. Defaults to 1 for every sample.
            normalizer: What the sum over the samples is divided by, > 0.
                Defaults to the sum of the weights.
            preds_S: MMRazor's name for ``student_logits``, and its order:
                (N, C, ...), a class score for each position of an image.
                (With ``views`` above 1, which it does not know, as above.)
            preds_T: MMRazor's name for ``teacher_logits``.

        Returns:
            Log key to scalar, to be added up. With ``preds_S`` and
            ``preds_T`` it is their sum, the scalar that MMRazor expects:
            added up over the positions and divided by N, as its
            'batchmean' is. Labels and weights are (N, ...) there.

        Raises:
            TypeError: logits are not floating point tensors, or are given
                under both or neither of their names, labels are no indices,
                labels or weight no tensors.
            ValueError: shapes or devices do not match, C < 2, a weight is
                negative or not finite, or all of them add up to infinity,
                a normalizer that is a number is not > 0, labels are needed
                and missing or out of range, or the number of views is
                wrong. Values are looked at on the CPU only: a GPU's step
                would wait. There a weight that is NaN makes the term NaN,
                and CUDA stops at a label that is no class.
        """
        if preds_S is not None or preds_T is not None:
            if student_logits is not None or teacher_logits is not None:
                raise TypeError(
                    'give either student_logits and teacher_logits, or '
                    'preds_S and preds_T, not some of both'
                )
            if self.views == 1:
                preds_S, preds_T = _classes_last(preds_S, preds_T)
            terms = self.forward(preds_S, preds_T, labels, weight)
            total = sum(
                value for name, value in terms.items() if 'loss' in name
            )
            positions = preds_S.shape[1:-1].numel() if self.views == 1 else 1
            return positions * total
        check_logits(student_logits, teacher_logits, self.min_classes)
        if normalizer is not None and not isinstance(normalizer, Tensor):
            check_positive('normalizer', normalizer)
        # Whatever was made under torch.inference_mode can be kept then.
        labels, weight, normalizer = map(
            keepable, (labels, weight, normalizer)
        )
        samples = student_logits.shape[:-1]
        labels = _flat('labels', labels, samples)
        weight = _flat('weight', weight, samples)
        if weight is not None:
            _check_weight(weight)
        student_logits = self._rows(student_logits)
        teacher_logits = self._rows(keepable(teacher_logits.detach()))
        # The first view's; for one view all of them.
        labels = None if labels is None else labels[: len(student_logits)]
        weight = None if weight is None else weight[: len(student_logits)]
        if self.needs_labels and labels is None:
            _check_labels(type(self).__name__, labels, student_logits)
        if (
            self.by_rows
            and student_logits.numel() >= LARGE
            and self.applies_at not in FEW
            and not transformed()
        ):
            return reduced_in_blocks(
                self.per_sample,
                student_logits,
                teacher_logits,
                labels,
                weight,
                normalizer,
            )
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        dtype = torch.promote_types(dtype, teacher_logits.dtype)
        with torch.autocast(student_logits.device.type, enabled=False):
            return self.reduced(
                student_logits.to(dtype),
                teacher_logits.to(dtype),
                labels,
                weight,
                normalizer,
            )

    def reduced(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
        weight: Tensor | None,
        normalizer: float | Tensor | None,
    ) -> dict[str, Tensor]:
        """The terms of the batch: :meth:`per_sample` and its weighted mean.

        Args:
            student_logits: As in :meth:`per_sample`.
            teacher_logits: As there.
            labels: As there.
            weight: (N,), >= 0, or None for 1.
            normalizer: Takes the place of the sum of the weights.

        Returns:
            Log key to scalar.
        """
        samples = student_logits, teacher_logits, labels, weight
        if weight is not None:
            # On a CPU nothing waits, and few rows are little work.
            large = student_logits.numel() >= LARGE
            pick = self.applies_at in FEW and (large or checks.at_hand(weight))
            samples = (
                _masked(*samples)
                if self.apart and not pick
                else _picked(*samples)
            )
        *samples, weight = samples
        if self.needs_labels:
            _check_labels(type(self).__name__, samples[2], samples[0])
        return {
            name: weighted_mean(values, weight, normalizer)
            for name, values in self.per_sample(*samples).items()
        }

    def _rows(self, logits: Tensor) -> Tensor:
        """(..., C) -> (N, C); (V, ..., C) -> (N, V, C) with views."""
        classes = logits.shape[-1]
        if self.views == 1:
            # As it is, where it can be: a view is a step of the way back.
            return logits if logits.dim() == 2 else logits.reshape(-1, classes)
        if logits.dim() < 3 or len(logits) != self.views:
            raise ValueError(
                f'{type(self).__name__} compares {self.views} views of each '
                f'image, logits ({self.views}, N, C), got '
                f'{tuple(logits.shape)}; use a data pipeline that makes '
                f'{self.views} views (see docs/en/classification.md)'
            )
        views = logits.flatten(1, -2) if logits.dim() > 3 else logits
        return views.transpose(0, 1)


def set_progress(module: nn.Module, progress: Progress) -> None:
    """Tells every loss inside a module how far the run is.

    Args:
        module: A loss, or anything that holds losses.
        progress: The epoch and the iteration in progress.
    """
    for part in module.modules():
        if isinstance(part, DistillationLoss):
            part.progress = progress


def weighted_mean(
    values: Tensor,
    weight: Tensor | None,
    normalizer: float | Tensor | None = None,
) -> Tensor:
    """The one reduction: (N,), weights (N,) >= 0 or None -> scalar.

    The mean of no samples is 0, still connected to the student. A
    normalizer takes the place of the sum of the weights.
    """
    if normalizer is not None:
        if weight is not None:
            values = values * weight.to(values.dtype)
        return values.sum() / normalizer
    if weight is None:
        return values.mean() if values.numel() else values.sum()
    weight = weight.to(values.dtype)
    total = weight.sum()
    # Shares first: products of huge or tiny weights leave float32's range.
    share = weight / torch.where(total > 0, total, 1.0)
    return (values * share).sum()


def _picked(*samples: Tensor | None) -> list[Tensor | None]:
    """The samples of a weight that is not 0; the last one is the weight.

    Left out before the arithmetic: it saves the work, and what the others
    hold, NaN included, reaches nothing. A GPU is waited for once.
    """
    kept = samples[-1].nonzero().flatten()
    return [
        None if each is None else each.index_select(0, kept)
        for each in samples
    ]


def _masked(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    weight: Tensor,
) -> list[Tensor | None]:
    """All samples, those of weight 0 with zeros for what they hold."""
    hidden = weight == 0
    rows = hidden.view(-1, *(1,) * (student_logits.dim() - 1))
    return [
        student_logits.masked_fill(rows, 0.0),
        teacher_logits.masked_fill(rows, 0.0),
        None if labels is None else labels.masked_fill(hidden, 0),
        weight,
    ]


def _classes_last(*preds: Tensor | None) -> list[Tensor | None]:
    """(N, C, ...) -> (N, ..., C); what is none is left to the checks."""
    return [
        logits.movedim(1, -1)
        if isinstance(logits, Tensor) and logits.dim() > 2
        else logits
        for logits in preds
    ]


def _flat(
    name: str, value: Tensor | None, samples: torch.Size
) -> Tensor | None:
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise TypeError(
            f'{name} must be a tensor with one value for each sample, shape '
            f'{tuple(samples)}, got {type(value).__name__}'
        )
    if value.shape != samples:
        raise ValueError(
            f'{name} must have one value for each sample, shape '
            f'{tuple(samples)}, got {tuple(value.shape)}'
        )
    return value.reshape(-1)


def _check_labels(owner: str, labels: Tensor | None, logits: Tensor) -> None:
    if labels is None:
        raise ValueError(
            f'{owner} needs labels, got None: it separates the target class '
            'from the others, so every sample must have one class index '
            '(mixed labels of Mixup or CutMix are none)'
        )
    if labels.dtype not in INDICES:
        raise TypeError(
            'labels must be class indices, int64, got a tensor of '
            f'{labels.dtype} (soft labels are none)'
        )
    classes = logits.shape[-1]
    if not labels.numel() or not checks.at_hand(labels):
        return
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise ValueError(
            f'labels must be class indices in [0, {classes - 1}], got values '
            f'in [{labels.min().item()}, {labels.max().item()}]'
        )


def _wide(weight: Tensor) -> torch.dtype:
    """In which a sum of half precision numbers fits."""
    return torch.promote_types(weight.dtype, torch.float32)


def _check_weight(weight: Tensor) -> None:
    if not checks.at_hand(weight):
        return
    # NaN and infinity fail it as negative values do.
    usable = (weight >= 0) & (weight < torch.inf)
    if not bool(usable.all()):
        raise ValueError(
            'weight must be finite and >= 0 for every sample, got values in '
            f'[{weight.min().item()}, {weight.max().item()}]'
        )
    if weight.sum(dtype=_wide(weight)) == torch.inf:
        raise ValueError(
            'the sum of all weights must be finite, got infinity from values '
            f'up to {weight.max().item()} in {weight.dtype}: divide them by a '
            'constant'
        )
