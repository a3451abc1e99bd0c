"""What a reader of logits gives, whatever the kind of head."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LogitPair:
    """The matched logits of one head for one batch.

    Args:
        student_logits: (N, C_s), with gradient.
        teacher_logits: (N, C_t), of the same N samples.
        labels: (N,), indices into the student's channels, or None where
            the samples have none.
        weight: (N,), the weight of each sample, or None for 1.
        prefix: Put before the log keys of its terms, e.g. 's0.'.
        scale: Multiplies its loss terms.
        sources: The tensors that left the student, if ``student_logits``
            was made from them.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor | None
    weight: Tensor | None = None
    prefix: str = ''
    scale: float = 1.0
    sources: Sequence[Tensor] = field(default=())

    def __post_init__(self) -> None:
        self.sources = self.sources or (self.student_logits,)


def stack_views(pairs: Sequence[LogitPair]) -> LogitPair:
    """The same samples in V views as one pair, (V, N, C).

    One view is returned as it is, (N, C).
    """
    first = pairs[0]
    if len(pairs) == 1:
        return first

    def stacked(name: str) -> Tensor | None:
        values = [getattr(pair, name) for pair in pairs]
        return None if values[0] is None else torch.stack(values)

    return LogitPair(
        stacked('student_logits'),
        stacked('teacher_logits'),
        stacked('labels'),
        stacked('weight'),
        first.prefix,
        first.scale,
        [pair.student_logits for pair in pairs],
    )
