"""The work directory of a distillation: what it holds, and whose it is."""

import copy
import io
import itertools
import logging
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import (
    Runner,
    find_latest_checkpoint,
    weights_to_cpu,
)

from mmrkkd.checkpoint import read_training_state
from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.checkpoint.locks import hold_folder, let_go
from mmrkkd.distillers.model_config import plain_model
from mmrkkd.engine.launch import unwrapped

from .publish import published

RUN = 'distill.py'
OLD = 'distill_before.py'
STUDENT = 'student'
# What a run leaves in its folder; of a log anything but its config.py.
TRACES = ('*.pth', 'last_checkpoint', '*/vis_data/*[!y]')
# Of this start, not of the run.
PLACES = ('work_dir', 'launcher')


def claim(config: Config, resume: bool) -> None:
    """Writes the config of a run into its work directory, and holds that.

    No other process can claim it until
    :func:`mmrkkd.checkpoint.locks.let_go`, or this one's end.

    Args:
        config: The whole config, with ``work_dir``.
        resume: Go on with the run that is there.

    Raises:
        FileExistsError: there is a run already, or one is under way.
        ValueError: the run to go on with is another one.
    """
    folder = Path(config.work_dir)
    path = folder / RUN
    trained = any(next(folder.glob(trace), None) for trace in TRACES)
    if trained and not path.is_file():
        raise FileExistsError(
            f'--work-dir {folder} holds a run of something else (there are '
            f'checkpoints or logs, and no {RUN}): give another folder'
        )
    hold_folder(folder)
    try:
        # Where nothing was trained, what could not start is no run.
        if trained:
            _check_same(config, path, resume)
        if path.is_file():
            _keep_edits(config, path)
        else:
            write_atomically(path, config.pretty_text.encode())
    except BaseException:
        let_go(folder)
        raise


def _check_same(config: Config, path: Path, resume: bool) -> None:
    if not resume:
        raise FileExistsError(
            f'--work-dir {path.parent} holds a distillation already: '
            '--resume goes on with it; else give another folder'
        )
    differing = _changed(config, path)
    if any(name.startswith('model.') for name in differing):
        raise ValueError(
            f'--resume: {path} is another run, they differ in '
            f'{", ".join(differing[:10])}. Give the arguments it was started '
            'with, or another --work-dir; to go on with an edited config use '
            f"'mmrkkd train {path} --resume'"
        )


def _changed(config: Config, path: Path) -> list[str]:
    """Dotted names of the settings that a file has otherwise."""
    before, now = (
        {k: v for k, v in each.to_dict().items() if k not in PLACES}
        for each in (Config.fromfile(path), config)
    )
    return sorted(
        name.removeprefix('.') for name in _differing(before, now, '')
    )


def _keep_edits(config: Config, path: Path) -> None:
    """Writes a config anew where it differs, and keeps the old one."""
    differing = _changed(config, path)
    if differing:
        numbers = itertools.count(2)
        kept = path.with_name(OLD)
        while kept.exists():
            kept = path.with_stem(f'{Path(OLD).stem}_{next(numbers)}')
        write_atomically(kept, path.read_bytes())
        write_atomically(path, config.pretty_text.encode())
        print_log(
            f'{path} is written anew, in which other settings are: '
            f'{", ".join(differing[:10])}. As it was it is kept in {kept}.',
            logger='current',
            level=logging.WARNING,
        )


def _differing(before: object, now: object, name: str) -> list[str]:
    """Dotted names of the settings that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for key in before.keys() | now.keys()
            for found in _differing(
                before.get(key), now.get(key), f'{name}.{key}'
            )
        ]
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        # Lists of dicts as well as of numbers; a tuple is dumped as one.
        if len(before) == len(now):
            return [
                found
                for index, pair in enumerate(zip(before, now, strict=True))
                for found in _differing(*pair, f'{name}.{index}')
            ]
        return [name]
    return [] if before == now else [f'{name} ({before!r} there, now {now!r})']


def leave_student(config: Config, runner: Runner, trust: bool) -> str:
    """Puts the plain student's weights and config side by side.

    Args:
        config: As it was before the run.
        runner: The run, at its end.
        trust: Read a checkpoint that can run code.

    Returns:
        The name of the checkpoint that the weights are from: the last one,
        with the average of an EMA where there is one.
    """
    folder = Path(config.work_dir)
    content, source = _last_checkpoint(runner, trust)
    file = io.BytesIO()
    torch.save(published(content), file)
    write_atomically(folder / f'{STUDENT}.pth', file.getbuffer())
    plain = copy.deepcopy(config)
    plain.model = plain_model(config)
    # Of the run, not of the student.
    for key in ('work_dir', 'launcher'):
        plain.pop(key, None)
    write_atomically(folder / f'{STUDENT}.py', plain.pretty_text.encode())
    return source


def _wherever_it_lies(
    path: str, hooks: list[CheckpointHook], runner: Runner
) -> str:
    """A checkpoint of this run, whose folder may have been moved or copied."""
    folders = [getattr(hook, 'out_dir', None) for hook in hooks]
    for folder in filter(None, [*folders, runner.work_dir]):
        here = Path(folder) / Path(path).name
        if here.is_file():
            return str(here)
    return str(path)


def _last_checkpoint(runner: Runner, trust: bool) -> tuple[dict, str]:
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    # A run that had ended when it was resumed wrote nothing now.
    paths = [getattr(hook, 'last_ckpt', None) for hook in hooks]
    paths += [find_latest_checkpoint(runner.work_dir)] if hooks else []
    for path in filter(None, paths):
        path = _wherever_it_lies(path, hooks, runner)
        content = read_training_state(path, 'cpu', trust)
        return content, Path(path).name
    # A run that saves nothing.
    model = unwrapped(runner.model)
    meta = dict(
        dataset_meta=getattr(runner.train_dataloader.dataset, 'metainfo', {}),
        epoch=runner.epoch,
        iter=runner.iter,
    )
    content = dict(meta=meta, state_dict=weights_to_cpu(model.state_dict()))
    return content, 'the end of the run'
