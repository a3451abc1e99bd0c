"""What MMEngine logged during a run."""

import json
from collections.abc import Iterable
from pathlib import Path

Points = list[tuple[int, float]]


def log_files(folder: str | Path) -> list[Path]:
    """The logs in a work directory, one an attempt, in their order."""
    return sorted(Path(folder).glob('*/vis_data/scalars.json'))


def read_log(files: Iterable[Path]) -> list[dict]:
    """The entries of a run, over all its interruptions.

    What was done twice counts once, as the later attempt logged it.

    Args:
        files: MMEngine's ``vis_data/scalars.json``, one object a line, in
            the order in which they were written. A last line that was cut
            off is left out.

    Returns:
        Entries in the order of their steps, those of training before those
        of validation.
    """
    training, validation = {}, {}
    for path in files:
        for entry in filter(None, _entries(path)):
            kind = training if 'iter' in entry else validation
            kind[entry.get('step', 0)] = entry
    return [
        kind[step] for kind in (training, validation) for step in sorted(kind)
    ]


def log_faults(files: Iterable[Path]) -> list[str]:
    """What of some logs cannot be read, a sentence for each such file.

    Args:
        files: See :func:`read_log`. A last line that was cut off is no
            fault where there are others.
    """
    faults = []
    for path in files:
        entries = _entries(path)
        bad = sum(entry is None for entry in entries[:-1])
        if not any(entries):
            faults.append(f'{path} holds no entry that can be read')
        elif bad:
            faults.append(
                f'{path}: {bad} of {len(entries)} lines cannot be read'
            )
    return faults


def _entries(path: Path) -> list[dict | None]:
    """What stands on each line; None where it is no entry."""
    entries = []
    for line in path.read_text(encoding='utf-8', errors='replace').split('\n'):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if line.strip():
            entries.append(entry if isinstance(entry, dict) else None)
    return entries


def validations(log: Iterable[dict]) -> list[dict]:
    """The entries that a validation left."""
    return [entry for entry in log if 'iter' not in entry]


def points_of(log: Iterable[dict], key: str) -> Points:
    """(step, value) of every entry that has the key."""
    return [
        (entry.get('step', 0), entry[key])
        for entry in log
        if isinstance(entry.get(key), (int, float))
    ]


def means_of(log: Iterable[dict], key: str) -> Points:
    """One value by epoch, the mean of what was logged during it.

    Args:
        log: See :func:`read_log`.
        key: A log key.

    Returns:
        (epoch, value), by iteration where the run has no epochs.
    """
    values = {}
    for entry in log:
        if isinstance(entry.get(key), (int, float)):
            time = entry.get('epoch', entry.get('step'))
            values.setdefault(time, []).append(entry[key])
    return [(time, sum(v) / len(v)) for time, v in sorted(values.items())]
