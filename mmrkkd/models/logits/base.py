"""What a reader of logits gives, whatever the kind of head."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class LogitPair:
    """The matched logits of one head for one batch.

    Args:
        student_logits: (N, C_s), with gradient.
        teacher_logits: (N, C_t), of the same N samples.
        labels: (N,), indices into the student's channels.
        weight: (N,), the weight of each sample, or None for 1.
        prefix: Put before the log keys of its terms, e.g. 's0.'.
        scale: Multiplies its loss terms.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor
    weight: Tensor | None = None
    prefix: str = ''
    scale: float = 1.0
