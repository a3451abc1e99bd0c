"""By which config a student is compared with a teacher."""

import copy

from mmengine.config import Config, ConfigDict

# What of a distillation says who is compared with whom, and on what.
KEPT = (
    'type',
    'teacher',
    'teacher_size',
    'matching',
    'rois',
    'classes',
    'class_names',
)


def comparison_config(
    config: Config, teacher: ConfigDict | None
) -> Config | None:
    """The config that compares a run's student with a teacher.

    Args:
        config: The run's, with ``val_dataloader`` and ``val_evaluator``;
            with ``compared_images`` only so many of the images, the first.
        teacher: Model config of a distillation, for a student without a
            teacher of its own.

    Returns:
        A distiller on the validation data; None where there is no teacher.
    """
    config = copy.deepcopy(config)
    if 'teacher' not in config.model:
        if teacher is None:
            return None
        kept = {name: teacher[name] for name in KEPT if name in teacher}
        # Nothing is trained here, but a distiller has a loss: this one is
        # for scores of every kind.
        config.model = dict(
            kept, student=config.model, losses=dict(type='mmrkkd.RankKDLoss')
        )
    config.test_dataloader = config.val_dataloader
    config.test_evaluator = config.val_evaluator
    if 'compared_images' in config:
        config.test_dataloader.dataset.indices = config.compared_images
    return config
