"""Which curves of runs are shown, and their points."""

from collections.abc import Sequence
from math import isfinite

from .curves import Curve, Series, band
from .logs import points_of, validations
from .measurements import TIMES, scores
from .training_run import Run

# As many points of a curve are kept: what a panel can show.
MOST_POINTS = 400
VALIDATION, LOSSES, AGREEMENT = (
    'Validation',
    'Losses',
    'Agreement with the teacher and gradients',
)
# AP class by class, in MMDetection's logs.
CLASSWISE = '_precision'
TITLES = {
    'loss': 'Total loss',
    'kd/tau': 'Kendall tau to the teacher',
    'kd/kl': 'KL divergence from the teacher',
    'kd/top1_agreement': 'Same first class as the teacher',
    'kd/grad_share_': 'Share of the gradient: ',
    'coco/bbox_mAP': 'AP',
    'accuracy/top1': 'Accuracy (top 1)',
    'accuracy/top5': 'Accuracy (top 5)',
}


def title_of(key: str) -> str:
    """What a log key is called above its panel."""
    if key in TITLES:
        return TITLES[key]
    for start in ('kd/grad_share_', 'coco/bbox_mAP'):
        if key.startswith(start):
            return TITLES[start] + key.removeprefix(start).replace('_', ' ')
    return key


def panels(runs: Sequence[Run]) -> dict[str, list[Curve]]:
    """Group to panels, of what the runs have logged.

    Args:
        runs: The runs.
    """
    training, validated = {}, {}
    for run in runs:
        for entry in run.log:
            (training if 'iter' in entry else validated).update(entry)
    agreement = sorted(key for key in training if 'kd/' in key)
    losses = sorted(
        (key for key in training if 'loss' in key and key not in agreement),
        key=lambda key: (key != 'loss', key),
    )
    metrics = sorted(
        key
        for key, value in validated.items()
        # -1 is COCO's word for no objects at all.
        if key not in TIMES and not key.endswith(CLASSWISE) and value != -1
    )
    found = {
        group: [Curve(title_of(key), (key,)) for key in keys]
        for group, keys in (
            (VALIDATION, metrics),
            (LOSSES, losses),
            (AGREEMENT, agreement),
        )
    }
    return {group: curves for group, curves in found.items() if curves}


def unit(runs: Sequence[Run], group: str) -> str:
    """What the time of a group's panels counts.

    A training by epochs logs its validations under the epoch.
    """
    by_epoch = all(run.config.train_cfg.get('max_epochs') for run in runs)
    return 'epoch' if group == VALIDATION and by_epoch else 'iteration'


def series(run: Run, keys: Sequence[str]) -> dict[str, Series]:
    """The points of a run, by log key."""
    metrics = {key for entry in validations(run.log) for key in entry}
    return {
        key: scores(run.log, key)
        if key in metrics
        else points_of(run.log, key)
        for key in keys
    }


def thinned(points: Sequence[tuple], limit: int = MOST_POINTS) -> list[tuple]:
    """Means of neighbours, so that there are no more than so many.

    Args:
        points: Tuples of numbers.
        limit: How many at most. Defaults to ``MOST_POINTS``.
    """
    size = -(-len(points) // limit)
    parts = [points[i : i + size] for i in range(0, len(points), size or 1)]
    return [
        tuple(sum(column) / len(part) for column in zip(*part, strict=True))
        for part in parts
    ]


def as_data(
    runs: dict[str, Sequence[dict[str, Series]]],
    groups: dict[str, Sequence[Curve]],
    units: dict[str, str],
) -> list[dict]:
    """What the page gets: a dict for each panel.

    Args:
        runs: Label to the points of each seed, by log key.
        groups: See :func:`panels`.
        units: Group to the unit of time.
    """
    data = []
    for group, curves in groups.items():
        for curve in curves:
            lines = []
            for label, seeds in runs.items():
                (key,) = curve.keys
                points = thinned(band([seed.get(key, ()) for seed in seeds]))
                if points:
                    columns = zip(*points, strict=True)
                    rounded = [list(map(_short, column)) for column in columns]
                    lines.append([label, *rounded])
            data.append(
                dict(
                    group=group,
                    title=curve.title,
                    unit=units[group],
                    lines=lines,
                )
            )
    return data


def _short(value: float) -> float | None:
    """Five digits; JSON knows no NaN, and a curve has a gap there."""
    return float(f'{value:.5g}') if isfinite(value) else None
