"""The registries of mmrkkd: children of MMEngine's, scope ``mmrkkd``.

``type='mmrkkd.X'`` in a config resolves without any import, because
MMEngine imports ``mmrkkd.registry`` when it meets the scope. The bare name
``X`` resolves too, from every OpenMMLab registry, after ``mmrkkd`` was
imported where MMEngine is (``custom_imports`` of a config), or
``mmrkkd.distillers`` anywhere: see :func:`publish`.

Importing this module examines the stack: here OpenMMLab is first needed.
"""

from importlib import import_module

from ._stack import check_stack

# Before anything of MMEngine's: a missing or half-built stack is told in one
# message with the command that mends it, not by a deep traceback.
check_stack()

# ruff: noqa: E402
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

OPENMMLAB_SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')

# Distillers, losses and backbones.
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmrkkd',
    locations=['mmrkkd.distillers', 'mmrkkd.backbones'],
)
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmrkkd',
    locations=['mmrkkd.engine.hooks'],
)
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope='mmrkkd',
    locations=['mmrkkd.datasets'],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope='mmrkkd',
    locations=['mmrkkd.datasets'],
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmrkkd',
    locations=['mmrkkd.evaluation'],
)
OPTIMIZERS = Registry(
    'optimizer',
    parent=MMENGINE_OPTIMIZERS,
    scope='mmrkkd',
    locations=['mmrkkd.engine'],
)
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmrkkd',
    locations=['mmrkkd.engine'],
)


def publish_models() -> None:
    """Makes the bare names of our models, losses and backbones known.

    The packages publish what they have; see :func:`publish`.
    """
    for location in MODELS._locations:
        import_module(location)


def publish(registry: Registry) -> None:
    """Makes the bare names of a registry of ours visible to its siblings.

    A registry that does not know a bare name asks its parents, not its
    siblings. So the name is entered in the root registry as well, unless
    another project has taken it there; then only ``mmrkkd.X`` works.

    Args:
        registry: One of the registries of this module, already filled.
    """
    for name, module in registry.module_dict.items():
        if name not in registry.parent.module_dict:
            registry.parent.register_module(name=name, module=module)


def type_name(config: object) -> str:
    """The bare name of what a config builds.

    ``type='X'``, ``'mmdet.X'``, ``'package.module.X'`` and the class X
    itself, as new-style configs have it, are all 'X'.

    Args:
        config: A dict with ``type``; anything else has the name ''.
    """
    kind = config.get('type') if isinstance(config, dict) else None
    return getattr(kind, '__name__', str(kind or '')).rpartition('.')[2]


def builds(config: object, kind: type) -> bool:
    """Whether a config builds this class of OpenMMLab's.

    A class of the same name in another project is another one.

    Args:
        config: A dict with ``type``.
        kind: The class.
    """
    if type_name(config) != kind.__name__:
        return False
    if not isinstance(config['type'], str):
        return config['type'] is kind
    scope = config['type'].rpartition('.')[0].partition('.')[0]
    return scope in ('', *OPENMMLAB_SCOPES)
