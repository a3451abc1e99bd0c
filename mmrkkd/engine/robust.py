"""Puts the hooks of this package into a config."""

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

STOCK = ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook)
# What MMEngine takes where a config says nothing.
MMENGINE_DEFAULT = dict(type='CheckpointHook', interval=1)
ADDED = ('mmrkkd.RunStateHook', 'mmrkkd.NonFiniteHook')


def use_robust_hooks(config: Config) -> None:
    """Makes a run that survives out of any config.

    MMEngine's checkpoint hook is replaced by
    :class:`AtomicCheckpointHook` with the same settings, and
    :class:`RunStateHook` and :class:`NonFiniteHook` are added unless the
    config has them. Another checkpoint hook, and a config with a
    ``runner_type`` of its own, are left as they are.

    Args:
        config: Changed in place.
    """
    if 'runner_type' in config:
        return
    hooks = dict(config.get('default_hooks') or {})
    checkpoint = hooks.get('checkpoint', MMENGINE_DEFAULT)
    # None turns the hook off.
    if checkpoint is not None and checkpoint.get('type') in STOCK:
        hooks['checkpoint'] = dict(
            checkpoint, type='mmrkkd.AtomicCheckpointHook'
        )
        config.default_hooks = hooks
    custom = list(config.get('custom_hooks') or [])
    present = {
        getattr(hook.get('type'), '__name__', hook.get('type'))
        for hook in custom
        if isinstance(hook, dict)
    }
    present = {str(name).split('.')[-1] for name in present}
    config.custom_hooks = custom + [
        dict(type=name) for name in ADDED if name.split('.')[-1] not in present
    ]
