"""The runs below some folders, as the tools leave them."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmrkkd.datasets import inner_datasets
from mmrkkd.evaluation.kept_predictions import PREDICTIONS

from .logs import log_faults, log_files, read_log, validations
from .measurements import measurements

# Where cells of tools/ablation.py and tools/demo.py leave theirs.
RESULT, STATE, CELL_CONFIG = 'result.json', 'cell.json', 'cell_config.py'
DEPTH = 3
# The metric that a run is judged by, the surest ending first.
METRICS = ('/top1', 'bbox_mAP', 'bbox_AP', '/mAP', '/AP')


@dataclass
class Run:
    """A training that has left its log.

    Args:
        label: What it is called; several seeds share it.
        seed: None where none was set.
        folder: Its work directory.
        config_file: Its config.
        result: What the tools recorded of it; {} of one by hand.
    """

    label: str
    seed: int | None
    folder: Path
    config_file: Path
    result: dict

    @cached_property
    def config(self) -> Config:
        """The whole config."""
        return Config.fromfile(self.config_file)

    @cached_property
    def log(self) -> list[dict]:
        """See :func:`read_log`."""
        return read_log(log_files(self.folder))

    @cached_property
    def log_faults(self) -> list[str]:
        """See :func:`log_faults`."""
        return log_faults(log_files(self.folder))

    @property
    def title(self) -> str:
        """For messages."""
        if self.seed is None:
            return self.label
        return f'{self.label}, seed {self.seed}'

    @property
    def distils(self) -> bool:
        """Whether it has a teacher."""
        return 'teacher' in self.config.model

    @cached_property
    def metric(self) -> str | None:
        """The log key that it is judged by; None if never validated."""
        if self.result.get('metric'):
            return self.result['metric']
        logged = {key for entry in validations(self.log) for key in entry}
        for end in METRICS:
            for key in sorted(logged):
                if key.endswith(end):
                    return key
        return None

    @cached_property
    def record(self) -> dict:
        """What :func:`mmrkkd.evaluation.summary.summarize` takes."""
        own = dict(agreement={}, seconds=None, processor_seconds=None)
        own.update(self.result, label=self.label, seed=self.seed)
        if 'last' in own and not self.log:
            return own
        return dict(own, **measurements(self.folder, self.metric))

    @property
    def predictions(self) -> Path | None:
        """What it found on the validation images, if that is kept."""
        path = self.folder / PREDICTIONS
        return path if path.is_file() else None

    @property
    def checkpoint(self) -> Path | None:
        """The last weights, also where the folder was moved."""
        pointer = self.folder / 'last_checkpoint'
        named = [pointer.read_text().strip()] if pointer.is_file() else []
        for name in (*named, 'student.pth'):
            for path in (Path(name), self.folder / Path(name).name):
                if path.is_file() and path.is_absolute():
                    return path
        return None

    @cached_property
    def data(self) -> dict[str, object]:
        """Which images it is validated on: name of a setting to value."""
        loader = self.config.get('val_dataloader') or {}
        found = {}
        for dataset in inner_datasets(loader.get('dataset')):
            root = dataset.get('data_root') or ''
            prefix = dataset.get('data_prefix') or ''
            if isinstance(prefix, dict):
                prefix = next(iter(prefix.values()), '')
            classes = (dataset.get('metainfo') or {}).get('classes')
            for name, value in (
                ('annotations', _joined(root, dataset.get('ann_file'))),
                ('images', _joined(root, prefix)),
                ('split', dataset.get('split')),
                ('classes', classes and tuple(classes)),
            ):
                found.setdefault(name, []).append(value)
        return found


def _joined(root: str, name: str | None) -> str | None:
    return os.path.normpath(os.path.join(root, name or ''))


def find_runs(folders: Sequence[str | Path]) -> tuple[list[Run], list[Path]]:
    """The finished runs in some folders, and the unfinished cells.

    Args:
        folders: Work directories of trainings, or folders of many.

    Returns:
        The runs, those of one label together, and the folders of cells that
        have no result yet.

    Raises:
        FileNotFoundError: a folder is not there, or holds no run.
        ValueError: two runs have one name and one seed, or nothing can be
            read of any.
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
        result = json.loads((folder / RESULT).read_text())
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


def _dumped_config(folder: Path) -> Path:
    """The config that MMEngine wrote when the last attempt began."""
    paths = sorted(folder.glob('*/vis_data/config.py'))
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
