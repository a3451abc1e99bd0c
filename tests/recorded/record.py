"""Takes training steps on fixed inputs and writes down what came out.

``python tests/recorded/record.py`` writes ``steps.json``. It was first run
on the code as it stood before the packages of mmrkkd were put in order;
tests/test_recorded_steps.py compares. Run it again only for a change that is
meant to change the numbers of a step, and say so in CHANGELOG.md.
"""

import contextlib
import copy
import hashlib
import json
import platform
import sys
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

from mmrkkd.registry import MODELS

HERE = Path(__file__).resolve().parent
RECORD = HERE / 'steps.json'
sys.path[:0] = [str(HERE.parent), str(HERE.parent / 'test_together')]

import small_classifiers  # noqa: E402
import small_detectors  # noqa: E402

TWO_VIEWS = dict(
    type='mmrkkd.RankKDLoss',
    kd_weight=0.9,
    # 0.9 for each view.
    rank_weight=1.8,
    min_std=0,
    kd=dict(type='mmrkkd.MLKDLoss'),
)
RANK_ALONE = dict(type='mmrkkd.KendallLoss', steepness=2.0, min_std=0)
# The floor under the deviation is younger than the record.
RKKD_OF_BOXES = dict(small_detectors.RKKD, min_std=0)
RKKD_OF_IMAGES = dict(small_classifiers.RKKD, min_std=0)
OTHER_ORDER = ('bird', 'cat', 'dog')


def machine():
    """What decides whether float32 arithmetic is equal bit for bit."""
    return dict(
        torch=torch.__version__,
        processor=_processor(),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=1,
    )


def _processor():
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':')[1].strip()
    return platform.processor()


def detector(base='faster-rcnn', losses=RKKD_OF_BOXES, **changes):
    config = small_detectors.distilled(base, copy.deepcopy(losses))
    config.update(changes)
    items = [small_detectors.sample(number) for number in (0, 1)]
    data = dict(
        inputs=[item['inputs'] for item in items],
        data_samples=[item['data_samples'] for item in items],
    )
    return 'mmdet', config, data


def permuted():
    scope, config, data = detector()
    config['teacher']['classes'] = OTHER_ORDER
    return scope, config, data


def classifier(losses=RKKD_OF_IMAGES, **changes):
    config = small_classifiers.distilled(losses, **changes)
    return 'mmpretrain', config, small_classifiers.batch()


def two_views():
    scope, config, data = classifier(TWO_VIEWS)
    data['inputs'] = [data['inputs'], data['inputs'].flip(-1)]
    return scope, config, data


CASES = {
    'two_stage': detector,
    'two_stage_confidence': lambda: detector(rois='confidence'),
    'two_stage_other_class_order': permuted,
    'cascade': lambda: detector('cascade-rcnn'),
    'classifier': lambda: classifier(gradient_interval=1),
    'classifier_ranking_alone': lambda: classifier(RANK_ALONE),
    'two_views': two_views,
}


def take(name):
    """One step of a case: its log, and the gradient of every parameter.

    Returns:
        ``terms`` (log key to number, as hexadecimal text), ``gradient``
        (SHA-256 of all gradients in the order of the parameters) and
        ``norm`` (their L2 norm, as hexadecimal text).
    """
    scope, config, data = CASES[name]()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with DefaultScope.overwrite_default_scope(scope):
            model = MODELS.build(config)
            model.train()
            data = model.data_preprocessor(data, True)
            torch.manual_seed(1)
            terms = model(**data, mode='loss')
            total, log = model.parse_losses(terms)
            total.backward()
    finally:
        torch.set_num_threads(threads)
    gradients = torch.cat(
        [
            parameter.grad.flatten()
            for parameter in model.parameters()
            if parameter.grad is not None
        ]
    )
    return dict(
        terms={key: float(value).hex() for key, value in log.items()},
        gradient=hashlib.sha256(gradients.numpy().tobytes()).hexdigest(),
        norm=float(gradients.double().norm()).hex(),
    )


if __name__ == '__main__':
    steps = {name: take(name) for name in CASES}
    content = dict(machine=machine(), steps=steps)
    RECORD.write_text(json.dumps(content, indent=1) + '\n')
    print(f'{len(steps)} steps in {RECORD}')
