"""DOT: a momentum for the task's gradient, another for distillation's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmrkkd.registry import OPTIMIZERS

# In the state of a parameter that both kinds of gradient have reached.
BY_BOTH = 'by_both'


class Reached(NamedTuple):
    """A parameter with its gradients, of which one may be missing."""

    parameter: Tensor
    task: Tensor | None
    distillation: Tensor | None
    state: dict

    @property
    def is_complete(self) -> bool:
        """Whether both gradients are there."""
        return self.task is not None and self.distillation is not None

    @property
    def total(self) -> Tensor:
        """The sum of the gradients."""
        if self.is_complete:
            return self.task + self.distillation
        return self.distillation if self.task is None else self.task

    def buffer(self, kind: str) -> Tensor:
        """The momentum of a kind of gradient."""
        name = f'momentum_{kind}'
        if name not in self.state:
            self.state[name] = torch.zeros_like(self.parameter)
        return self.state[name]


@OPTIMIZERS.register_module()
class DOT(Optimizer):
    """SGD with two momenta, for :class:`DOTOptimWrapper`.

    With g the gradient of the task's losses and d that of the distillation
    losses, each with the weights of its losses::

        v_task <- (m - delta) v_task + g + wd p
        v_dist <- (m + delta) v_dist + d
        p      <- p - lr (v_task + v_dist)

    A parameter that only one kind of gradient ever reached, such as a
    connector's, has m on both sides; one that none reaches stays as it is.
    With delta = 0 it is SGD with momentum, up to rounding.

    The released code leaves weight decay out of the very first step of a
    parameter that only distillation reaches, lets the momentum of a gradient
    that is missing in some step only rest, and has a single group of
    parameters; here decay is in every step, a missing gradient is 0, and
    each group has its own settings.

    Args:
        params: As for any optimizer; every argument below may be set for a
            group.
        lr: Learning rate >= 0.
        momentum: m in [0, 1). Defaults to 0.9.
        delta: In [0, m], with m + delta < 1. Published are 0.075 on
            CIFAR-100 and Tiny-ImageNet, 0.09 on ImageNet, with m = 0.9.
            Defaults to 0.075.
        weight_decay: wd >= 0. Defaults to 0.0.

    ``p.grad`` is g; ``distilled`` has d. Buffers are in the state dict as
    ``momentum_task`` and ``momentum_distillation``, beside ``by_both``.

    Raises:
        ValueError: an argument is out of its range.

    Source: Zhao et al., DOT: A Distillation-Oriented Trainer, ICCV 2023,
        arXiv:2307.08436, and the released code (mdistiller).
    """

    def __init__(
        self,
        params: object,
        lr: float,
        momentum: float = 0.9,
        delta: float = 0.075,
        weight_decay: float = 0.0,
    ) -> None:
        self.distilled: dict[Tensor, Tensor] = {}
        # Whether gradients are being kept apart at all.
        self.is_fed = False
        super().__init__(
            params,
            dict(
                lr=lr,
                momentum=momentum,
                delta=delta,
                weight_decay=weight_decay,
            ),
        )

    def add_param_group(self, param_group: dict) -> None:
        """As of any optimizer.

        Args:
            param_group: ``params`` and the group's own settings.

        Raises:
            ValueError: a setting is out of its range.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.distilled, self.is_fed = {}, False

    @contextmanager
    def distilling(self) -> Iterator[None]:
        """Backward passes in the block add to distillation's gradients."""
        self.is_fed = True
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchanges the two kinds of gradient; no number is moved."""
        for parameter in self.parameters():
            gradient = parameter.grad
            parameter.grad = self.distilled.pop(parameter, None)
            if gradient is not None:
                self.distilled[parameter] = gradient

    def parameters(self) -> list[nn.Parameter]:
        """Those of all groups."""
        return [p for group in self.param_groups for p in group['params']]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of both kinds.

        Args:
            set_to_none: For those of the task, as in any optimizer.
        """
        self.distilled.clear()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], object] | None = None) -> object:
        """Takes a step along both gradients.

        Args:
            closure: Computes the gradients, if they are not there yet.

        Returns:
            What the closure returns.

        Raises:
            RuntimeError: nobody keeps the gradients apart.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        if not self.is_fed:
            raise RuntimeError(
                'mmrkkd.DOT wants the gradients of task and distillation '
                'apart, and got their sum: set '
                "optim_wrapper.type='mmrkkd.DOTOptimWrapper'"
            )
        for group in self.param_groups:
            reached = self._reached(group['params'])
            for each in reached:
                if each.is_complete and BY_BOTH not in each.state:
                    each.state[BY_BOTH] = torch.ones(())
            both = [each for each in reached if BY_BOTH in each.state]
            one = [each for each in reached if BY_BOTH not in each.state]
            _move(both, group, group['delta'])
            _move(one, group, 0.0)
        return result

    def _reached(self, parameters: Sequence[nn.Parameter]) -> list[Reached]:
        """Those parameters that have a gradient."""
        return [
            Reached(p, p.grad, self.distilled.get(p), self.state[p])
            for p in parameters
            if p.grad is not None or p in self.distilled
        ]

    @torch.no_grad()
    def clip(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Scales both gradients of all parameters by one factor.

        It is that by which the sum of the two would be clipped.

        Args:
            max_norm: What the norm of the sum is brought down to.
            norm_type: p of the p-norm. Defaults to 2.0.

        Returns:
            The norm before, a scalar.
        """
        reached = self._reached(self.parameters())
        norms = [
            torch.linalg.vector_norm(each.total, norm_type) for each in reached
        ]
        if not norms:
            return torch.zeros(())
        norm = torch.linalg.vector_norm(torch.stack(norms), norm_type)
        # As PyTorch's clip_grad_norm_ has it.
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in self.gradients():
            gradient.mul_(factor)
        return norm

    def gradients(self) -> list[Tensor]:
        """All gradients: the task's, then distillation's."""
        parameters = self.parameters()
        return [
            *(p.grad for p in parameters if p.grad is not None),
            *(self.distilled[p] for p in parameters if p in self.distilled),
        ]


def _move(reached: Sequence[Reached], group: dict, delta: float) -> None:
    """A step of some parameters along their gradients."""
    if not reached:
        return
    parameters = [each.parameter for each in reached]
    for kind, momentum, decay in (
        ('task', group['momentum'] - delta, group['weight_decay']),
        ('distillation', group['momentum'] + delta, 0.0),
    ):
        buffers = [each.buffer(kind) for each in reached]
        torch._foreach_mul_(buffers, momentum)
        if decay:
            torch._foreach_add_(buffers, parameters, alpha=decay)
        pulled = [
            (buffer, gradient)
            for buffer, each in zip(buffers, reached, strict=True)
            if (gradient := getattr(each, kind)) is not None
        ]
        if pulled:
            torch._foreach_add_(*map(list, zip(*pulled, strict=True)))
        torch._foreach_add_(parameters, buffers, alpha=-group['lr'])


def _check(group: dict) -> None:
    """Refuses settings that are out of their range."""
    lr, momentum, delta = group['lr'], group['momentum'], group['delta']
    for name, value, fits, rule in (
        ('lr', lr, lr >= 0, '>= 0'),
        ('momentum', momentum, 0 <= momentum < 1, 'in [0, 1)'),
        (
            'delta',
            delta,
            0 <= delta <= momentum and momentum + delta < 1,
            f'in [0, momentum], with momentum + delta < 1; momentum is '
            f'{momentum!r}',
        ),
        (
            'weight_decay',
            group['weight_decay'],
            group['weight_decay'] >= 0,
            '>= 0',
        ),
    ):
        if not fits:
            raise ValueError(f'{name} of DOT must be {rule}, got {value!r}')
