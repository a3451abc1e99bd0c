"""From results of single runs to rows of a table."""

import math
from collections.abc import Iterable, Sequence

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T_QUANTILES = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None below two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    squares = sum((value - centre) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1))


def spread(values: Iterable[float]) -> dict:
    """``mean``, ``std`` (sample) and ``values``."""
    values = list(values)
    return dict(mean=mean(values), std=deviation(values), values=values)


def paired(
    values: dict[int, float], baseline: dict[int, float]
) -> dict | None:
    """The difference to a baseline, seed by seed.

    Runs of one seed share the order of the data, so their difference varies
    less than the difference of two means.

    Args:
        values: Seed to value.
        baseline: Seed to value.

    Returns:
        ``mean``; ``by_seed``; ``standard_error``, the sample deviation of
        the differences over sqrt(n), None for one seed; ``half_width`` of
        the 95 % interval by Student's t, None for one or above ten seeds.
        None itself where no seed is common.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        return None
    each = {seed: values[seed] - baseline[seed] for seed in seeds}
    result = dict(
        mean=mean(list(each.values())),
        by_seed=each,
        standard_error=None,
        half_width=None,
    )
    if len(seeds) > 1:
        error = deviation(list(each.values())) / math.sqrt(len(seeds))
        result['standard_error'] = error
        if len(seeds) - 1 in T_QUANTILES:
            result['half_width'] = T_QUANTILES[len(seeds) - 1] * error
    return result


def summarize(
    labels: Sequence[str], results: Sequence[dict], baseline: str
) -> list[dict]:
    """One row a method, in the order of the labels.

    Args:
        labels: The methods.
        results: Those of the finished cells.
        baseline: Label of the method that the others are compared with.

    Returns:
        Dicts with ``label``, ``seeds``, ``last``, ``best``, ``tau``,
        ``top1_agreement``, ``kl``, ``seconds``, ``processor_seconds`` (see
        :func:`spread`), ``difference`` (see :func:`paired`; None for the
        baseline) and ``gradient_shares`` (term to mean).
    """
    by_label = {
        label: {r['seed']: r for r in results if r['label'] == label}
        for label in labels
    }
    return [
        _row(label, by_label[label], by_label[baseline], label == baseline)
        for label in labels
    ]


def _row(label: str, runs: dict, reference: dict, is_baseline: bool) -> dict:
    row = dict(label=label, seeds=sorted(runs))
    runs = {seed: runs[seed] for seed in row['seeds']}
    for name in ('last', 'best', 'seconds', 'processor_seconds'):
        row[name] = spread(run[name] for run in runs.values())
    for name in ('tau', 'top1_agreement', 'kl'):
        row[name] = spread(
            run['agreement'][name]
            for run in runs.values()
            if name in run['agreement']
        )
    row['difference'] = (
        None if is_baseline else paired(_last(runs), _last(reference))
    )
    shares = {}
    for run in runs.values():
        for term, value in run['gradient_shares'].items():
            shares.setdefault(term, []).append(value)
    row['gradient_shares'] = {t: mean(v) for t, v in shares.items()}
    return row


def _last(runs: dict) -> dict[int, float]:
    return {seed: run['last'] for seed, run in runs.items()}
