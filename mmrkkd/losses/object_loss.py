"""What losses among the candidates of an object have in common."""

import torch
from torch import Tensor

from .base import LogitLoss
from .placement import Select


class ObjectLoss(LogitLoss):
    """Base of the losses that compare the candidates of each object.

    Many samples of a detector, boxes or cells, are candidates of one object;
    which of them scores its class higher than which decides what is
    detected. A subclass implements :meth:`per_object`; this class gathers
    the scores of the object's class and takes the mean over the objects.

    Outside of a detector, without ``groups``, the samples with the same
    label are the candidates of one object.
    """

    is_base = True
    activations = ('softmax', 'sigmoid')
    needs_labels = True
    # Candidates are compared, not classes.
    min_classes = 1
    asks_for = ('groups',)
    activation = 'sigmoid'
    groups: Tensor | None = None

    def suit(self, activation: str) -> None:
        """See :meth:`Placed.suit`; the scores are made by it."""
        super().suit(activation)
        self.activation = activation

    def located(
        self, select: Select, groups: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :meth:`Placed.located`.

        Args:
            select: As there.
            groups: See :meth:`forward`.
        """
        return super().located(lambda placement: (*select(placement), groups))

    def forward(
        self,
        student_logits: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        labels: Tensor | None = None,
        weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
        groups: Tensor | None = None,
        **names: Tensor,
    ) -> dict[str, Tensor] | Tensor:
        """See :meth:`LogitLoss.forward`.

        Args:
            student_logits: As there.
            teacher_logits: As there.
            labels: As there.
            weight: As there; 0 leaves a candidate out, and all others count
                the same.
            normalizer: As there.
            groups: (N,), the number of the object that each sample is a
                candidate of; -1 for none, and those are left out.
            names: MMRazor's names of the logits.
        """
        if groups is None:
            return super().forward(
                student_logits,
                teacher_logits,
                labels,
                weight,
                normalizer,
                **names,
            )
        kept = groups >= 0
        if weight is not None:
            kept = kept & (weight > 0)
        self.groups = groups[kept]
        try:
            return super().forward(
                student_logits[kept],
                teacher_logits[kept],
                None if labels is None else labels[kept],
            )
        finally:
            self.groups = None

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`: the mean over the objects."""
        groups = labels if self.groups is None else self.groups
        _, objects = groups.unique(return_inverse=True)
        count = int(objects.max()) + 1 if len(objects) else 0
        terms = self.per_object(
            self.scores(student_logits, labels),
            self.scores(teacher_logits, labels),
            objects,
            count,
        )
        return {
            name: (values.sum() / max(count, 1)).expand(len(labels))
            for name, values in terms.items()
        }

    def scores(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, C) and (N,) -> (N,): the score of the object's class."""
        raise NotImplementedError(
            f'{type(self).__name__} must implement scores()'
        )

    def per_object(
        self,
        student_scores: Tensor,
        teacher_scores: Tensor,
        objects: Tensor,
        count: int,
    ) -> dict[str, Tensor]:
        """The named terms of each object, already weighted.

        Args:
            student_scores: (N,), of the class of each candidate's object.
            teacher_scores: (N,), detached.
            objects: (N,), int64, in [0, count).
            count: How many objects there are.

        Returns:
            Log key to (count,).
        """
        raise NotImplementedError(
            f'{type(self).__name__} must implement per_object()'
        )

    def class_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logit of the object's class, (N,)."""
        return logits.gather(1, labels[:, None]).squeeze(1)

    def probabilities(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The probability of the object's class, (N,)."""
        if self.activation == 'sigmoid':
            return self.class_logits(logits, labels).sigmoid()
        return self.class_logits(logits.softmax(1), labels)


def log_softmax_of_each(values: Tensor, objects: Tensor, count: int) -> Tensor:
    """log softmax over the candidates of each object.

    Args:
        values: (N,).
        objects: (N,), in [0, count).
        count: How many objects there are.

    Returns:
        (N,), <= 0.
    """
    highest = values.detach().new_full((count,), -torch.inf)
    highest = highest.scatter_reduce(0, objects, values.detach(), 'amax')
    shifted = values - highest[objects]
    total = values.new_zeros(count).index_add(0, objects, shifted.exp())
    return shifted - total.log()[objects]
