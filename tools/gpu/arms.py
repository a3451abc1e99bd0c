"""The methods that ``evidence.py`` knows by name."""

from collections.abc import Sequence
from pathlib import Path

from experiments import ExperimentError
from experiments.methods import Method, parse_methods

ALONE = 'alone'
LOSSES = 'model.losses.'
# Label to the method's config and what is changed in it.
ARMS = {
    ALONE: ('', {}),
    'kd': ('kd', {}),
    'kd2': ('kd', {'loss_weight': 2.0}),
    'kd4': ('kd', {'loss_weight': 4.0}),
    'rkkd': ('rkkd', {}),
    'rkkd-k4': ('rkkd', {'steepness': 4.0}),
    'rkkd-g2-k4': ('rkkd', {'steepness': 4.0, 'rank_weight': 2.0}),
    'rkkd2-k4': (
        'rkkd',
        {'steepness': 4.0, 'rank_weight': 2.0, 'kd_weight': 2.0},
    ),
    'kd-giou': ('kd-giou', {}),
    'rkkd-giou': ('rkkd-giou', {}),
    'rank-k4': ('rank', {'steepness': 4.0}),
    'dkd': ('dkd', {}),
    'dkd-rk': ('dkd-rk', {}),
    'lra': ('lra', {}),
    'crosskd': ('crosskd', {}),
    'crosskd-rk': ('crosskd-rk', {}),
    'crosskd-rk-k4': ('crosskd-rk', {'steepness': 4.0}),
    'crosskd-ld': ('crosskd-ld', {}),
    'crosskd-rk-ld': ('crosskd-rk-ld', {}),
    'kd-ld': ('kd-ld', {}),
    'fgfi': ('fgfi', {}),
    'reviewkd': ('reviewkd', {}),
}
# Detector and stage to what is trained by default.
DEFAULT_ARMS = {
    'faster-rcnn': dict(
        choose=(
            ALONE,
            'kd',
            'kd2',
            'kd4',
            'rkkd',
            'rkkd-k4',
            'rkkd-g2-k4',
            'dkd',
            'lra',
            'kd-giou',
        ),
        final=(ALONE, 'kd', 'rkkd', 'kd-giou'),
    ),
    'gfl': dict(
        choose=(
            ALONE,
            'kd',
            'kd2',
            'rkkd',
            'crosskd',
            'crosskd-rk',
            'crosskd-rk-k4',
            'crosskd-ld',
            'kd-ld',
        ),
        final=(ALONE, 'crosskd', 'crosskd-ld', 'crosskd-rk-ld'),
    ),
}
CLASSES_ARMS = ('kd', 'rkkd', 'rkkd-k4', 'dkd', 'lra')


def methods_of(
    arms: Sequence[str], folder: Path, names: dict[str, str]
) -> list[Method]:
    """The methods that the command line names.

    Args:
        arms: Names of :data:`ARMS`, or ``LABEL=METHOD:KEY=VALUE,...``: a
            method's config by its first word, and settings of its loss.
        folder: Where the configs are.
        names: File names: 'alone', and 'others' with {} for the method.

    Raises:
        ExperimentError: there is no such arm or config.
    """
    methods = []
    for arm in arms:
        label, _, rest = arm.partition('=')
        if rest:
            prefix, _, changes = rest.partition(':')
        elif arm in ARMS:
            prefix, changes = ARMS[arm]
        else:
            raise ExperimentError(
                f'--arms must be of {list(ARMS)}, or LABEL=METHOD:KEY=VALUE, '
                f'got {arm!r}'
            )
        name = names['others'].format(prefix) if prefix else names['alone']
        if not (folder / name).is_file():
            raise ExperimentError(
                f'--arms: {arm!r} has no config {name}; METHOD must be of '
                f'{_known(folder, names["others"])}'
            )
        if isinstance(changes, str):
            spec = f'{label}={folder / name}:{changes}'
            (method,), _ = parse_methods([spec])
            changes = method.options
        changes = {f'{LOSSES}{key}': value for key, value in changes.items()}
        methods.append(Method(label, folder / name, changes))
    return methods


def _known(folder: Path, name: str) -> list[str]:
    """The methods that have a config.

    Args:
        folder: Where the configs are.
        name: Their file name, with {} for the method.
    """
    before, _, after = name.partition('{}')
    return sorted(
        path.name[len(before) : -len(after)]
        for path in folder.glob(name.format('*'))
    )
