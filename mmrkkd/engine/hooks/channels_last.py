"""The layout of memory that convolutions on a CPU like."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmrkkd.engine.launch import unwrapped
from mmrkkd.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Trains with weights and maps whose channels lie side by side.

    On CPUs without fast bfloat16 a small network's step takes less time
    then, teacher included (docs/en/performance.md). The numbers are those
    of other sums of the same terms; checkpoints are read and written as
    ever.

    For classifiers, and dense detectors of plain convolutions: operators of
    MMCV read maps of this layout as if they were of the usual one.

    Raises:
        ValueError: before training, if the model has an operator of MMCV.
    """

    def before_train(self, runner: Runner) -> None:
        """See :class:`mmengine.hooks.Hook`."""
        model = unwrapped(runner.model)
        teacher = getattr(model, 'teacher', None)
        models = [model] if teacher is None else [model, teacher.model]
        for each in models:
            _refuse_operators(each)
        for each in models:
            each.to(memory_format=torch.channels_last)


def _refuse_operators(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if type(part).__module__.startswith('mmcv.ops'):
            raise ValueError(
                f'ChannelsLastHook: {type(model).__name__} has '
                f'{type(part).__name__} ({name}), which reads maps with the '
                'channels last as if they were of the usual layout; remove '
                'the hook from custom_hooks'
            )
