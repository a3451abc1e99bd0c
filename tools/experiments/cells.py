"""The cells of an experiment: each method with each seed."""

import argparse
import copy
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmrkkd.checkpoint.fetch import file_sha256
from mmrkkd.cli import read_config

from . import ROOT, ExperimentError
from .methods import Method

# Of the config, what does not change a result.
NEUTRAL = ('work_dir', 'launcher', 'resume')
# Of two unlike configs, how many settings a message names.
SHOWN = 8


@dataclass
class Cell:
    """One method with one seed.

    Args:
        method: The method.
        seed: Of data order, augmentation and initialisation.
        folder: Its work directory.
        config: The method's config, options merged, seed not yet set.
        inputs: What else its result depends on, as plain JSON: how the data
            were made, versions. Defaults to nothing.
        places: Folders whose place does not matter. Defaults to none.
    """

    method: Method
    seed: int
    folder: Path
    config: Config
    inputs: dict = field(default_factory=dict)
    places: Sequence[Path] = ()

    @property
    def title(self) -> str:
        """For messages."""
        return self.method.title or f'{self.method.label}, seed {self.seed}'

    @property
    def epochs(self) -> int:
        """Epochs of training; iterations where it is not by epoch."""
        loop = self.config.train_cfg
        return loop.get('max_epochs') or loop.get('max_iters')

    @cached_property
    def settings(self) -> dict:
        """Everything that its result depends on but the seed, as plain JSON.

        Read when it is first asked for: the checkpoint of a teacher counts
        by its content, and may still have to be trained.
        """
        return _settings(self)

    @property
    def key(self) -> str:
        """Hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def by_hand(self) -> str:
        """What one would type into a shell for the same training."""
        options = dict(self.method.options, **{'randomness.seed': self.seed})
        return shlex.join(
            [
                'python',
                'tools/train.py',
                str(self.method.config).removeprefix(f'{ROOT}/'),
                '--work-dir',
                str(self.folder),
                '--cfg-options',
                *(f'{name}={value}' for name, value in options.items()),
            ]
        )


def make_cells(
    methods: Sequence[Method],
    seeds: Sequence[int],
    work_dir: Path,
    options: dict,
) -> list[Cell]:
    """The cells, all methods of the first seed first.

    Args:
        methods: The methods.
        seeds: The seeds, >= 0.
        work_dir: Folder of the experiment.
        options: Settings to change in every config; a method's own win.

    Raises:
        ExperimentError: a config cannot be used.
    """
    methods = [
        replace(method, options=dict(options, **method.options))
        for method in methods
    ]
    configs = [read_method(method) for method in methods]
    return [
        Cell(method, seed, work_dir / method.label / f'seed{seed}', config)
        for seed in seeds
        for method, config in zip(methods, configs, strict=True)
    ]


def read_method(method: Method) -> Config:
    """A method's config, its options merged.

    Args:
        method: The method.

    Raises:
        ExperimentError: it trains nothing.
    """
    config = read_config(
        argparse.Namespace(
            config=str(method.config),
            cfg_options=dict(method.options),
            launcher='none',
            work_dir='unused',
            local_rank=0,
        )
    )
    loop = config.get('train_cfg') or {}
    if not (loop.get('max_epochs') or loop.get('max_iters')):
        raise ExperimentError(
            f'{method.config} trains nothing: train_cfg has neither '
            'max_epochs nor max_iters'
        )
    return config


def reference(cells: Sequence[Cell], baseline: str) -> ConfigDict | None:
    """The model that says which teacher a student alone is compared with.

    The baseline's, or the first distillation's; None if nothing distils.
    """
    ordered = sorted(cells, key=lambda cell: cell.method.label != baseline)
    for cell in ordered:
        if 'teacher' in cell.config.model:
            return cell.config.model
    return None


def _settings(cell: Cell) -> dict:
    """The config as JSON knows it, with the teacher's content."""
    settings = copy.deepcopy(cell.config.to_dict())
    for name in NEUTRAL:
        settings.pop(name, None)
    (settings.get('randomness') or {}).pop('seed', None)
    if not settings.get('randomness'):
        settings.pop('randomness', None)
    teacher = settings.get('model', {}).get('teacher') or {}
    checkpoint = teacher.get('checkpoint')
    if checkpoint and Path(checkpoint).is_file():
        path = Path(checkpoint).resolve()
        teacher['checkpoint_content'] = _sha256(path, path.stat().st_mtime_ns)
    if cell.inputs:
        settings['inputs'] = cell.inputs
    # A tuple and a list are the same to JSON, a class is its name. Where
    # the checkout lies does not matter.
    text = json.dumps(settings, default=str)
    for place in (ROOT, *cell.places):
        text = text.replace(f'{place}/', '')
    return json.loads(text)


@lru_cache
def _sha256(path: Path, changed: int) -> str:
    # Read once for all cells, and again when it has changed.
    return file_sha256(path)


def differences(old: dict, new: dict) -> str:
    """How two cells' settings differ, one dotted key a line."""
    old, new = _flat(old), _flat(new)
    lines = [
        f'  {key}: {old.get(key, "(not set)")!r} -> '
        f'{new.get(key, "(not set)")!r}'
        for key in sorted(set(old) | set(new))
        if old.get(key, ...) != new.get(key, ...)
    ]
    more = len(lines) - SHOWN
    return '\n'.join(lines[:SHOWN] + [f'  and {more} more'] * (more > 0))


def _flat(value: object, name: str = '') -> dict:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {name: value}
    flat = {}
    for key, inner in items:
        flat.update(_flat(inner, f'{name}.{key}' if name else str(key)))
    return flat
