"""Does a teacher in a reduced precision still say the same?"""

from collections.abc import Sequence
from math import isnan, nan
from typing import NamedTuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from ..readers import Match
from ..telemetry import ROWS_PER_STEP, agreement, rows_looked_at

# What a reduced precision may cost: an error of r = 5 % of the spread of a
# row's logits. Of normal ones it takes (2 / pi) r = 0.03 off a tau of 1, and
# with a spread of 1.5 gives a KL of (1.5 r)**2 / 2 = 0.003. That is far below
# what is left between a student and its teacher when training ends, a tau of
# 0.5 to 0.9 and a KL of 0.05 to 1.
MIN_TAU = 0.97
MIN_SAME_CLASS = 0.98
MAX_KL = 3e-3
# Asked once a run: tau of 67 rows of 1000 classes, which takes one core 25 ms,
# and of one row from 5793 classes on (of 21841, 75 ms).
PAIRS = 2**26


class Agreement(NamedTuple):
    """How well the logits of a fast teacher agree with the float32 ones.

    Args:
        rows: How many rows class and KL are of, in the match with the
            fewest.
        tau: Mean Kendall tau-b of a row, in [-1, 1].
        same_class: Share of the rows with the same highest class.
        kl: Mean KL(float32 || fast) of a row, in nats.
        rows_of_tau: How many of the rows tau is of, fewer where classes are
            many. Defaults to None, all.
    """

    rows: int
    tau: float
    same_class: float
    kl: float
    rows_of_tau: int | None = None

    @property
    def good(self) -> bool:
        """Whether it is within the limits; NaN is not.

        One row may have another class, however few there are.
        """
        changed = (1 - self.same_class) * self.rows
        return (
            self.tau >= MIN_TAU
            and changed <= max(1.0, (1 - MIN_SAME_CLASS) * self.rows) + 1e-3
            and self.kl <= MAX_KL
        )

    def __str__(self) -> str:
        fewer = self.rows_of_tau not in (None, self.rows)
        of_tau = f', tau on {self.rows_of_tau} of them' if fewer else ''
        return (
            f'tau {self.tau:.4f} (at least {MIN_TAU}), same class '
            f'{self.same_class:.4f} (at least {MIN_SAME_CLASS}), KL '
            f'{self.kl:.1e} (at most {MAX_KL:.0e}) on {self.rows} rows{of_tau}'
        )


def compare(
    exact: Sequence[Match], fast: Sequence[Match], activation: str
) -> Agreement:
    """Compares the teacher's logits in two readings of one batch.

    Args:
        exact: With the float32 teacher.
        fast: With the other one.
        activation: Of the logits, 'softmax' or 'sigmoid'.

    Returns:
        The worst of the matches of this process; see :func:`everywhere`.
    """
    found = [
        _agreement(one, other.teacher_logits, activation)
        for one, other in zip(exact, fast, strict=True)
        if len(one.teacher_logits)
    ]
    lowest = [
        _least(values)
        for values in zip(
            *(_higher_is_better(each) for each in found),
            strict=True,
        )
    ]
    return _from_least(lowest)


def everywhere(found: Agreement | None) -> Agreement | None:
    """The worst of the processes that train together: all decide alike.

    Args:
        found: Of this process; None where it could not even compute.

    Returns:
        None where any of them could not.
    """
    values = [0.0] * 6
    if found is not None:
        values = [1.0, *_higher_is_better(found)]
    works, *lowest = least_of_all(*values)
    return _from_least(lowest) if works else None


def _higher_is_better(found: Agreement) -> tuple[float, ...]:
    """In numbers of which the least is the worst."""
    of_tau = found.rows if found.rows_of_tau is None else found.rows_of_tau
    return found.rows, found.tau, found.same_class, -found.kl, of_tau


def _from_least(lowest: Sequence[float]) -> Agreement:
    rows, tau, same_class, low_kl, of_tau = lowest
    return Agreement(int(rows), tau, same_class, -low_kl, int(of_tau))


def _least(values: Sequence[float]) -> float:
    """NaN is less than everything."""
    return nan if any(map(isnan, values)) else min(values)


def least_of_all(*values: float) -> list[float]:
    """The least of each value among the processes that train together.

    NaN is less than everything, and stays NaN.
    """
    lowest = -torch.finfo(torch.float64).max
    least = torch.tensor(
        [lowest if isnan(value) else value for value in values],
        dtype=torch.float64,
    )
    all_reduce(least, 'min')
    return [nan if value == lowest else value for value in least.tolist()]


def _agreement(exact: Match, fast: Tensor, activation: str) -> Agreement:
    logits = exact.teacher_logits
    if fast.shape != logits.shape:
        # It is sure of other samples.
        return Agreement(len(logits), nan, nan, nan)
    if exact.confidence is not None:
        # Of cells, those that a teacher is sure of: the others are
        # background, and the order of their classes is noise.
        rows = min(ROWS_PER_STEP, len(logits))
        kept = exact.confidence.flatten().topk(rows).indices
        logits, fast = logits[kept], fast[kept]
    values = agreement(fast, logits, activation=activation, pairs=PAIRS)
    rows, of_tau = rows_looked_at(
        logits.shape[:-1].numel(), logits.shape[-1], PAIRS
    )
    nothing = torch.ones(())
    return Agreement(
        rows,
        float(values.get('kd/tau', nothing)),
        float(values.get('kd/top1_agreement', nothing)),
        float(values['kd/kl']),
        of_tau,
    )
