"""A guard against losses that are NaN or infinite."""

import io
from collections.abc import Iterator
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
from mmrkkd.registry import HOOKS

ACTIONS = ('stop', 'skip', 'save')
FOLDER = 'non_finite'
IMAGES_SHOWN = 8


class NonFiniteLossError(FloatingPointError):
    """A loss term was NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Notices a non-finite loss before it reaches the weights.

    It looks at every loss term between the forward and the backward pass,
    and names the terms, the iteration and the images of the batch.

    A step that is skipped changes neither weights nor optimizer nor the
    buffers of the model (running means of batch norm); it still counts as
    an iteration, so schedules go on, and its terms are logged as they are.
    With several processes all of them skip it together. Gradients that
    overflow behind a finite loss are not noticed: clip them, or use a loss
    scaler, which skips such steps itself.

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
        self._handle = None

    def before_train(self, runner: Runner) -> None:
        """Starts to watch the model.

        Args:
            runner: The runner.
        """
        model = unwrapped(runner.model)
        self.runner = runner
        self._handle = model.register_forward_hook(
            self._after_forward, with_kwargs=True
        )

    def after_train(self, runner: Runner) -> None:
        """Watches no more.

        Args:
            runner: The runner.
        """
        self._handle.remove()
        # Neither the last batch nor the runner is kept alive.
        self._batch, self._buffers, self.runner = None, [], None

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
        if self.action != 'stop':
            self._buffers = [
                (buffer, buffer.clone()) for buffer in runner.model.buffers()
            ]

    def _after_forward(
        self, model: nn.Module, args: tuple, kwargs: dict, output: object
    ) -> dict | None:
        """Looks at the losses; returns others for a step to leave out."""
        if kwargs.get('mode') != 'loss' or not isinstance(output, dict):
            return None
        bad = non_finite_terms(output)
        if self.action == 'stop':
            if bad:
                raise NonFiniteLossError(self._report(bad) + STOPPED)
            return None
        if not self._anywhere(bool(bad), output):
            self.in_a_row = 0
            return None
        self._leave_out(bad)
        if isinstance(self.runner.optim_wrapper, AmpOptimWrapper):
            # Its loss scaler skips the step, and wants to see why.
            return None
        return _without_gradient(output)

    def _leave_out(self, bad: dict[str, float]) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self.in_a_row += 1
        if bad:
            saved = self._save(bad) if self.action == 'save' else ''
            self.runner.logger.warning(
                f'{self._report(bad)} The step was skipped.{saved}'
            )
        if self.in_a_row >= self.max_in_a_row:
            report = self._report(bad) if bad else 'A loss is not finite.'
            raise NonFiniteLossError(
                f'{report} {self.in_a_row} steps in a row were skipped: the '
                'weights are at fault. Go on from an earlier checkpoint with '
                'a lower learning rate or with clipped gradients'
            )

    @staticmethod
    def _anywhere(is_bad: bool, output: dict) -> bool:
        """Whether this step is bad in any process."""
        if get_world_size() == 1:
            return is_bad
        terms = list(_terms(output))
        flag = torch.tensor(float(is_bad))
        if terms:
            flag = flag.to(terms[0][1].device)
        all_reduce(flag, 'max')
        return bool(flag)

    def _report(self, bad: dict[str, float]) -> str:
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


STOPPED = (
    ' The run was stopped before the weights changed. Look at these images '
    'and at the learning rate; go on with --resume, or leave such steps out '
    "with custom_hooks=[dict(type='mmrkkd.NonFiniteHook', action='skip')]"
)


def _terms(losses: dict) -> Iterator[tuple[str, Tensor]]:
    """Every loss term, those of several levels or stages added up."""
    for name, value in losses.items():
        if 'loss' not in name:
            continue
        levels = value if isinstance(value, (list, tuple)) else [value]
        levels = [level.detach().mean() for level in levels]
        if levels:
            yield name, sum(levels)


def non_finite_terms(losses: dict) -> dict[str, float]:
    """The loss terms of a step that are NaN or infinite.

    Args:
        losses: What a model's forward pass gives in mode 'loss': log key to
            tensor or list of tensors. Keys without 'loss' are diagnostics
            and are not looked at.

    Returns:
        Log key to value, as MMEngine logs it.
    """
    terms = list(_terms(losses))
    if not terms:
        return {}
    finite = torch.stack([torch.isfinite(value) for _, value in terms])
    # One synchronisation on a GPU.
    if bool(finite.all()):
        return {}
    return {
        name: value.item()
        for name, value in terms
        if not torch.isfinite(value)
    }


def _without_gradient(losses: dict) -> dict:
    """The same values, whose backward pass reaches no parameter.

    An optimizer passes over parameters without a gradient: no momentum, no
    weight decay, no step is counted.
    """

    def cut(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [cut(item) for item in value]
        if not value.is_floating_point():
            return value
        return value.detach() + value.new_zeros((), requires_grad=True)

    return {name: cut(value) for name, value in losses.items()}
