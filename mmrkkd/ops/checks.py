"""Checks of what a caller passes, each fact and each message once."""

import inspect
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from numbers import Real

from torch import Tensor

LARGEST = 1e18


def check_logits(
    student_logits: Tensor, teacher_logits: Tensor, min_classes: int = 2
) -> None:
    """Refuses logits that cannot be compared.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        min_classes: The fewest classes that make sense. Defaults to 2.

    Raises:
        TypeError: one is not a floating point tensor.
        ValueError: shapes or devices differ, or there are fewer classes in
            the last dimension.
    """
    for name, value in (
        ('student_logits', student_logits),
        ('teacher_logits', teacher_logits),
    ):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = getattr(value, 'dtype', type(value).__name__)
            raise TypeError(
                f'{name} must be a floating point tensor, got {kind}'
            )
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            'student_logits and teacher_logits must have the same shape, got '
            f'{tuple(student_logits.shape)} and '
            f'{tuple(teacher_logits.shape)}; if the models know different '
            'classes, select the shared ones first'
        )
    if student_logits.device != teacher_logits.device:
        raise ValueError(
            'student_logits and teacher_logits must be on the same device, '
            f'got {student_logits.device} and {teacher_logits.device}'
        )
    if student_logits.dim() == 0 or student_logits.shape[-1] < min_classes:
        raise ValueError(
            f'logits need at least {min_classes} classes in the last '
            f'dimension, got shape {tuple(student_logits.shape)}'
        )


def at_hand(values: Tensor) -> bool:
    """Whether values can be looked at without waiting for a device.

    Checks of values ask first: on a GPU a training step would have to wait
    for all that was queued before.
    """
    return values.device.type == 'cpu'


def check_positive(name: str, value: float) -> float:
    """Returns value as a float if it is a finite number > 0."""
    return _checked_number(name, value, '> 0', allow_zero=False)


def check_non_negative(name: str, value: float) -> float:
    """Returns value as a float if it is a finite number >= 0."""
    return _checked_number(name, value, '>= 0', allow_zero=True)


def _checked_number(
    name: str, value: float, rule: str, allow_zero: bool
) -> float:
    # NumPy's are numbers too.
    is_number = isinstance(value, (int, float, Real))
    is_number = is_number and not isinstance(value, bool)
    # math.isfinite would break the graph of torch.compile.
    if (
        not is_number
        or not 0 <= value < math.inf
        or (value == 0 and not allow_zero)
    ):
        raise ValueError(
            f'{name} must be a finite number {rule}, got {value!r}'
        )
    if value > LARGEST:
        raise ValueError(
            f'{name} must be at most {LARGEST:g}, whose square float32 still '
            f'holds, got {value!r}'
        )
    return float(value)


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Refuses a value that is not among the choices."""
    # True == 1, but nobody means form=True.
    if isinstance(value, bool) or value not in choices:
        raise ValueError(f'{name} must be one of {choices}, got {value!r}')


def check_flag(name: str, value: bool) -> bool:
    """Returns value if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f'{name} must be True or False, got {value!r}')
    return value


def check_options(
    owner: str, called: Callable, options: Iterable[str]
) -> None:
    """Refuses options that a class or a function does not take.

    Args:
        owner: What the options belong to, for the message.
        called: The class or the function.
        options: Their names.

    Raises:
        TypeError: it has no option of that name; the message suggests the
            nearest one and lists all.
    """
    parameters = inspect.signature(called).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            raise TypeError(
                f'{owner} has no option {name!r}'
                f'{nearest_name(name, parameters)} Its options: '
                f'{", ".join(parameters)}'
            )


def nearest_name(name: str, names: Iterable[str]) -> str:
    """': did you mean ...?' where a name is near, else '.'."""
    by_lower_case = {known.lower(): known for known in names}
    name = str(name).lower()
    near = [known for known in by_lower_case if known.startswith(name)]
    near = near or get_close_matches(name, by_lower_case, n=1)
    return f': did you mean {by_lower_case[near[0]]!r}?' if near else '.'
