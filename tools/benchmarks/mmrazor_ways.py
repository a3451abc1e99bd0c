"""MMRazor's own training steps beside ours, where MMRazor is installed.

MMRazor 1.0.0 asserts MMCV <= 2.1.0, so it needs the official packages::

    make install STACK=openmmlab
    .venv/bin/pip install mmrazor==1.0.0 joblib scipy
    .venv/bin/python tools/benchmarks/step.py --pair faster_rcnn --memory

Its algorithms are built from its config keys around a copy of the student
and a float32 teacher as the other ways have them. Two of them: what it ships
for Faster R-CNN, features of the neck (``FpnTeacherDistill``, PKD), and class
scores, for which it ships nothing (``SingleTeacherDistill``, KL). The latter
compares scores of unlike boxes: each model's are of those that it sampled.
"""

import copy
import importlib.util
import sys
import types
from collections.abc import Callable

from mmengine.registry import Registry
from pairs import Pair
from torch import nn
from ways import Bench, Step

LEVELS = range(4)
OURS = dict(
    type='mmrkkd.PKDLoss', student_layers=[f'neck[{i}]' for i in LEVELS]
)
# Weight of a level, as MMRazor's config of Faster R-CNN has it.
WEIGHT = 6.0
# Its quantization, which needs names that torch 2.11 has no more.
NOT_NEEDED = (
    'engine.runner.quantization_loops',
    'models.algorithms.quantization',
    'models.fake_quants',
    'models.observers',
    'models.quantizers',
    'structures.quantization',
)


def pkd(bench: Bench) -> Step:
    """Ours: PKD on the neck's levels."""
    return bench.step_of(bench.distiller(OURS, precision=bench.precision))


def pkd_in_float32(bench: Bench) -> Step:
    """The same with a teacher in float32."""
    return bench.step_of(bench.distiller(OURS, precision='float32'))


def mmrazor_pkd(bench: Bench) -> Step:
    """MMRazor's: the teacher runs as far as its neck."""
    losses = {
        f'loss_pkd_fpn{i}': dict(type='PKDLoss', loss_weight=WEIGHT)
        for i in LEVELS
    }
    inputs = {name: ('fpn', i) for i, name in enumerate(losses)}
    return _step(bench, 'FpnTeacherDistill', dict(fpn='neck'), losses, inputs)


def mmrazor_kl(bench: Bench) -> Step:
    """MMRazor's: the teacher runs its whole loss."""
    losses = dict(loss_kl=dict(type='KLDivergence', tau=1.0))
    return _step(
        bench,
        'SingleTeacherDistill',
        dict(scores=bench.pair.scores),
        losses,
        dict(loss_kl=('scores', None)),
    )


def algorithm(
    kind: str,
    student: nn.Module,
    teacher: nn.Module,
    layers: dict[str, str],
    losses: dict[str, dict],
    inputs: dict[str, tuple],
) -> nn.Module:
    """One of MMRazor's algorithms around two models.

    Args:
        kind: Its type.
        student: The student.
        teacher: The teacher, in float32.
        layers: Name of a recorder to the layer whose output it keeps.
        losses: Name to config.
        inputs: Name of a loss to the recorder that it compares, and which
            of several outputs (None for a single one).
    """
    registry = mmrazor_models()
    recorders = {
        name: dict(type='ModuleOutputs', source=layer)
        for name, layer in layers.items()
    }
    sides = dict(preds_S=True, preds_T=False)
    mappings = {
        name: {
            argument: dict(from_student=mine, recorder=recorder, data_idx=i)
            for argument, mine in sides.items()
        }
        for name, (recorder, i) in inputs.items()
    }
    model = registry.build(
        dict(
            _scope_='mmrazor',
            type=kind,
            architecture=student,
            teacher=teacher,
            distiller=dict(
                type='ConfigurableDistiller',
                student_recorders=recorders,
                teacher_recorders=copy.deepcopy(recorders),
                distill_losses=losses,
                loss_forward_mappings=mappings,
            ),
        )
    )
    model.train()
    return model


class Placeholder(types.ModuleType):
    """A module that seems to have any name, and that nothing uses."""

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (), {})


def mmrazor_models() -> Registry:
    """MMRazor's registry of models, filled."""
    if 'mmrazor.models' not in sys.modules:
        for name in (f'mmrazor.{part}' for part in NOT_NEEDED):
            sys.modules[name] = Placeholder(name)
    importlib.import_module('mmrazor.models')
    return importlib.import_module('mmrazor.registry').MODELS


def _step(bench: Bench, kind: str, *parts: dict) -> Step:
    # MMRazor takes the in-place activations out of the student.
    student = copy.deepcopy(bench.student)
    model = algorithm(kind, student, bench.plain_teacher(), *parts)
    wrapper = bench.wrapper_of(student)
    return Step(lambda batch: model.train_step(batch, wrapper), model=model)


def ways_of(pair: Pair) -> dict[str, Callable[[Bench], Step]]:
    """Name to what makes a step; none where MMRazor is not installed."""
    if pair.scope != 'mmdet' or importlib.util.find_spec('mmrazor') is None:
        return {}
    return {
        'mmrkkd: PKD on the neck': pkd,
        'mmrkkd: PKD on the neck, teacher at full precision': pkd_in_float32,
        'MMRazor: PKD on the neck': mmrazor_pkd,
        'MMRazor: KL of the class scores': mmrazor_kl,
    }
