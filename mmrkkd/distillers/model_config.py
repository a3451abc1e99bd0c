"""Which model a config is of, with the data preprocessor that it gets."""

import copy

from mmengine.config import ConfigDict

# Of a distiller, and of nothing else that stands in a config.
SETTINGS = (
    'losses',
    'matching',
    'rois',
    'task_weight',
    'gradient_interval',
    'feature_size',
)


def with_preprocessor(model: dict, preprocessor: dict | None) -> ConfigDict:
    """A model's config with a data preprocessor, unless it has its own.

    Args:
        model: Not changed.
        preprocessor: What stands beside it or around it; None for nothing.
    """
    model = ConfigDict(copy.deepcopy(model))
    if preprocessor is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    return model


def whole_model(config: dict) -> ConfigDict:
    """The model that MMEngine's runner would build.

    Args:
        config: A whole config; not changed. Its ``data_preprocessor`` may
            stand beside the model.
    """
    return with_preprocessor(config['model'], config.get('data_preprocessor'))


def refuse_misplaced(config: dict) -> None:
    """Refuses settings of a distiller that stand beside it, not in it.

    A variable of that name is fine where the model has its value.

    Args:
        config: A whole config.

    Raises:
        ValueError: one of :data:`SETTINGS` stands there and is not the
            model's.
    """
    model = config.get('model') or {}
    if 'student' not in model:
        return
    for key in SETTINGS:
        if key in config and config[key] != model.get(key):
            raise ValueError(
                f'{key} at the top of the config does nothing: it must stand '
                f'in the model, which has {model.get(key)!r}. Write model = '
                f'dict({key}=...), or give the variable another name'
            )


def plain_model(config: dict) -> ConfigDict:
    """The model that a checkpoint of a run fits: the student, or the whole.

    A data preprocessor is the student's own, the distiller's or the one
    beside the model, in this order, as :class:`LogitDistiller` has it. In a
    model around another (``DetTTAModel``) the inner one is looked into.

    Args:
        config: A whole config, of a distillation or not; not changed.
    """
    return _without_distillers(whole_model(config))


def _without_distillers(model: ConfigDict) -> ConfigDict:
    while 'student' in model:
        model = with_preprocessor(
            model.student, model.get('data_preprocessor')
        )
    if isinstance(model.get('module'), dict):
        model.module = _without_distillers(model.module)
    return model
