"""The registries of mmrkkd: children of MMEngine's, scope ``mmrkkd``.

``type='mmrkkd.X'`` in a config resolves without any import, because
MMEngine imports ``mmrkkd.registry`` when it meets the scope. After
``import mmrkkd`` (or ``custom_imports``) the bare name ``X`` resolves too,
from every OpenMMLab registry: see :func:`publish`.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

# Distillers, losses and backbones.
MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmrkkd',
    locations=['mmrkkd.losses', 'mmrkkd.models'],
)
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope='mmrkkd', locations=['mmrkkd.hooks']
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
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper',
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope='mmrkkd',
    locations=['mmrkkd.engine'],
)


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
