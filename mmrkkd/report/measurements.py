"""What the log of a training says about it."""

from math import isnan
from pathlib import Path

from .logs import log_files, read_log, validations

GRADIENT_SHARE = 'kd/grad_share_'
# MMDetection logs none of these of a model that finds nothing.
DETECTION = 'coco/'
AP, AP50 = 'coco/bbox_mAP', 'coco/bbox_mAP_50'
TIMES = ('step', 'epoch', 'time', 'data_time')


def scores(log: list[dict], metric: str) -> list[tuple[int, float]]:
    """A metric by validation.

    Args:
        log: See :func:`read_log`.
        metric: A log key. One of MMDetection's is 0 in a validation that
            has found nothing.

    Returns:
        (epoch or iteration, value); empty if it was never logged.
    """
    entries = validations(log)
    known = any(metric in entry for entry in entries) or all(
        set(entry) <= set(TIMES) for entry in entries
    )
    found = []
    for entry in entries:
        value = entry.get(metric)
        nothing = not any(key.startswith(DETECTION) for key in entry)
        if nothing and known and metric.startswith(DETECTION):
            value = 0.0
        if value is not None:
            found.append((entry.get('step', 0), value))
    return found


def measurements(folder: Path, metric: str) -> dict:
    """What a training's log says about it.

    Args:
        folder: The work directory.
        metric: Log key of the validation, larger being better.

    Returns:
        ``metric``, ``last``, ``best``, ``best_epoch``, ``epochs``,
        ``scores`` (all of the last validation, by log key) and
        ``gradient_shares`` (term to mean share, where logged).

    Raises:
        ValueError: the metric was never logged.
    """
    log = read_log(log_files(folder))
    series = scores(log, metric)
    if not series:
        logged = sorted({key for entry in log for key in entry})
        raise ValueError(
            f'{folder}: no {metric!r} in the log. Name the validation '
            f'metric with --metric; logged were {", ".join(logged)}'
        )
    last = validations(log)[-1]
    if metric.startswith(DETECTION) and metric not in last:
        # Nothing found: a mean over seeds must not leave it out.
        last = {metric: 0.0, AP: 0.0, AP50: 0.0}
    best = max(series, key=lambda point: point[1])
    shares = sorted({k for e in log for k in e if GRADIENT_SHARE in k})
    return dict(
        metric=metric,
        last=series[-1][1],
        best=best[1],
        best_epoch=best[0],
        epochs=series[-1][0],
        scores={
            # JSON knows no NaN, which a class without an object has.
            key: None if isinstance(value, float) and isnan(value) else value
            for key, value in last.items()
            if key not in TIMES
        },
        gradient_shares={
            key.replace(GRADIENT_SHARE, ''): _mean(log, key) for key in shares
        },
    )


def _mean(log: list[dict], key: str) -> float:
    values = [entry[key] for entry in log if key in entry]
    return sum(values) / len(values)
