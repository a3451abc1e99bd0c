"""The layout of memory that convolutions on a CPU like."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmrkkd.engine.launch import unwrapped
from mmrkkd.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Trains with weights and maps whose channels lie side by side.

    On CPUs a small network's step takes less time then, teacher included
    (docs/en/performance.md). The numbers are those of other sums of the
    same terms; checkpoints are read and written as ever.

    Operators of MMCV read maps of this layout as if they were of the usual
    one: those that are layers (RoI Align, deformable convolutions) get the
    usual one. TOOD, which calls one as a function, stops in its first step:
    "input must be contiguous".
    """

    def before_train(self, runner: Runner) -> None:
        """See :class:`mmengine.hooks.Hook`."""
        model = unwrapped(runner.model)
        teacher = getattr(model, 'teacher', None)
        models = [model] if teacher is None else [model, teacher.model]
        for each in models:
            each.to(memory_format=torch.channels_last)
            for part in each.modules():
                if type(part).__module__.startswith('mmcv.ops'):
                    part.to(memory_format=torch.contiguous_format)
                    part.register_forward_pre_hook(_of_the_usual_layout)


def _of_the_usual_layout(part: nn.Module, args: tuple) -> tuple:
    return tuple(
        value.contiguous() if isinstance(value, Tensor) else value
        for value in args
    )
