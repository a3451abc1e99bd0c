"""The cells of an ablation: each method with each seed."""

import argparse
import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mmengine.config import Config

from mmrkkd.checkpoint.fetch import file_sha256
from mmrkkd.cli import read_config

from .methods import AblationError, Method

ROOT = Path(__file__).resolve().parents[2]
# Of the config, what does not change a result.
NEUTRAL = ('work_dir', 'launcher', 'resume')


@dataclass
class Cell:
    """One method with one seed.

    Args:
        method: The method.
        seed: Of data order, augmentation and initialisation.
        folder: Its work directory.
        config: The method's config, options merged, seed not yet set.
        settings: Everything that its result depends on, as plain JSON.
        key: Hash of the settings.
    """

    method: Method
    seed: int
    folder: Path
    config: Config
    settings: dict
    key: str

    @property
    def title(self) -> str:
        """For messages."""
        return f'{self.method.label}, seed {self.seed}'

    @property
    def epochs(self) -> int:
        """Epochs of training; iterations where it is not by epoch."""
        loop = self.config.train_cfg
        return loop.get('max_epochs') or loop.get('max_iters')


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
        work_dir: Folder of the ablation.
        options: Settings to change in every config; a method's own win.

    Raises:
        AblationError: a config cannot be used.
    """
    made = {}
    for method in methods:
        config = _read(method, options)
        settings = _settings(config)
        text = json.dumps(settings, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        made[method.label] = config, settings, key
    return [
        Cell(
            method,
            seed,
            work_dir / method.label / f'seed{seed}',
            *made[method.label],
        )
        for seed in seeds
        for method in methods
    ]


def _read(method: Method, options: dict) -> Config:
    config = read_config(
        argparse.Namespace(
            config=str(method.config),
            cfg_options=dict(options, **method.options),
            launcher='none',
            work_dir='unused',
            local_rank=0,
        )
    )
    loop = config.get('train_cfg') or {}
    if not (loop.get('max_epochs') or loop.get('max_iters')):
        raise AblationError(
            f'{method.config} trains nothing: train_cfg has neither '
            'max_epochs nor max_iters'
        )
    return config


def _settings(config: Config) -> dict:
    """The config as JSON knows it, with the teacher's content."""
    settings = copy.deepcopy(config.to_dict())
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
    # A tuple and a list are the same to JSON, a class is its name. Where
    # the checkout lies does not matter.
    text = json.dumps(settings, default=str)
    return json.loads(text.replace(f'{ROOT}/', ''))


@lru_cache
def _sha256(path: Path, changed: int) -> str:
    # Read once for all cells, and again when it has changed.
    return file_sha256(path)


def differences(old: dict, new: dict, limit: int = 8) -> str:
    """How two cells' settings differ, one dotted key a line."""
    old, new = _flat(old), _flat(new)
    lines = [
        f'  {key}: {old.get(key, "(not set)")!r} -> '
        f'{new.get(key, "(not set)")!r}'
        for key in sorted(set(old) | set(new))
        if old.get(key, ...) != new.get(key, ...)
    ]
    more = len(lines) - limit
    return '\n'.join(lines[:limit] + [f'  and {more} more'] * (more > 0))


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
