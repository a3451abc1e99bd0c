"""Losses that compare boxes, with what else a run may switch on."""

import copy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, ROOT, detector_config
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner.activation_checkpointing import (
    turn_on_activation_checkpointing,
)
from small_detectors import finish, make_runner, sample

from mmrkkd.checkpoint import use_safe_reader
from mmrkkd.distillers.readers import locations
from mmrkkd.engine.hooks import RunStateHook
from mmrkkd.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

from small_dense_heads import dense_config

pytestmark = pytest.mark.usefixtures('mmdet_scope')
GIOU = dict(type='mmrkkd.BoxGIoULoss')
LD = dict(type='mmrkkd.LDLoss', temperature=1.0, loss_weight=68.0)
CROSSED = dict(type='rois', cross_layer='shared_fcs.0')
# The file of the method, and the reader where it names none.
METHODS = dict(
    gfl=('dense_crosskd_ld', {}),
    retinanet=('dense_crosskd_giou', {}),
    crossed=('detection_kd_giou', dict(matching=CROSSED)),
)


def student_of(family):
    return detector_config() if family == 'crossed' else dense_config(family)


def config(family, **changes):
    method, reader = METHODS[family]
    path = f'{ROOT}/configs/_base_/methods/{method}.py'
    student = student_of(family)
    student.backbone.norm_eval = True
    return dict(
        type='mmrkkd.KDDetector',
        student=student,
        teacher=dict(
            config=student_of(family),
            allow_random_weights=True,
            classes=CLASSES,
        ),
        class_names=CLASSES,
        **{**Config.fromfile(path).distillation, **reader, **changes},
    )


def build(family, **changes):
    torch.manual_seed(0)
    model = MODELS.build(config(family, **changes))
    model.init_weights()
    # No twin of the student, whose boxes would be the same.
    for weight in model.teacher.model.parameters():
        weight.mul_(1.5)
    return model.train()


def batch(*objects):
    items = [sample(2 * n, boxes) for n, boxes in enumerate(objects)]
    return {key: [item[key] for item in items] for key in items[0]}


def terms_of(model, data):
    torch.manual_seed(1)
    return model(**model.data_preprocessor(data, True), mode='loss')


def of_boxes(terms):
    kinds = ('loss_box_giou', 'loss_ld')
    return {k: v for k, v in terms.items() if k.split('.')[-1] in kinds}


def gradients(model):
    return {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


# -- batches ----------------------------------------------------------------


@pytest.mark.parametrize('family', ['crossed'])
def test_no_parameter_is_unused_with_objects_or_without(one_process, family):
    """DDP raises in the step after one that left a parameter out."""
    model = MMDistributedDataParallel(build(family))
    optimizer = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=1e-5))
    )
    for objects in ((3, 0), (0, 0), (3, 3)):
        log = model.train_step(batch(*objects), optimizer)
        assert of_boxes(log)
        assert all(value.isfinite() for value in log.values())
        assert all(value > 0 for value in of_boxes(log).values())


@pytest.mark.parametrize('loss', [LD, dict(GIOU, difference=False)])
def test_no_object_no_term_at_the_foreground(loss):
    losses = dict(loss, locations='foreground')
    model = build('gfl', losses=losses, matching='auto')
    (term,) = of_boxes(terms_of(model, batch(0, 0))).values()
    term.backward()
    assert term == 0
    assert not any(grad.any() for grad in gradients(model).values())


# -- processes --------------------------------------------------------------


@pytest.mark.parametrize(
    ('family', 'loss'),
    [
        ('gfl', dict(LD, locations='confidence')),
        ('retinanet', dict(GIOU, normalizer='weight')),
    ],
)
def test_a_group_of_one_divides_as_none_does(
    one_process, monkeypatch, family, loss
):
    found = []
    for grouped in (False, True):
        monkeypatch.setattr(
            locations, 'is_distributed', partial(bool, grouped)
        )
        model = build(family, losses=loss, matching='auto')
        found.append(of_boxes(terms_of(model, batch(3, 1))))
    assert found[0]
    torch.testing.assert_close(*found)


# -- checkpointed activations ---------------------------------


@pytest.mark.parametrize(
    ('family', 'part', 'option'),
    [
        ('gfl', 'bbox_head.reg_convs.2', 'cross_box_layer'),
        ('crossed', 'roi_head.bbox_head', 'cross_layer'),
    ],
)
def test_a_layer_that_is_crossed_in_a_checkpointed_block_is_refused(
    family, part, option
):
    model = build(family)
    turn_on_activation_checkpointing(model, [part])
    with pytest.raises(RuntimeError, match=f'{option}=.* without gradient'):
        terms_of(model, batch(3, 3))


# -- whole runs -------------------------------------------------------------


def runner_of(work_dir, family, **changes):
    model = config(family)
    weight = dict(type='linear', end=8, by='iteration')
    model['losses'] = copy.deepcopy(model['losses'])
    model['losses'][1]['loss_weight'] = weight
    model['student'].backbone.update(frozen_stages=1)
    return make_runner(
        model,
        work_dir,
        steps=4,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1e-3, momentum=0.9),
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
        ),
        default_hooks=dict(
            checkpoint=dict(
                type='mmrkkd.AtomicCheckpointHook', interval=2, by_epoch=False
            )
        ),
        custom_hooks=[EMAHook(momentum=0.1), RunStateHook()],
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize('family', ['crossed'])
def test_a_resumed_run_is_the_whole_one(tmp_path, monkeypatch, family):
    """With EMA, accumulation, clipping, a frozen stage and a warm-up."""
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes)
    )
    use_safe_reader()
    runner, steps, saved = finish(runner_of(tmp_path / 'whole', family))
    _, others, resumed = finish(
        runner_of(
            tmp_path / 'resumed',
            family,
            resume=True,
            load_from=f'{tmp_path}/whole/iter_2.pth',
        )
    )
    assert others == steps[2:]
    assert all(
        value > 0 for step in steps for value in of_boxes(step).values()
    )
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in saved[part].items():
            assert torch.equal(resumed[part][key], value), key
    moved = [
        key
        for key, value in runner.start.items()
        if not torch.equal(saved['state_dict'][key], value)
    ]
    assert moved and not any(
        key.startswith('backbone.layer1') for key in moved
    )
