"""Which checkpoint a run goes on from."""

import os
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from .training_state import check_intact

LISTED = 5
# What a run may leave in its folder.
OF_A_RUN = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', 'student.pth')


def prepare_resume(config: Config, trust: bool = False) -> None:
    """Decides, before anything is built, what ``resume=True`` means.

    With ``load_from`` it is that file, else the newest intact checkpoint of
    the work directory. A run that has none yet starts from the beginning.
    The seed of the run goes on, where the config states none. A new run in
    the folder of another is told what it meets.

    Args:
        config: The whole config, with ``work_dir``; ``resume``,
            ``load_from`` and ``randomness`` are changed.
        trust: Unpickle whatever is in a checkpoint. Defaults to False.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file, or every checkpoint of the run, is damaged.
    """
    if not config.get('resume'):
        _tell_of_an_earlier_run(Path(config.work_dir))
        return
    if config.get('load_from') is None:
        path, content = newest_intact(config, trust)
    else:
        path = config.load_from
        content = check_intact(path, trust)
    if path is None:
        _tell(
            f'There is no checkpoint in {_folder(config)} yet: the run '
            'starts from the beginning.'
        )
        config.resume = False
        return
    _tell(f'The run is resumed from {path}.')
    lacking = [
        key for key in ('optimizer', 'param_schedulers') if key not in content
    ]
    if 'optimizer' in lacking:
        _tell(
            f'{path} was written without {" and ".join(lacking)}: they '
            'start anew, so the run will not equal an uninterrupted one. '
            'Set default_hooks.checkpoint.save_optimizer=True.'
        )
    config.load_from = str(path)
    # Data samplers are seeded before MMEngine looks into the checkpoint.
    randomness = dict(config.get('randomness') or {})
    if randomness.get('seed') is None:
        randomness['seed'] = content['meta'].get('seed')
        config.randomness = randomness


def _tell_of_an_earlier_run(folder: Path) -> None:
    names = sorted(
        path.name for kind in OF_A_RUN for path in folder.glob(kind)
    )
    if names:
        shown = ', '.join(names[:LISTED])
        _tell(
            f'{folder} holds weights of an earlier run ({shown}): files of '
            'the same name are written over, the others stay beside the new. '
            '--resume goes on with that run, another --work-dir keeps it.'
        )


def newest_intact(
    config: Config, trust: bool = False
) -> tuple[Path | None, dict | None]:
    """The newest checkpoint of a run that can be read, and what it holds.

    Args:
        config: As for :func:`prepare_resume`.
        trust: Unpickle whatever is in it. Defaults to False.

    Returns:
        Its path and content, or None and None where the run has written
        no checkpoint.

    Raises:
        ValueError: none of them can be read.
    """
    failures = []
    for path in candidates(config):
        try:
            content = check_intact(path, trust)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            _tell(f'Passed over {path.name}: {error}')
            continue
        return path, content
    if not failures:
        return None, None
    shown = ''.join(f'\n  {failure}' for failure in failures[:LISTED])
    raise ValueError(
        f'none of the {len(failures)} checkpoints in {_folder(config)} can '
        f'be read:{shown}\nGive one with --resume CHECKPOINT, or leave '
        '--resume out to start from the beginning'
    )


def candidates(config: Config) -> list[Path]:
    """The checkpoints of a run, the one to go on from first.

    ``last_checkpoint`` names the newest, except where the run was killed
    after a checkpoint was written and before its name was: one with a
    higher number that is not older comes before it. Those with lower
    numbers follow, and at the end what an earlier, longer run has left.

    Args:
        config: As for :func:`prepare_resume`.
    """
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    default = 'epoch_{}.pth' if hook.get('by_epoch', True) else 'iter_{}.pth'
    # Both '{}' and '{:03d}' stand for the number.
    texts = re.split(r'\{[^{}]*\}', hook.get('filename_tmpl') or default)
    numbered = re.compile(r'(\d+)'.join(map(re.escape, texts)))
    steps = {
        path: int(found.group(1))
        for path in _folder(config).glob('*')
        if (found := numbered.fullmatch(path.name))
    }
    last = _last_written(config)
    ages = {path: path.stat().st_mtime for path in steps}
    if last not in steps:
        by_age = sorted(
            steps, key=lambda path: (ages[path], steps[path]), reverse=True
        )
        # Whatever it is called, it is what the run wrote last.
        return [last, *by_age] if last and last.is_file() else by_age

    def rank(path: Path) -> tuple[float, float]:
        if steps[path] > steps[last]:
            is_newer = ages[path] >= ages[last]
            return (2, steps[path]) if is_newer else (0, ages[path])
        return 1, steps[path]

    return sorted(steps, key=rank, reverse=True)


def _folder(config: Config) -> Path:
    """Where the checkpoint hook puts the checkpoints."""
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    work_dir = Path(config.work_dir)
    out_dir = hook.get('out_dir')
    # As MMEngine compares them.
    if out_dir is None or os.path.abspath(str(out_dir)) == os.path.abspath(
        config.work_dir
    ):
        return work_dir
    if '://' in str(out_dir):
        raise ValueError(
            f'--resume cannot look into {out_dir}: give the path of a '
            'checkpoint with --resume CHECKPOINT'
        )
    return Path(out_dir) / work_dir.name


def _last_written(config: Config) -> Path | None:
    file = Path(config.work_dir) / 'last_checkpoint'
    if not file.is_file():
        return None
    # The folder may have been moved since.
    return _folder(config) / Path(os.fsdecode(file.read_bytes()).strip()).name


def _tell(text: str) -> None:
    # No process group exists yet; launchers state the rank like this.
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        print_log(text)
