"""What MMEngine logged during a run."""

import json
from collections.abc import Iterable
from math import inf
from pathlib import Path

Points = list[tuple[int, float]]


def log_files(folder: str | Path) -> list[Path]:
    """The logs in a work directory, one an attempt, in their order."""
    return sorted(Path(folder).glob('*/vis_data/scalars.json'))


def read_log(files: Iterable[Path]) -> list[dict]:
    """The entries of a run, over all its interruptions.

    What was done twice counts once, as the later attempt logged it: where
    one begins at a step, all that earlier ones logged from there on is left
    out.

    Args:
        files: MMEngine's ``vis_data/scalars.json``, one object a line, in
            the order in which they were written. A last line that was cut
            off is left out.

    Returns:
        Entries in the order of their steps, those of training before those
        of validation. A validation at step 0 has the step of the training
        entry before it: so MMEngine logs those of a training by iterations.
    """
    training, validation = {}, []
    for path in files:
        steps, tests = _attempt(path)
        start = min(steps, default=inf)
        again = min((e['step'] for _, e in tests if e['step']), default=inf)
        training = {n: e for n, e in training.items() if n < start} | steps
        validation = [
            (after, entry)
            for after, entry in validation
            if after < start and entry['step'] < again
        ] + tests
    tests = [entry for _, entry in validation]
    return [
        *(training[step] for step in sorted(training)),
        # Stable: several of one step stay in their order.
        *sorted(tests, key=lambda entry: entry['step']),
    ]


def _attempt(path: Path) -> tuple[dict[int, dict], list[tuple[int, dict]]]:
    """Step to entry of training; validations, each with the step before."""
    training, validation, step = {}, [], 0
    for entry in filter(None, _entries(path)):
        if 'iter' in entry:
            step = entry.get('step', 0)
            training[step] = entry
        else:
            known = entry.get('step') or step
            validation.append((step, dict(entry, step=known)))
    return training, validation


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
