"""Keeps the gradients of task and distillation apart, for DOT."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_

from mmrkkd.distillers import LogitDistiller
from mmrkkd.distillers.terms import LossParts
from mmrkkd.registry import OPTIM_WRAPPERS

from .dot import DOT
from .launch import unwrapped
from .optim_wrapper import AutocastOptimWrapper

CLIPPING = {'max_norm', 'norm_type'}


@OPTIM_WRAPPERS.register_module()
class DOTOptimWrapper(OptimWrapper):
    """Two backward passes over one graph, one for each kind of loss.

    ::

        optim_wrapper = dict(
            type='mmrkkd.DOTOptimWrapper',
            optimizer=dict(type='mmrkkd.DOT', lr=0.05, delta=0.075),
        )

    The student runs once, as ever. Its graph is kept for the second pass, and
    each parameter has two gradients and two momenta until the step: see
    :class:`DOT` for what it does with them.

    Accumulated gradients add up apart. ``clip_grad`` scales both by the
    factor by which their sum would be clipped (``max_norm``, ``norm_type``;
    clipping by value is refused). Where several processes train, both are
    averaged over them before the step, not during the backward passes, and
    parameters that no loss of a process reaches count as 0 there.

    With :class:`AutocastOptimWrapper`'s precision it is
    :class:`DOTAutocastOptimWrapper`, with a loss scaler
    :class:`DOTAmpOptimWrapper`.

    Args:
        kwargs: Those of the wrapper of the same precision; ``optimizer`` is
            a :class:`DOT`.

    Raises:
        TypeError: the optimizer is another, or the model is no distiller.
        ValueError: gradients are to be clipped by value.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.optimizer, DOT):
            raise TypeError(
                f'{type(self).__name__} has two momenta, which only '
                'mmrkkd.DOT keeps: set optim_wrapper.optimizer.type='
                f"'mmrkkd.DOT', got {type(self.optimizer).__name__}"
            )
        unknown = sorted(set(self.clip_grad_kwargs or ()) - CLIPPING)
        by_value = self.clip_grad_kwargs and self.clip_func != clip_grad_norm_
        if by_value or unknown:
            raise ValueError(
                f'{type(self).__name__} clips by the norm of the sum of both '
                f'gradients: clip_grad takes {" and ".join(sorted(CLIPPING))}'
                f', got {"type=value" if by_value else ", ".join(unknown)}'
            )
        # On the host's side, where nothing waits for the device.
        self._hosts: distributed.ProcessGroup | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass.

        Args:
            model: A distiller, parallel or not.

        Raises:
            TypeError: it is none.
        """
        distiller = unwrapped(model)
        if not isinstance(distiller, LogitDistiller):
            raise TypeError(
                f'{type(self).__name__} trains distillers, such as '
                'mmrkkd.KDClassifier, whose losses are of two kinds; got '
                f'{type(distiller).__name__}'
            )
        distiller.splits_losses = True
        # Parallel wrappers reduce the gradients of one backward pass.
        apart = getattr(model, 'no_sync', nullcontext)
        try:
            with apart(), super().optim_context(model):
                yield
        except BaseException:
            # Nobody asks for the losses of this step any more.
            distiller.splits_losses = False
            raise

    def update_params(
        self,
        loss: LossParts,
        step_kwargs: dict | None = None,
        zero_kwargs: dict | None = None,
    ) -> None:
        """Takes the gradients of both losses, and steps where it is time.

        Args:
            loss: What the distiller's ``parse_losses`` gives.
            step_kwargs: Of :meth:`step`. Defaults to None.
            zero_kwargs: Of :meth:`zero_grad`. Defaults to None.
        """
        task, distillation = map(self.scale_loss, loss)
        if task.requires_grad:
            self.backward(task, retain_graph=distillation.requires_grad)
            # Two passes are one step.
            self._inner_count -= 1
        with self.optimizer.distilling():
            if distillation.requires_grad:
                self.backward(distillation)
            else:
                self._inner_count += 1
        if self.should_update():
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def step(self, **kwargs: object) -> None:
        """Takes a step.

        Args:
            kwargs: Of :meth:`DOT.step`.
        """
        self._average()
        super().step(**kwargs)

    def _clip_grad(self) -> None:
        norm = self.optimizer.clip(**self.clip_grad_kwargs)
        self.message_hub.update_scalar(f'train/{self.grad_name}', float(norm))

    def _average(self) -> None:
        """Means of both gradients over the processes."""
        if get_world_size() == 1:
            return
        optimizer = self.optimizer
        parameters = optimizer.parameters()
        there = self._somewhere(
            torch.tensor(
                [
                    [p.grad is not None, p in optimizer.distilled]
                    for p in parameters
                ],
                dtype=torch.uint8,
            )
        )
        for parameter, (task, distilled) in zip(
            parameters, there.tolist(), strict=True
        ):
            if task and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if distilled and parameter not in optimizer.distilled:
                optimizer.distilled[parameter] = torch.zeros_like(parameter)
        all_reduce_params(optimizer.gradients(), op='mean')

    def _somewhere(self, flags: Tensor) -> Tensor:
        """Which flags are set in some process; the host's tensors."""
        if self._hosts is None and distributed.get_backend() != 'gloo':
            self._hosts = distributed.new_group(backend='gloo')
        distributed.all_reduce(
            flags, distributed.ReduceOp.MAX, group=self._hosts
        )
        return flags


@OPTIM_WRAPPERS.register_module()
class DOTAutocastOptimWrapper(DOTOptimWrapper, AutocastOptimWrapper):
    """:class:`DOTOptimWrapper` with a forward pass in bfloat16."""


@OPTIM_WRAPPERS.register_module()
class DOTAmpOptimWrapper(DOTOptimWrapper, AmpOptimWrapper):
    """:class:`DOTOptimWrapper` with MMEngine's loss scaler.

    A step is skipped, and the scale reduced, where either gradient has
    overflowed.
    """

    def step(self, **kwargs: object) -> None:
        """Takes a step, or skips it.

        Args:
            kwargs: Of :meth:`DOT.step`.
        """
        self._average()
        both = BothGradients(self.optimizer)
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(both)
            self._clip_grad()
        self.loss_scaler.step(both, **kwargs)
        self.loss_scaler.update(self._scale_update_param)


class BothGradients:
    """Shows a loss scaler the gradients of both kinds.

    It unscales and examines ``.grad`` of all parameters. Here each gradient
    has a parameter of its own.

    Args:
        optimizer: Has them.
    """

    def __init__(self, optimizer: DOT) -> None:
        self.step = optimizer.step
        shown = []
        for gradient in optimizer.gradients():
            shown.append(gradient.detach())
            shown[-1].grad = gradient
        self.param_groups = [dict(params=shown)]
