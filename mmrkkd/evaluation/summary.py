"""From results of single runs to rows of a table."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass
class Bootstrap:
    """Scores of one run on samples of the images.

    Args:
        whole: (M, ), each metric on all images.
        samples: (B, M), the same on each sample.
        images: How many images there are.
    """

    whole: np.ndarray
    samples: np.ndarray
    images: int


def spread(values: Iterable[float]) -> dict:
    """``mean``, ``std`` (sample, None below two values) and ``values``."""
    values = list(values)
    return dict(
        mean=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        values=values,
    )


def quantile(degrees: int) -> float:
    """How many standard errors chance may do, by Student's t.

    Args:
        degrees: Of freedom, n >= 1.
    """
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


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
        the differences over sqrt(n), and ``half_width`` of the 95 %
        interval by Student's t, both None for one seed. None itself where
        no seed is common.
    """
    seeds = _in_order(set(values) & set(baseline))
    if not seeds:
        return None
    each = {seed: values[seed] - baseline[seed] for seed in seeds}
    result = dict(
        mean=statistics.fmean(each.values()),
        by_seed=each,
        standard_error=None,
        half_width=None,
    )
    if len(seeds) > 1:
        error = statistics.stdev(each.values()) / math.sqrt(len(seeds))
        result['standard_error'] = error
        result['half_width'] = quantile(len(seeds) - 1) * error
    return result


def over_images(
    runs: dict[int, Bootstrap], baseline: dict[int, Bootstrap]
) -> dict | None:
    """The difference to a baseline, with what the choice of images does.

    The runs are what they are; only the images are drawn again, the same
    for all. What other seeds would have done is :func:`paired`'s to say.
    The samples give the width of the interval alone: AP is higher on
    images of which some are there twice, and so are its percentiles.

    Args:
        runs: Seed to scores.
        baseline: Seed to scores on the same samples.

    Returns:
        ``mean`` over the common seeds, ``standard_error``, ``low`` and
        ``high`` of the 95 % interval, 1.96 standard errors on either side,
        each a list by metric, and ``images``, ``samples``, ``seeds``. None
        where no seed is common.
    """
    seeds = _in_order(set(runs) & set(baseline))
    if not seeds:
        return None
    whole = [runs[s].whole - baseline[s].whole for s in seeds]
    samples = np.mean(
        [runs[s].samples - baseline[s].samples for s in seeds], axis=0
    )
    mean, error = np.mean(whole, axis=0), np.std(samples, axis=0, ddof=1)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    return dict(
        mean=mean.tolist(),
        standard_error=error.tolist(),
        low=(mean - half).tolist(),
        high=(mean + half).tolist(),
        images=int(runs[seeds[0]].images),
        samples=len(samples),
        seeds=seeds,
    )


def summarize(
    labels: Sequence[str],
    results: Sequence[dict],
    baseline: str,
    bootstraps: dict[tuple[str, int], Bootstrap] | None = None,
) -> list[dict]:
    """One row a method, in the order of the labels.

    Args:
        labels: The methods.
        results: Those of the finished cells.
        baseline: Label of the method that the others are compared with.
        bootstraps: (label, seed) to scores on samples of the images.
            Defaults to none.

    Returns:
        Dicts with ``label``, ``seeds``, ``last``, ``best``, ``tau``,
        ``top1_agreement``, ``kl``, ``seconds``, ``processor_seconds`` (see
        :func:`spread`), ``scores`` (log key to spread), ``difference`` (see
        :func:`paired`), ``over_images`` (see :func:`over_images`; both None
        for the baseline) and ``gradient_shares`` (term to mean).
    """
    runs = {
        label: {r['seed']: r for r in results if r['label'] == label}
        for label in labels
    }
    samples = {label: {} for label in labels}
    for (label, seed), bootstrap in (bootstraps or {}).items():
        samples[label][seed] = bootstrap
    rows = []
    for label in labels:
        row = _row(label, runs[label])
        row['difference'] = row['over_images'] = None
        if label != baseline:
            row['difference'] = paired(
                _last(runs[label]), _last(runs[baseline])
            )
            row['over_images'] = over_images(samples[label], samples[baseline])
        rows.append(row)
    return rows


def _row(label: str, runs: dict[int, dict]) -> dict:
    row = dict(label=label, seeds=_in_order(runs))
    runs = [runs[seed] for seed in row['seeds']]
    for name in ('last', 'best', 'seconds', 'processor_seconds'):
        row[name] = spread(_known(name, runs))
    for name in ('tau', 'top1_agreement', 'kl'):
        row[name] = spread(_known(name, [run['agreement'] for run in runs]))
    row['scores'] = _spreads([run.get('scores', {}) for run in runs])
    shares = _spreads([run['gradient_shares'] for run in runs])
    row['gradient_shares'] = {t: share['mean'] for t, share in shares.items()}
    return row


def _in_order(seeds: Iterable[int | None]) -> list[int | None]:
    """A run without a seed, None, is first."""
    return sorted(seeds, key=lambda seed: (seed is not None, seed))


def _spreads(parts: list[dict]) -> dict[str, dict]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: spread(_known(name, parts)) for name in names}


def _known(name: str, parts: list[dict]) -> list[float]:
    return [part[name] for part in parts if part.get(name) is not None]


def _last(runs: dict[int, dict]) -> dict[int, float]:
    return {seed: run['last'] for seed, run in runs.items()}
