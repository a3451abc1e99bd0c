"""A training that has left its log."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from mmrkkd.datasets import inner_datasets
from mmrkkd.evaluation.kept_predictions import PREDICTIONS
from mmrkkd.evaluation.metric_units import deciding

from .logs import log_faults, log_files, read_log, validations
from .measurements import measurements

REMEDY = 'put a copy in its place, or leave this RUN out'


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
        """The whole config.

        Raises:
            ValueError: the file is cut off, or names no model.
        """
        try:
            config = Config.fromfile(self.config_file)
        except SyntaxError as error:
            raise ValueError(
                f'{self.config_file} is no config ({error}); a full disk or a '
                f'kill leaves such a file: {REMEDY}'
            ) from error
        if not isinstance(config.get('model'), dict):
            raise ValueError(f'{self.config_file} names no model: {REMEDY}')
        return config

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
        return deciding(sorted(logged))

    @cached_property
    def record(self) -> dict:
        """What :func:`mmrkkd.evaluation.summary.summarize` takes."""
        own = dict(
            agreement={},
            gradient_shares={},
            scores={},
            seconds=None,
            processor_seconds=None,
        )
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
        """The last weights, the folder's own where it was moved or copied."""
        pointer = self.folder / 'last_checkpoint'
        named = [pointer.read_text().strip()] if pointer.is_file() else []
        for name in (*named, 'student.pth'):
            for path in (self.folder / Path(name).name, Path(name)):
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


def _joined(root: str, name: str | Sequence[str] | None) -> object:
    if isinstance(name, (list, tuple)):
        return tuple(_joined(root, each) for each in name)
    return os.path.normpath(os.path.join(root, name or ''))
