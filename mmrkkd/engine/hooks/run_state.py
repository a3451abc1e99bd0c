"""What a resumed run needs and MMEngine does not keep."""

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmrkkd.checkpoint.random_state import (
    random_state,
    seed_all,
    set_random_state,
)
from mmrkkd.distillers.student_state import (
    LEARNED,
    check_learned_state,
    learned_in,
    learned_inside,
)
from mmrkkd.engine.epoch_length import state_epoch_length
from mmrkkd.engine.launch import unwrapped
from mmrkkd.engine.resumed_run import (
    RestoresAfterSkip,
    check_same_start,
    check_same_teacher,
    skips_nothing,
    teacher_engine,
    teacher_sha256,
    warn_of_what_differs,
)
from mmrkkd.registry import HOOKS

RANDOM_STATE = 'random_state'
AVERAGED = f'{LEARNED}_ema'
TEACHER = 'teacher_sha256'
PRECISION = 'teacher_precision'
PROCESSES = 'processes'
# An average (EMA) of what losses learn goes on up to so many numbers: of a
# temperature, not of connectors, which would double the checkpoint.
NUMBERS_AVERAGED = 64


@HOOKS.register_module()
class RunStateHook(Hook):
    """Makes an interrupted run go on as if it had not been.

    It keeps the random state in the checkpoint, and beside the student what
    the losses learned themselves, and puts both back, leaves the former
    untouched by validation, and draws the base seed of the data workers
    from a generator of its own: so the next step after a resume sees the
    numbers that it would have seen. It keeps the SHA-256 of the teacher's
    file in ``meta`` and refuses to go on with another teacher. In a run by
    iterations it tells the model how long an epoch is
    (:func:`state_epoch_length`).

    A checkpoint holds the random state of the first process; the others
    start from a seed made of the run's, the iteration and their rank.

    Raises:
        ValueError: the run is resumed with another teacher or other losses,
            or its processes from different checkpoints.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._loaded: dict = {}
        self._before_val: dict | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the state to a checkpoint.

        Args:
            runner: The runner.
            checkpoint: Gets ``random_state``, ``meta['processes']`` and,
                with a teacher that was read from a file,
                ``meta['teacher_sha256']``; with one whose precision was
                chosen, ``meta['teacher_precision']``.
        """
        checkpoint[RANDOM_STATE] = self._before_val or random_state()
        checkpoint['meta'][PROCESSES] = runner.world_size
        model = unwrapped(runner.model)
        learned = getattr(model, 'learned_state', dict)()
        if learned:
            checkpoint[LEARNED] = learned
        averaged = [each.learned_state() for each in _averages(runner)]
        if averaged:
            checkpoint[AVERAGED] = averaged
        teacher = teacher_sha256(runner.model)
        if teacher is not None:
            checkpoint['meta'][TEACHER] = teacher
        engine = teacher_engine(runner.model)
        if engine is not None and engine.decision is not None:
            checkpoint['meta'][PRECISION] = engine.decision

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remembers the state of a checkpoint.

        Args:
            runner: The runner.
            checkpoint: What was read.

        Raises:
            ValueError: the run is resumed with losses that learn other
                things; the optimizer would refuse them without a reason.
        """
        meta = checkpoint.get('meta') or {}
        beside = checkpoint.get('ema_state_dict', {})
        before = learned_inside(beside, 'module.')
        self._loaded = {
            RANDOM_STATE: checkpoint.get(RANDOM_STATE),
            TEACHER: meta.get(TEACHER),
            PRECISION: meta.get(PRECISION),
            PROCESSES: meta.get(PROCESSES),
            LEARNED: learned_in(checkpoint),
            AVERAGED: checkpoint.get(AVERAGED) or [before] * bool(before),
        }
        model, learned = unwrapped(runner.model), self._loaded[LEARNED]
        # Of a checkpoint that this hook wrote nothing is nothing.
        is_known = learned or self._loaded[RANDOM_STATE] is not None
        if (
            runner._resume
            and is_known
            and hasattr(model, 'learned_state')
            # What has grown inside the student stands there too.
            and not getattr(model, 'grows_student', False)
        ):
            check_learned_state(model.distiller, learned)

    def before_train(self, runner: Runner) -> None:
        """Puts the state back where a run is resumed, and tells an epoch.

        Args:
            runner: The runner.
        """
        loader = runner.train_dataloader
        if isinstance(loader, DataLoader) and loader.generator is None:
            # Or else making its iterator would draw from the state.
            loader.generator = torch.Generator().manual_seed(runner.seed)
        check_same_start(all_gather_object(runner.iter))
        if runner.message_hub.get_info('loop_stage') is None:
            runner.logger.warning(
                'default_hooks.runtime_info is off: the model is told neither '
                'its epoch, so scheduled weights stay where they begin, nor '
                'the names of the training set. Leave it on, or give the '
                'distiller class_names=[...] and constant weights.'
            )
        state_epoch_length(runner)
        # Weights to start from (load_from) leave the count at 0.
        if runner.iter == 0:
            return
        check_same_teacher(
            self._loaded.get(TEACHER), teacher_sha256(runner.model)
        )
        engine = teacher_engine(runner.model)
        if engine is not None:
            engine.follow(self._loaded.get(PRECISION))
        model = unwrapped(runner.model)
        if hasattr(model, 'load_learned_state'):
            model.load_learned_state(self._loaded.pop(LEARNED, None) or {})
        averaged = self._loaded.pop(AVERAGED, None) or []
        for each, state in zip(_averages(runner), averaged, strict=False):
            each.load_learned_state(state)
        warn_of_what_differs(runner, self._loaded.get(PROCESSES))
        if self._loaded.get(RANDOM_STATE) is not None:
            self._restore(runner)

    def _restore(self, runner: Runner) -> None:
        state = self._loaded.pop(RANDOM_STATE)
        if get_rank() == 0:

            def restore() -> None:
                set_random_state(state)
        else:
            seed = runner.seed + 1_000_003 * runner.iter + get_rank()

            def restore() -> None:
                seed_all(seed)

        restore()
        loop = runner.train_loop
        if hasattr(loop, 'dataloader_iterator'):
            # It skips the batches of before, which may draw from the state.
            skipped = 0 if skips_nothing(loop) else runner.iter
            loop.dataloader_iterator = RestoresAfterSkip(
                loop.dataloader_iterator, skipped, restore
            )

    def before_val(self, runner: Runner) -> None:
        """Keeps the random state as it is before a validation.

        Args:
            runner: The runner.
        """
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Puts it back.

        Args:
            runner: The runner.
        """
        set_random_state(self._before_val)
        self._before_val = None


def _averages(runner: Runner) -> list[nn.Module]:
    """Averages (EMA) whose own ``learned_state`` a checkpoint holds too.

    Of a student that is merged when it is saved, and of losses that learn a
    few numbers. One of the buffers too is made of state dicts: of merged
    students, and plain itself.
    """
    return [
        hook.ema_model.module
        for hook in runner.hooks
        if isinstance(hook, EMAHook)
        and not hook.ema_model.update_buffers
        and (
            getattr(hook.ema_model.module, 'grows_student', False)
            or _learns_few(hook.ema_model.module)
        )
    ]


def _learns_few(model: nn.Module) -> bool:
    if not hasattr(model, 'learned_state'):
        return False
    numbers = sum(
        each.numel() for each in model.distiller.state_dict().values()
    )
    return 0 < numbers <= NUMBERS_AVERAGED
