"""Parallel strategies that split a model cannot train a distiller."""

from mmengine.config import Config
from torch import nn

from mmrkkd.registry import type_name

STRATEGIES = dict(
    strategy=('SingleDeviceStrategy', 'DDPStrategy'),
    model_wrapper_cfg=('MMDistributedDataParallel',),
)
REASON = (
    "its checkpoint is the plain student's, whose names such a strategy does "
    'not know, and its teacher stands outside of the module tree. Use '
    'MMDistributedDataParallel, the default of --launcher, and '
    'AmpOptimWrapper if memory is short'
)


def refuse_strategies(config: Config) -> None:
    """Refuses a config that would split a distiller, before it is built.

    Args:
        config: A whole config; models without a student are passed over.

    Raises:
        ValueError: ``strategy`` or ``model_wrapper_cfg`` is not MMEngine's
            plain or data parallel one.
    """
    if 'student' not in (config.get('model') or {}):
        return
    for name, known in STRATEGIES.items():
        kind = type_name(config.get(name))
        if kind and kind not in known:
            raise ValueError(
                f'{name}.type={kind!r} cannot train a distiller: {REASON} '
                '(docs/en/robust_runs.md)'
            )


def refuse_sharding(model: nn.Module) -> None:
    """Stops the first step of a distiller that FSDP has wrapped.

    Whoever trains without our tools meets no :func:`refuse_strategies`. The
    steps would run, and the first checkpoint fail.

    Raises:
        NotImplementedError: it is wrapped.
    """
    # Wrapping leaves this mark on every module that it manages.
    if getattr(model, '_is_fsdp_managed_module', False):
        raise NotImplementedError(
            f'{type(model).__name__} cannot be trained by FSDP '
            f'(MMFullyShardedDataParallel, FSDPStrategy): {REASON}'
        )
