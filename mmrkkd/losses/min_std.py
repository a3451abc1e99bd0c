"""The least deviation that standardised logits are divided by."""

from torch import Tensor

from mmrkkd.ops.checks import check_non_negative
from mmrkkd.ops.standardize import deviation

KINDS = ('relative', 'absolute')
# The ranking's, where a config states none: chosen among five floors on
# images that docs/en/real_images.md does not report on.
MIN_STD = 1.0


class MinStd:
    """The floor under the student's deviation, as a config states it.

    ::

        None or 0            none: the published formula
        0.5                  half of the teacher's deviation of that sample
        dict(absolute=0.5)   half a logit

    The gradient of standardised logits is divided by the student's
    deviation, and a layer that starts with nearly constant logits has
    nearly none. A floor relative to the teacher's lets a student
    that is as spread as its teacher alone.

    Args:
        min_std: One of the above; ``dict(relative=0.5)`` is 0.5.
    """

    def __init__(self, min_std: float | dict | None) -> None:
        stated = min_std if isinstance(min_std, dict) else {}
        if not isinstance(min_std, dict) and min_std is not None:
            stated = dict(relative=min_std)
        kinds = set(stated)
        if min_std is not None and (
            len(kinds) != 1 or not kinds <= set(KINDS)
        ):
            raise ValueError(
                'min_std must be a number (times the deviation of the '
                "teacher's logits), dict(absolute=number) (in logits) or "
                f'None, got {min_std!r}'
            )
        self.kind, value = next(iter(stated.items()), ('relative', 0))
        self.value = check_non_negative('min_std', value)

    def floor(self, teacher_logits: Tensor) -> float | Tensor | None:
        """What :func:`mmrkkd.ops.standardize` gets.

        Args:
            teacher_logits: (N, C).

        Returns:
            The number, one for each sample, (N,), or None for none.
        """
        if not self.value:
            return None
        if self.kind == 'absolute':
            return self.value
        return self.value * deviation(teacher_logits)

    def __bool__(self) -> bool:
        return self.value > 0

    def __str__(self) -> str:
        kind = 'absolute ' if self.kind == 'absolute' else ''
        return f'{kind}{self.value:g}'
