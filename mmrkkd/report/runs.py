"""The runs below some folders, as the tools leave them."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from .logs import log_files, read_log
from .training_run import REMEDY, Run

# Where cells of tools/ablation.py and tools/demo.py leave theirs.
RESULT, STATE, CELL_CONFIG = 'result.json', 'cell.json', 'cell_config.py'
DEPTH = 3


def find_runs(folders: Sequence[str | Path]) -> tuple[list[Run], list[Path]]:
    """The finished runs in some folders, and the unfinished cells.

    Args:
        folders: Work directories of trainings, or folders of many.

    Returns:
        The runs, those of one label together, and the folders of cells that
        have no result yet.

    Raises:
        FileNotFoundError: a folder is not there, or holds no run.
        ValueError: two runs have one name and one seed, nothing can be
            read of any, or a record or a config cannot be read.
    """
    runs, unfinished = [], []
    for root in map(Path, folders):
        if not root.is_dir():
            raise FileNotFoundError(
                f'RUN {root} is no folder; give the work directory of a '
                'training, or the folder of an ablation or a demo'
            )
        found = list(_below(root.resolve(), DEPTH))
        ended = [run for run in found if isinstance(run, Run)]
        unfinished += [path for path in found if isinstance(path, Path)]
        if not found:
            raise FileNotFoundError(
                f'RUN {root} holds no run: there is neither a log '
                f'(*/vis_data/scalars.json) nor a {RESULT} up to {DEPTH} '
                'folders below it; give the --work-dir of a training'
            )
        runs += [(root.resolve().name, run) for run in ended]
    if not runs:
        raise FileNotFoundError(
            f'no run has ended yet: {", ".join(map(str, unfinished))}'
        )
    faults = [fault for _, run in runs for fault in run.log_faults]
    if faults and not any(run.log or run.result for _, run in runs):
        raise ValueError(
            f'no log can be read: {"; ".join(faults)}. A full disk or a kill '
            'leaves such a file; put a copy in its place, or train again'
        )
    _tell_apart(runs)
    labels = list(dict.fromkeys(run.label for _, run in runs))
    runs = [run for _, run in runs]
    return sorted(runs, key=lambda run: labels.index(run.label)), unfinished


def _below(folder: Path, depth: int) -> Iterator[Run | Path]:
    if (folder / RESULT).is_file() and (folder / CELL_CONFIG).is_file():
        result = _record(folder / RESULT)
        yield Run(
            result['label'],
            result['seed'],
            folder,
            folder / CELL_CONFIG,
            result,
        )
    elif (folder / STATE).is_file():
        yield folder
    elif log_files(folder):
        config = _dumped_config(folder)
        run = Run(folder.name, None, folder, config, {})
        run.seed = (run.config.get('randomness') or {}).get('seed')
        yield run
    elif depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                yield from _below(path, depth - 1)


def _record(path: Path) -> dict:
    try:
        result = json.loads(path.read_text())
        result['label'], result['seed']
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is no record of a finished cell, with label and seed '
            f'({type(error).__name__}: {error}): {REMEDY}'
        ) from error
    return result


def _dumped_config(folder: Path) -> Path:
    """The config that MMEngine wrote when the last training began.

    It writes one for a test too, whose model may be the plain student.
    """
    logs = log_files(folder)
    trained = [
        log for log in logs if any('iter' in each for each in read_log([log]))
    ]
    paths = [log.with_name('config.py') for log in trained or logs]
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise FileNotFoundError(
            f'{folder} has logs, but no config beside them '
            '(*/vis_data/config.py, which MMEngine writes): it cannot be '
            'said what was trained'
        )
    return paths[-1]


def _tell_apart(runs: Sequence[tuple[str, Run]]) -> None:
    """Puts the folder before the label where two runs share both names."""
    counts = Counter((run.label, run.seed) for _, run in runs)
    shared = {label for (label, _), count in counts.items() if count > 1}
    for root, run in runs:
        if run.label in shared:
            above = root if run.result else run.folder.parent.name
            run.label = f'{above}/{run.label}'
    counts = Counter((run.label, run.seed) for _, run in runs)
    (label, seed), count = counts.most_common(1)[0]
    if count > 1:
        folders = [
            str(run.folder)
            for _, run in runs
            if (run.label, run.seed) == (label, seed)
        ]
        raise ValueError(
            f'{" and ".join(folders)} are both called {label!r} with seed '
            f'{seed}: rename a folder, or give each RUN once'
        )


def check_alike(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot be compared.

    Raises:
        ValueError: two are validated on unlike data, or by unlike metrics.
    """
    first = runs[0]
    for run in runs[1:]:
        for name in dict.fromkeys([*first.data, *run.data]):
            one, other = (each.data.get(name, ()) for each in (first, run))
            # Who names no classes has those of the data set.
            unsaid = name == 'classes' and (None in (*one, *other))
            if one != other and not unsaid:
                raise ValueError(
                    f'{first.title} and {run.title} are validated on unlike '
                    f'data: {name} {one!r} and {other!r}; make a report of '
                    'each'
                )
        if first.metric and run.metric and first.metric != run.metric:
            raise ValueError(
                f'{first.title} is judged by {first.metric}, {run.title} by '
                f'{run.metric}; make a report of each'
            )


def firsts(runs: Sequence[Run]) -> dict[str, Run]:
    """The first run of each label."""
    found = {}
    for run in runs:
        found.setdefault(run.label, run)
    return found


def teacher_label(runs: Sequence[Run]) -> str | None:
    """The label of the run whose checkpoint teaches the others."""
    for run in runs:
        if not run.distils:
            continue
        folders = [path.parent for path in _teacher_files(run)]
        for other in runs:
            if other.folder in folders:
                return other.label
    return None


def _teacher_files(run: Run) -> Iterator[Path]:
    """Where the teacher's weights are, or were moved together with a run."""
    path = Path(run.config.model.teacher.checkpoint)
    yield path.resolve()
    home = run.config.get('work_dir')
    if home:
        place = run.folder / os.path.relpath(path, home)
        yield Path(os.path.normpath(place))
