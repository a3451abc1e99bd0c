"""A guard against losses that are NaN or infinite."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmrkkd.checkpoint.atomic import write_atomically
from mmrkkd.engine.batches import image_names, plain_values
from mmrkkd.engine.launch import unwrapped
from mmrkkd.engine.loss_terms import bad_of, terms_of, without_gradient
from mmrkkd.ops.late import LateFlag
from mmrkkd.registry import HOOKS

ACTIONS = ('stop', 'skip', 'save')
FOLDER = 'non_finite'
IMAGES_SHOWN = 8


class NonFiniteLossError(FloatingPointError):
    """A loss term was NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Notices a non-finite loss before it reaches the weights.

    It asks about every loss term after the forward pass, reads the answer
    before the optimizer's step, and names the terms, the iteration and the
    images of the batch. A GPU is at the backward pass by then and never
    idles. With accumulated gradients, which a bad batch must not reach, the
    answer is read before the backward pass, and the step waits.

    A step that is skipped changes neither weights nor optimizer nor the
    buffers of the model (running means of batch norm); it still counts as
    an iteration, so schedules go on, and its terms are logged as they are.
    With several processes all of them stop or skip together. The last of
    the batches that are accumulated is the one they average by: left out,
    it takes those of its step with it. Gradients that
    overflow behind a finite loss are not noticed: clip them, or use a loss
    scaler, which skips such steps itself. Its scale, which has no part in
    the loss, stays as it is where the loss is not finite.

    Args:
        action: 'stop' raises :class:`NonFiniteLossError`; 'skip' leaves the
            step out with a warning; 'save' does that too, and saves the
            batch in ``<work_dir>/non_finite``. Defaults to 'stop'.
        max_saved: 'save' keeps at most that many batches. Defaults to 8.
        max_in_a_row: 'skip' and 'save' stop after that many steps one after
            another: then the weights are at fault, not a batch. Defaults to
            20.

    Raises:
        ValueError: an argument is out of its range.
    """

    # A step that stops the run is not seen by other hooks.
    priority = 'VERY_HIGH'

    def __init__(
        self, action: str = 'stop', max_saved: int = 8, max_in_a_row: int = 20
    ) -> None:
        if action not in ACTIONS:
            raise ValueError(
                f'action must be one of {", ".join(ACTIONS)}, got {action!r}'
            )
        for name, value in (
            ('max_saved', max_saved),
            ('max_in_a_row', max_in_a_row),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be >= 1, got {value!r}')
        self.action = action
        self.max_saved = max_saved
        self.max_in_a_row = max_in_a_row
        self.in_a_row = 0
        self._batch: object = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        # The parallel model, between a step left out and the next.
        self._unsynced: nn.Module | None = None
        self._handle = None
        # The loss terms of the step, and whether all are finite.
        self._asked: list[tuple[str, Tensor]] = []
        self._finite = LateFlag()

    def before_train(self, runner: Runner) -> None:
        """Starts to watch the model and the optimizer.

        Args:
            runner: The runner.
        """
        # What a training that was stopped has left behind.
        self.after_train(runner)
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        self.runner = runner
        self._handle = model.register_forward_hook(
            self._after_forward, with_kwargs=True
        )
        self._late = getattr(wrapper, '_accumulative_counts', 0) == 1
        # Of this object alone; after_train takes it off again.
        if self._late:
            wrapper.step = partial(self._step, wrapper.step)
        elif isinstance(wrapper, AmpOptimWrapper):
            wrapper.step = partial(_step_along, wrapper)

    def after_train(self, runner: Runner) -> None:
        """Watches no more.

        Args:
            runner: The runner.
        """
        if self._handle is not None:
            self._handle.remove()
        vars(runner.optim_wrapper).pop('step', None)
        self._sync_again()
        # Neither the last batch nor the runner is kept alive.
        self._batch, self._buffers, self.runner = None, [], None
        self._asked = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Remembers what the step starts from.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: What the data loader gave.
        """
        self._batch = data_batch
        self._sync_again()
        if self.action != 'stop':
            self._buffers = [
                (buffer, buffer.clone()) for buffer in runner.model.buffers()
            ]

    def after_train_iter(self, runner: Runner, *args: object, **kw) -> None:
        """Looks at a step that passed the optimizer wrapper by.

        Args:
            runner: The runner.
            args: Unused.
            kw: Unused.
        """
        if self._finite.answer() is False:
            report = self._report(bad_of(self._asked))
            raise NonFiniteLossError(f'{report}{PASSED_BY}')

    def _after_forward(
        self, model: nn.Module, args: tuple, kwargs: dict, output: object
    ) -> dict | None:
        """Asks about the losses; may return others for a step to leave out."""
        if kwargs.get('mode') != 'loss' or not isinstance(output, dict):
            return None
        terms = list(terms_of(output))
        finite = self._everywhere(terms)
        if finite is None:
            return None
        if self._late:
            self._asked = terms
            self._finite.ask(finite)
            return None
        if self._goes_on(bool(finite), terms):
            return None
        self._sync_nothing()
        return without_gradient(output)

    def _sync_nothing(self) -> None:
        """Tells the parallel wrapper that no gradient will come.

        It averages what was accumulated along with the last batch's: without
        that each process would step by gradients of its own.
        """
        model = self.runner.model
        if not getattr(model, 'require_backward_grad_sync', False):
            return
        model.require_backward_grad_sync = False
        self._unsynced = model
        if get_world_size() > 1:
            self.runner.optim_wrapper.zero_grad()

    def _sync_again(self) -> None:
        if self._unsynced is not None:
            self._unsynced.require_backward_grad_sync = True
            self._unsynced = None

    def _step(self, step: Callable, **kwargs: object) -> None:
        """In the place of the optimizer wrapper's own step."""
        finite, terms = self._finite.answer(), self._asked
        self._asked = []
        if finite is None or self._goes_on(finite, terms):
            step(**kwargs)

    def _goes_on(self, finite: bool, terms: list[tuple[str, Tensor]]) -> bool:
        """Whether the step is good; of a bad one what is to be done."""
        if finite:
            self.in_a_row = 0
            return True
        bad = bad_of(terms)
        if self.action == 'stop':
            raise NonFiniteLossError(self._report(bad) + STOPPED)
        self._leave_out(bad)
        return False

    def _everywhere(self, terms: list[tuple[str, Tensor]]) -> Tensor | None:
        """Whether the terms of every process are finite: a scalar, bool;
        None where there is no term.
        """
        alone = get_world_size() == 1
        if not terms:
            if alone:
                return None
            finite = torch.ones((), dtype=torch.bool)
        else:
            values = [torch.isfinite(value) for _, value in terms]
            finite = torch.stack(values).all()
        if alone:
            return finite
        number = finite.float()
        all_reduce(number, 'min')
        return number > 0

    def _leave_out(self, bad: dict[str, float]) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self.in_a_row += 1
        saved = self._save(bad) if bad and self.action == 'save' else ''
        self.runner.logger.warning(
            f'{self._report(bad)} The step was skipped.{saved}'
        )
        if self.in_a_row >= self.max_in_a_row:
            raise NonFiniteLossError(
                f'{self._report(bad)} {self.in_a_row} steps in a row were '
                'skipped: the weights are at fault. Go on from an earlier '
                'checkpoint with a lower learning rate or with clipped '
                'gradients'
            )

    def _report(self, bad: dict[str, float]) -> str:
        if not bad:
            return (
                'A loss of another process is not finite at iteration '
                f'{self.runner.iter + 1} (epoch {self.runner.epoch + 1}).'
            )
        terms = ', '.join(f'{name} is {value}' for name, value in bad.items())
        images = image_names(self._batch)
        shown = ', '.join(images[:IMAGES_SHOWN]) or 'unknown'
        if len(images) > IMAGES_SHOWN:
            shown += f' and {len(images) - IMAGES_SHOWN} more'
        return (
            f'{terms} at iteration {self.runner.iter + 1} (epoch '
            f'{self.runner.epoch + 1}), images: {shown}.'
        )

    def _save(self, bad: dict[str, float]) -> str:
        folder = Path(self.runner.work_dir) / FOLDER
        if len(list(folder.glob('*.pth'))) >= self.max_saved:
            return f' {folder} has {self.max_saved} batches, not saved.'
        rank = f'_rank_{get_rank()}' if get_world_size() > 1 else ''
        path = folder / f'iter_{self.runner.iter + 1}{rank}.pth'
        content = io.BytesIO()
        torch.save(
            dict(
                terms=bad,
                iteration=self.runner.iter + 1,
                epoch=self.runner.epoch + 1,
                images=image_names(self._batch),
                batch=plain_values(self._batch),
            ),
            content,
        )
        write_atomically(path, content.getvalue())
        return f' Its batch is in {path}.'


def _step_along(wrapper: AmpOptimWrapper, **kwargs: object) -> None:
    """In the place of a scaled step, which wants a gradient.

    Where all that was accumulated was left out there is none.
    """
    optimizer = wrapper.optimizer
    groups = optimizer.param_groups
    gradients = (p.grad for group in groups for p in group['params'])
    if any(each is not None for each in gradients) or getattr(
        optimizer, 'distilled', None
    ):
        type(wrapper).step(wrapper, **kwargs)


STOPPED = (
    ' The run was stopped before the weights changed. Look at these images '
    'and at the learning rate; go on with --resume, or leave such steps out '
    "with custom_hooks=[dict(type='mmrkkd.NonFiniteHook', action='skip')]"
)
PASSED_BY = (
    ' The model takes its steps past the optimizer wrapper, which is where '
    'they are left out: the weights have changed. Go on from the last '
    'checkpoint'
)
