"""What a resumed run must have in common with the one before."""

import logging
from collections.abc import Callable, Sequence

from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmrkkd.distillers.inference import TeacherEngine

from .launch import unwrapped


def skips_nothing(loop: object) -> bool:
    """Whether a loop goes to where it was without loading what it skips."""
    return getattr(loop, 'fast_forward_on_resume', False)


class RestoresAfterSkip:
    """The batches of a resumed run that is counted in iterations.

    Args:
        iterator: The loop's own.
        skipped: How many batches the loop passes over before the first.
        restore: Called once, before the first batch of the resumed run.
    """

    def __init__(
        self, iterator: object, skipped: int, restore: Callable[[], None]
    ) -> None:
        self.iterator, self.skipped = iterator, skipped
        self.restore: Callable[[], None] | None = restore

    def __iter__(self) -> 'RestoresAfterSkip':
        return self

    def skip_iter(self, number: int) -> None:
        self.iterator.skip_iter(number)
        self.skipped = 0

    def __next__(self) -> object:
        if self.skipped:
            self.skipped -= 1
        elif self.restore is not None:
            self.restore()
            self.restore = None
        return next(self.iterator)

    def __getattr__(self, name: str) -> object:
        return getattr(self.iterator, name)


def teacher_sha256(model: nn.Module) -> str | None:
    """The SHA-256 of the file that a distiller's teacher was read from.

    Args:
        model: The model of a runner, in a parallel wrapper or not.

    Returns:
        64 hexadecimal digits, or None: no teacher, or no file.
    """
    return getattr(getattr(unwrapped(model), 'teacher', None), 'sha256', None)


def teacher_engine(model: nn.Module) -> TeacherEngine | None:
    """How the teacher of a runner's model computes; None without one."""
    return getattr(getattr(unwrapped(model), 'teacher', None), 'engine', None)


def check_same_start(iterations: Sequence[int]) -> None:
    """Refuses to train with processes that are at different iterations.

    Args:
        iterations: Steps that each process has behind it, by rank.

    Raises:
        ValueError: they differ.
    """
    if len(set(iterations)) > 1:
        raise ValueError(
            'the processes do not go on from the same checkpoint: by rank '
            f'they are at iterations {list(iterations)}. The first process '
            'writes the checkpoints: let all machines see the same '
            '--work-dir, or copy its newest checkpoint to each and give '
            '--resume CHECKPOINT'
        )


def check_same_teacher(recorded: str | None, current: str | None) -> None:
    """Refuses to go on with another teacher.

    Args:
        recorded: SHA-256 of the teacher's file in the checkpoint, or None.
        current: SHA-256 of the file that is there now, or None.

    Raises:
        ValueError: both are known and differ.
    """
    if None not in (recorded, current) and recorded != current:
        raise ValueError(
            'the teacher is not the one that this run began with: its '
            f'checkpoint had SHA-256 {recorded}, teacher.checkpoint has '
            f'{current}. Put the old file back, or start a new run from the '
            "student's weights: --cfg-options load_from=CHECKPOINT without "
            '--resume'
        )


def warn_of_what_differs(runner: Runner, processes: int | None) -> None:
    """Says what keeps a resumed run from being equal to one without a stop.

    Args:
        runner: The runner, about to train.
        processes: How many trained together when its checkpoint was written;
            None if it does not say.
    """
    loop, loader = runner.train_loop, runner.train_dataloader
    warnings = []
    others = processes not in (None, runner.world_size)
    if others:
        warnings.append(
            f'its checkpoint is of {processes} processes and '
            f'{runner.world_size} go on, so a step sees another number of '
            'images, and schedules that count iterations do not follow'
        )
    if isinstance(loop, EpochBasedTrainLoop):
        done = 0 if others else runner.iter % max(len(loader), 1)
        if done:
            warnings.append(
                f'its checkpoint was written after {done} of {len(loader)} '
                'steps of an epoch, and that epoch begins again'
            )
        restarted = getattr(loader, 'persistent_workers', False)
    else:
        restarted = getattr(loader, 'num_workers', 0) > 0
    if restarted:
        warnings.append(
            'its data workers start anew, so random augmentations are other '
            'ones'
        )
    if warnings:
        runner.logger.log(
            logging.WARNING,
            'The resumed run will not equal an uninterrupted one bit for '
            f'bit: {"; ".join(warnings)}.',
        )
