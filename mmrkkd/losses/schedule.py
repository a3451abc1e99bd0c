"""Weights that change while a run goes on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from mmrkkd.ops.checks import check_choice, check_non_negative

UNITS = ('epoch', 'iteration')


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        epoch: The epoch in progress, counted from 1; in a run by iterations
            the pass over the training data. None where it is not known.
            Defaults to 1.
        iteration: The iteration in progress, counted from 1. Defaults to 1.
    """

    epoch: int | None = 1
    iteration: int = 1


class Schedule(ABC):
    """A number >= 0 that may depend on the progress of the run.

    Subclasses implement :meth:`__call__`, and ``__format__`` by way of
    ``__str__`` for the log.
    """

    @abstractmethod
    def __call__(self, progress: Progress) -> float:
        """The value at this point of the run."""

    def __format__(self, spec: str) -> str:
        return str(self)


class Constant(Schedule):
    """The same number at all times.

    Args:
        value: >= 0.
    """

    def __init__(self, value: float) -> None:
        self.value = check_non_negative('value', value)

    def __call__(self, progress: Progress) -> float:
        """See :class:`Schedule`."""
        return self.value

    def __str__(self) -> str:
        return f'{self.value:g}'


class _Timed(Schedule):
    def __init__(self, by: str) -> None:
        check_choice('by', by, UNITS)
        self.by = by

    def now(self, progress: Progress) -> int:
        time = getattr(progress, self.by)
        if time is None:
            raise ValueError(
                "by='epoch' needs to know how many iterations are an epoch, "
                f'and nobody tells in this run by iterations, got {self}: '
                "give by='iteration' and its times in iterations (in place "
                "of a default too, such as CTKDLoss's ramp), or add "
                "dict(type='mmrkkd.RunStateHook') to custom_hooks, which "
                'tells it'
            )
        return time


class _Ramp(_Timed):
    """From ``start`` to ``stop`` between the times ``begin`` and ``end``."""

    def __init__(
        self,
        end: int,
        start: float = 0.0,
        stop: float = 1.0,
        begin: int = 0,
        by: str = 'epoch',
    ) -> None:
        super().__init__(by)
        self.start = check_non_negative('start', start)
        self.stop = check_non_negative('stop', stop)
        if not 0 <= begin < end < math.inf:
            raise ValueError(
                'a ramp needs finite 0 <= begin < end, got '
                f'begin={begin!r}, end={end!r}'
            )
        self.begin, self.end = begin, end

    def __call__(self, progress: Progress) -> float:
        """See :class:`Schedule`."""
        share = (self.now(progress) - self.begin) / (self.end - self.begin)
        share = self.curve(min(max(share, 0.0), 1.0))
        return self.start + (self.stop - self.start) * share

    @abstractmethod
    def curve(self, share: float) -> float:
        """Share of the time to share of the way, both in [0, 1]."""

    def __str__(self) -> str:
        return (
            f'{type(self).__name__.lower()} {self.start:g} to {self.stop:g} '
            f'from {self.by} {self.begin} to {self.end}'
        )


class Linear(_Ramp):
    """A straight ramp; DKD's warm-up is ``Linear(end=20)``."""

    def curve(self, share: float) -> float:
        """Share of the time to share of the way."""
        return share


class Cosine(_Ramp):
    """Half a cosine wave; CTKD's ramp is ``Cosine(end=10)``."""

    def curve(self, share: float) -> float:
        """Share of the time to share of the way."""
        return (1 - math.cos(math.pi * share)) / 2


class Step(_Timed):
    """``start``, multiplied by ``gamma`` after each milestone.

    Args:
        milestones: Increasing; a milestone m has passed when m epochs (or
            iterations) are finished.
        start: Value before the first one. Defaults to 1.0.
        gamma: >= 0. Defaults to 0.1.
        by: 'epoch' or 'iteration'. Defaults to 'epoch'.
    """

    def __init__(
        self,
        milestones: Sequence[int],
        start: float = 1.0,
        gamma: float = 0.1,
        by: str = 'epoch',
    ) -> None:
        super().__init__(by)
        self.milestones = _increasing(milestones)
        self.start = check_non_negative('start', start)
        self.gamma = check_non_negative('gamma', gamma)

    def __call__(self, progress: Progress) -> float:
        """See :class:`Schedule`."""
        passed = sum(self.now(progress) > time for time in self.milestones)
        return self.start * self.gamma**passed

    def __str__(self) -> str:
        return (
            f'{self.start:g} times {self.gamma:g} after each {self.by} of '
            f'{list(self.milestones)}'
        )


class Steps(_Timed):
    """One value after the other, from each milestone to the next.

    Args:
        values: >= 0, the first one from the start.
        milestones: One fewer, increasing; see :class:`Step`.
        by: 'epoch' or 'iteration'. Defaults to 'epoch'.
    """

    def __init__(
        self,
        values: Sequence[float],
        milestones: Sequence[int],
        by: str = 'epoch',
    ) -> None:
        super().__init__(by)
        self.milestones = _increasing(milestones)
        self.values = tuple(check_non_negative('a value', v) for v in values)
        if len(self.values) != len(self.milestones) + 1:
            raise ValueError(
                'there must be one value more than milestones, got values='
                f'{list(values)}, milestones={list(milestones)}'
            )

    def __call__(self, progress: Progress) -> float:
        """See :class:`Schedule`."""
        passed = sum(self.now(progress) > time for time in self.milestones)
        return self.values[passed]

    def __str__(self) -> str:
        values = ', '.join(f'{value:g}' for value in self.values)
        return f'{values}, the next after {self.by} {list(self.milestones)}'


def _increasing(milestones: Sequence[int]) -> tuple[int, ...]:
    for milestone in milestones:
        check_non_negative('a milestone', milestone)
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(f'milestones must increase, got {list(milestones)}')
    return tuple(milestones)


KINDS = dict(linear=Linear, cosine=Cosine, step=Step, steps=Steps)


def build_schedule(name: str, value: float | dict | Schedule) -> Schedule:
    """Builds a weight from what a config states.

    ::

        0.9
        dict(type='linear', end=20)  # 0 to 1
        dict(type='cosine', start=0.1, stop=0.9, end=10)
        dict(type='step', start=0.9, milestones=[150, 180], gamma=0.1)
        dict(type='steps', values=[0.1, 0.5, 1], milestones=[10, 20])
        dict(type='linear', end=1000, by='iteration')

    Epochs and iterations are counted from 1: a linear ramp with ``end=20``
    is at 1/20 during the first epoch and at 1 from the 20th on. In a run by
    iterations an epoch is one pass over the training data, which
    ``RunStateHook`` tells; where nobody does, the first step refuses a
    schedule by epoch.

    Args:
        name: The argument's name, for the messages.
        value: A number >= 0, a dict with ``type``, or a schedule.

    Returns:
        The schedule.

    Raises:
        ValueError: the number, the type or an option is not usable.
    """
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, dict):
        return Constant(check_non_negative(name, value))
    options = dict(value)
    kind = options.pop('type', None)
    check_choice(f'{name}.type', kind, tuple(KINDS))
    try:
        return KINDS[kind](**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{name}={value}: {error}') from error
