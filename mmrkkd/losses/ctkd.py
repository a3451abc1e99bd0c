"""CTKD: a temperature that learns to make distillation harder."""

import math

import torch
from torch import Tensor, nn

from mmrkkd.ops import kl_divergence
from mmrkkd.ops.checks import check_positive

from .base import LogitLoss
from .schedule import build_schedule


class CTKDLoss(LogitLoss):
    """Distillation at a temperature learned against the student.

    ::

        loss_ctkd = w T^2 KL(p_t || p_s),     p = softmax(z / T)
        T = T_min + T_range sigmoid(theta)

    One number theta is shared by all samples, and by teacher and student.
    The student descends this loss while theta climbs it: between T and the
    loss the gradient is reversed and multiplied by a ramp lambda,

    ::

        d loss / d theta  :=  -lambda (d loss / d T) (d T / d theta)

    where T counts in the divergence and in T^2. With the defaults T starts
    at 1 + 20 sigmoid(1) = 15.62 and stays in (1, 21).

    theta is a parameter of this module: it is trained by the optimizer of
    the student, with its learning rate, momentum and weight decay (as the
    authors do), and it is saved. It belongs to this loss only; the ranking
    term of :class:`RankKDLoss` has no temperature and sends it nothing.

    Args:
        loss_weight: w >= 0, or a schedule (:func:`build_schedule`). It
            scales theta's gradient too. Defaults to 1.0.
        ramp: lambda >= 0, a number or a schedule. Defaults to half a cosine
            from 0 to 1 over 10 epochs, which is 0.0245 in the first epoch
            and 1 from the 10th on; for ImageNet the authors take 5 epochs.
        min_temperature: T_min > 0. Defaults to 1.0.
        temperature_range: T_range > 0. Defaults to 20.0.
        theta: Where theta starts. Defaults to 1.0.

    Log keys: ``loss_ctkd``, and the diagnostic ``kd/temperature``, T (0
    where no sample is selected, as every mean).

    Source: Li et al., arXiv:2211.16231, the global temperature. The
        released code holds the minus sign in lambda (from 0 to -1), which
        is the same. It has no code for the temperature of each instance,
        and neither has this class.
    """

    apart = True

    def __init__(
        self,
        loss_weight: float | dict = 1.0,
        ramp: float | dict | None = None,
        min_temperature: float = 1.0,
        temperature_range: float = 20.0,
        theta: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss_weight = build_schedule('loss_weight', loss_weight)
        if ramp is None:
            ramp = dict(type='cosine', end=10)
        self.ramp = build_schedule('ramp', ramp)
        self.min_temperature = check_positive(
            'min_temperature', min_temperature
        )
        self.temperature_range = check_positive(
            'temperature_range', temperature_range
        )
        if not isinstance(theta, (int, float)) or not math.isfinite(theta):
            raise ValueError(f'theta must be a finite number, got {theta!r}')
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float32))

    def temperature(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """T, a scalar, whose gradient to theta is not reversed."""
        share = torch.sigmoid(self.theta.to(dtype))
        return self.min_temperature + self.temperature_range * share

    def per_sample(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None,
    ) -> dict[str, Tensor]:
        """See :meth:`LogitLoss.per_sample`."""
        temperature = self.temperature(student_logits.dtype)
        reversed_temperature = _ReverseGradient.apply(
            temperature, self.now(self.ramp)
        )
        divergence = kl_divergence(
            student_logits, teacher_logits, reversed_temperature
        )
        scale = self.now(self.loss_weight) * reversed_temperature.square()
        return {
            'loss_ctkd': scale * divergence,
            'kd/temperature': temperature.detach().expand_as(divergence),
        }

    def extra_repr(self) -> str:
        """The settings, for the log."""
        highest = self.min_temperature + self.temperature_range
        return (
            f'temperature in ({self.min_temperature:g}, {highest:g}), '
            f'ramp={self.ramp}, loss_weight={self.loss_weight}'
        )


class _ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -factor."""

    @staticmethod
    def forward(value: Tensor, factor: float) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.factor * gradient, None
