"""Distils a teacher into a student, without a config to write.

    mmrkkd distill STUDENT_CONFIG --teacher TEACHER_CONFIG CHECKPOINT

The whole config is written to the work directory, where it can be edited
and run again with ``mmrkkd train``. What training leaves there are a plain
student's ``student.pth`` and ``student.py``.
"""

import argparse
import copy
import os
import sys
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrkkd.checkpoint.locks import let_go
from mmrkkd.cli import (
    add_run_options,
    add_trust_option,
    change_config,
)
from mmrkkd.datasets import check_data
from mmrkkd.engine import prepare_run
from mmrkkd.engine.launch import is_first, named, refuse_unjoined
from mmrkkd.evaluation.metric_units import in_a_line
from mmrkkd.losses.feature.base import LayersError

from .naming_layers import CrossingError, saying_how_to_name_layers
from .trial import described, try_first_batch
from .work_dir import RUN, STUDENT, claim, leave_student
from .wrapping import Distillation, wrap


class Distilled(NamedTuple):
    """What a distillation left.

    Args:
        config: Path of the config of the run.
        student_config: Path of the plain student's config.
        checkpoint: Path of the plain student's weights.
        metrics: What the config's own evaluator says of them, {} where it
            has none.
    """

    config: Path
    student_config: Path
    checkpoint: Path
    metrics: dict[str, float]


def distill(
    student: str | os.PathLike | Config,
    teacher: str | os.PathLike | dict,
    checkpoint: str | os.PathLike,
    method: str = 'rkkd',
    *,
    work_dir: str | os.PathLike | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    amp: bool = False,
    resume: bool = False,
    trust: bool = False,
    dry_run: bool = False,
) -> Distilled | None:
    """Distils a teacher into a student.

    ::

        mmrkkd.distill(
            student='my_student.py',
            teacher='mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
            checkpoint='teacher.pth',
        )

    Args:
        student: Path of a config that trains the student alone, a name such
            as 'mmdet::...', one of ours, 'configs/...', or the config.
        teacher: The same for the teacher; of the config only the model is
            used.
        checkpoint: Path or https URL of the teacher's weights.
        method: Which losses and weights, see
            :mod:`mmrkkd.commands.methods`. Defaults to 'rkkd'.
        work_dir: Where everything goes. Defaults to
            ``work_dirs/<method>_<name of the student's config>``.
        cfg_options: Dotted name to value, changed in the whole config:
            ``{'model.losses.temperature': 2.0}``.
        launcher: How the processes of a distributed run were started.
            Defaults to 'none'.
        amp: Mixed precision. Defaults to False.
        resume: Go on with the run in the work directory. Defaults to False.
        trust: Read checkpoints that hold more than a training state, which
            can run code of their author. Defaults to False.
        dry_run: Print the settings, take one batch through both models and
            stop; nothing is written. Defaults to False.

    Returns:
        What it left; None of a dry run.

    Raises:
        FileNotFoundError: a config, the checkpoint or the data are missing.
        ValueError: see :func:`mmrkkd.commands.wrapping.wrap`, or the work
            directory holds another run.
    """
    plan = prepare(
        student,
        teacher,
        checkpoint,
        method,
        work_dir=work_dir,
        cfg_options=cfg_options,
        launcher=launcher,
        resume=resume,
        trust=trust,
        dry_run=dry_run,
    )
    if dry_run:
        return None
    return run(plan, amp=amp, resume=resume, trust=trust)


def prepare(
    student: str | os.PathLike | Config,
    teacher: str | os.PathLike | dict,
    checkpoint: str | os.PathLike,
    method: str,
    *,
    work_dir: str | os.PathLike | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    resume: bool = False,
    trust: bool = False,
    dry_run: bool = False,
) -> Distillation:
    """All that comes before the training; see :func:`distill`.

    The data are looked for before the work directory is written: what
    cannot start leaves nothing behind.
    """
    refuse_unjoined(launcher)
    plan = wrap(student, teacher, checkpoint, method, trust)
    config = plan.config
    change_config(config, cfg_options or {})
    config.launcher = launcher
    name = f'{method}_{Path(config.filename or "student").stem}'
    config.work_dir = os.fspath(work_dir or Path('work_dirs') / name)
    print(described(plan), flush=True)
    if dry_run:
        with saying_how_to_name_layers(plan):
            try_first_batch(config, trust)
        return plan
    check_data(config, ('train_dataloader', 'val_dataloader'))
    if is_first(launcher):
        claim(config, resume)
    return plan


def run(
    plan: Distillation, *, amp: bool, resume: bool, trust: bool
) -> Distilled:
    """Trains, evaluates and leaves the plain student."""
    folder = Path(plan.config.work_dir)
    try:
        with saying_how_to_name_layers(plan):
            return _run(plan.config, folder, amp, resume, trust)
    finally:
        let_go(folder)


def _run(
    config: Config, folder: Path, amp: bool, resume: bool, trust: bool
) -> Distilled:
    # Changed by what prepares the run, and named as its file.
    running = named(copy.deepcopy(config), folder / RUN)
    with prepare_run(
        running, amp=amp, resume='auto' if resume else None, trust=trust
    ) as runner:
        last = _LastValidation()
        runner.register_hook(last)
        runner.train()
        metrics = last.metrics
        if last.iteration != runner.iter and runner._val_loop is not None:
            metrics = runner.val()
    weights = folder / f'{STUDENT}.pth'
    if is_main_process():
        source = leave_student(config, runner, trust)
        print(
            f'\nStudent: {weights} (from {source}), {STUDENT}.py beside it'
            f'\n  {scores_text(metrics, runner._val_loop is not None)}'
        )
    return Distilled(folder / RUN, folder / f'{STUDENT}.py', weights, metrics)


def scores_text(metrics: dict[str, float], evaluated: bool) -> str:
    """What an evaluation said, in a line.

    Args:
        metrics: Name to score; {} of a detector that finds nothing.
        evaluated: Whether there was one.
    """
    if not evaluated:
        return 'not evaluated: the config has no val_evaluator'
    found = in_a_line(metrics)
    return found or 'no score: of a detector it found nothing at all'


class _LastValidation(Hook):
    """Remembers what the training itself has validated last."""

    def __init__(self) -> None:
        self.iteration, self.metrics = -1, {}

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        self.iteration, self.metrics = runner.iter, dict(metrics or {})


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        'mmrkkd distill', description=__doc__.split('\n')[0]
    )
    parser.add_argument(
        'student',
        help="config that trains the student alone: a path, 'mmdet::...', "
        "'mmpretrain::...' or one of ours, 'configs/...'",
    )
    parser.add_argument(
        '--teacher',
        nargs=2,
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help="the teacher's config and its weights, a path or an https URL",
    )
    parser.add_argument(
        '--method',
        default='rkkd',
        help='losses and weights: rkkd, kd, crosskd, dkd, fitnet, ...; an '
        'unknown one lists all (default: %(default)s)',
    )
    add_run_options(parser, '<method>_<name of the config>')
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on with the run in the work directory',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print the settings, take one batch through both models, stop',
    )
    add_trust_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Distils as the command line says; returns the exit code."""
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        plan = prepare(
            args.student,
            *args.teacher,
            args.method,
            work_dir=args.work_dir,
            cfg_options=args.cfg_options,
            launcher=args.launcher,
            resume=args.resume,
            trust=args.trust_checkpoint,
            dry_run=args.dry_run,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f'mmrkkd distill: {text}', file=sys.stderr)
        return 1
    if args.dry_run:
        return 0
    try:
        run(
            plan,
            amp=args.amp,
            resume=args.resume,
            trust=args.trust_checkpoint,
        )
    except (LayersError, CrossingError) as error:
        print(f'mmrkkd distill: {error}', file=sys.stderr)
        return 1
    return 0
