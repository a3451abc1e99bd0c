"""To hooks, constructors and optimizers the wrapper is the student."""

import copy
from types import SimpleNamespace

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

NAMES = ('cat', 'dog', 'bird', 'fish', 'frog')


@pytest.fixture
def scope():
    yield init_default_scope
    DefaultScope._instance_dict.clear()


def classifier(head=None, backbone=None, **preprocessing):
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            dict(mean=[120.0] * 3, std=[60.0] * 3, num_classes=5),
            **preprocessing,
        ),
        backbone=backbone or dict(type='mmrkkd.CIFARResNet', depth=8),
        neck=dict(type='GlobalAveragePooling'),
        head=head
        or dict(
            type='LinearClsHead',
            num_classes=5,
            in_channels=64,
            loss=dict(type='CrossEntropyLoss'),
        ),
    )


def distilled(student, losses=None):
    return MODELS.build(
        dict(
            type='mmrkkd.KDClassifier',
            student=student,
            teacher=dict(
                config=classifier(), allow_random_weights=True, classes=NAMES
            ),
            losses=losses or dict(type='mmrkkd.KDLoss'),
            class_names=NAMES,
        )
    )


def runner_of(model):
    """What a hook sees of a runner."""
    return SimpleNamespace(
        model=model, epoch=0, _resume=False, logger=SimpleNamespace(info=print)
    )


def batch(views=None):
    from mmpretrain.structures import DataSample

    torch.manual_seed(0)
    image = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    return dict(
        inputs=image if views is None else [image] * views,
        data_samples=[DataSample().set_gt_label(i) for i in range(4)],
    )


def test_switched_off_mixup_is_off(scope):
    from mmpretrain.engine import SwitchRecipeHook

    scope('mmpretrain')
    mixup = dict(augments=[dict(type='Mixup', alpha=0.8)])
    model = distilled(classifier(batch_augments=mixup))
    mixed = model.data_preprocessor(batch(), True)['data_samples']
    assert any(sample.gt_score.max() < 1 for sample in mixed)
    hook = SwitchRecipeHook([dict(action_epoch=1, batch_augments=None)])
    hook.before_train_epoch(runner_of(model))
    assert model.student.data_preprocessor.batch_augments is None
    plain = model.data_preprocessor(batch(), True)['data_samples']
    assert all(sample.gt_score.max() == 1 for sample in plain)


def test_switched_loss_is_the_students(scope):
    from mmpretrain.engine import SwitchRecipeHook

    scope('mmpretrain')
    model = distilled(classifier())
    loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=5)
    hook = SwitchRecipeHook([dict(action_epoch=1, loss=loss)])
    hook.before_train_epoch(runner_of(model))
    assert type(model.student.head.loss_module).__name__ == 'LabelSmoothLoss'
    data = model.data_preprocessor(batch(), True)
    assert model(**data, mode='loss')['loss_kd'].isfinite()


def test_writes_reach_parts_of_the_student(mmdet_scope):
    model = MODELS.build(
        dict(
            type='mmrkkd.KDDetector',
            student=detector_config(),
            teacher=dict(config=detector_config(), allow_random_weights=True),
            losses=dict(type='mmrkkd.KDLoss'),
        )
    )
    # As YOLOXModeSwitchHook writes.
    model.rpn_head.use_l1 = True
    assert model.student.rpn_head.use_l1 is True
    # A part that is replaced is the student's.
    other = copy.deepcopy(model.roi_head)
    model.roi_head = other
    assert model.student.roi_head is other
    assert 'roi_head' not in model._modules
    keys = set(model.state_dict())
    assert keys == set(model.student.state_dict())


def test_own_attributes_stay_own(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    model.student.task_weight = 'of the student'
    model.task_weight = 'own'
    assert model.student.task_weight == 'of the student'
    model.note = 1
    assert model.note == 1
    assert not hasattr(model.student, 'note')
    with pytest.raises(AttributeError, match='no attribute .*nowhere'):
        model.nowhere  # noqa: B018
    assert copy.deepcopy(model).task_weight == 'own'


def test_methods_of_the_student_answer(mmdet_scope):
    from mmdet.engine.hooks import SetEpochInfoHook

    model = MODELS.build(
        dict(
            type='mmrkkd.KDDetector',
            student=detector_config(),
            teacher=dict(config=detector_config(), allow_random_weights=True),
            losses=dict(type='mmrkkd.KDLoss'),
            class_names=CLASSES,
        )
    )
    seen = []
    model.student.set_epoch = seen.append
    runner = runner_of(model)
    runner.epoch = 3
    SetEpochInfoHook().before_train_epoch(runner)
    assert seen == [3]


def test_parameters_have_the_students_names(scope):
    scope('mmpretrain')
    fitnet = dict(type='mmrkkd.FitNetLoss', student_layers='backbone[0]')
    model = distilled(classifier(), fitnet)
    names = [name for name, _ in model.named_parameters()]
    own = [name for name, _ in model.student.named_parameters()]
    assert names[: len(own)] == own
    assert all(name.startswith('distiller.0.') for name in names[len(own) :])
    assert len(names) > len(own)
    values = [id(value) for value in model.parameters()]
    assert len(set(values)) == len(names)
    prefixed = [name for name, _ in model.named_parameters('m')]
    assert prefixed == [f'm.{name}' for name in names]


def test_layer_wise_learning_rates_of_mmpretrain(scope):
    from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor

    scope('mmpretrain')
    vit = dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=16,
            num_layers=3,
            num_heads=2,
            feedforward_channels=32,
        ),
        img_size=32,
        patch_size=16,
    )
    head = dict(
        type='VisionTransformerClsHead',
        num_classes=5,
        in_channels=16,
        loss=dict(type='CrossEntropyLoss'),
    )
    student = classifier(head, vit)
    student.pop('neck')
    model = distilled(student)
    make = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    rates, plain = (
        {
            group['param_name'].removeprefix('student.'): group['lr']
            for group in make(which).optimizer.param_groups
        }
        for which in (model, model.student)
    )
    assert rates == plain
    assert len(set(rates.values())) > 2


def test_layer_wise_learning_rates_of_mmdetection(mmdet_scope):
    from mmdet.engine.optimizers import (
        LearningRateDecayOptimizerConstructor,
    )

    def with_convnext():
        config = detector_config()
        config.backbone = dict(
            type='mmpretrain.ConvNeXt',
            arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
            out_indices=[0, 1, 2, 3],
            gap_before_final_norm=False,
        )
        return config

    model = MODELS.build(
        dict(
            type='mmrkkd.KDDetector',
            student=with_convnext(),
            teacher=dict(config=detector_config(), allow_random_weights=True),
            losses=dict(type='mmrkkd.KDLoss'),
            class_names=CLASSES,
        )
    )
    make = LearningRateDecayOptimizerConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1)),
        paramwise_cfg=dict(
            decay_rate=0.5, decay_type='layer_wise', num_layers=6
        ),
    )
    groups, plain = (
        {
            group['group_name']: (group['param_names'], group['lr'])
            for group in make(which).optimizer.param_groups
        }
        for which in (model, model.student)
    )
    assert groups == plain
    assert len(groups) > 4


def test_precise_bn_sees_the_students_layers(scope):
    from mmpretrain.engine.hooks.precise_bn_hook import update_bn_stats

    scope('mmpretrain')
    model = distilled(classifier()).train()
    before = model.student.backbone.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    loader = [batch()] * 2
    loader = type('Loader', (list,), dict(batch_size=4))(loader)
    update_bn_stats(model, loader, num_samples=8, logger='silent')
    after = model.student.backbone.state_dict()
    means = [key for key in after if key.endswith('running_mean')]
    assert means
    assert all(not torch.equal(before[key], after[key]) for key in means)


def test_margin_hook_finds_the_students_head(scope):
    """Heads with margins are refused; their hook must get as far as that."""
    from mmpretrain.engine import SetAdaptiveMarginsHook

    scope('mmpretrain')
    model = distilled(classifier())
    with pytest.raises(ValueError, match=r'get .*LinearClsHead'):
        SetAdaptiveMarginsHook().before_train(runner_of(model))


def test_preprocessor_of_a_copy_is_the_copys(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    other = copy.deepcopy(model)
    other.data_preprocessor.note = 1
    assert not hasattr(model.data_preprocessor, 'note')
    views = other.data_preprocessor
    assert copy.copy(views).single is views.single


def test_a_preprocessor_read_from_the_wrapper_may_be_put_back(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    own = model.student.data_preprocessor
    model.data_preprocessor = model.data_preprocessor
    assert model.student.data_preprocessor is own
    other = copy.deepcopy(own)
    model.data_preprocessor = other
    assert model.student.data_preprocessor is other
    assert 'data_preprocessor' not in model._modules
    assert set(model.state_dict()) == set(model.student.state_dict())


def test_parts_may_be_removed_and_added(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    neck = model.neck
    model.add_module('neck', torch.nn.Identity())
    assert type(model.student.neck) is torch.nn.Identity
    del model.neck
    assert not hasattr(model.student, 'neck')
    model.add_module('neck', neck)
    assert model._modules['neck'] is neck
    assert {'head', 'backbone', 'teacher'} <= set(dir(model))


def test_buffers_have_the_students_names(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    names = [name for name, _ in model.named_buffers()]
    assert names == [name for name, _ in model.student.named_buffers()]


def test_a_student_is_replaced_by_one_like_it(scope):
    scope('mmpretrain')
    model = distilled(classifier())
    model.student = MODELS.build(classifier())
    data = model.data_preprocessor(batch(), True)
    assert model(**data, mode='loss')['loss_kd'].isfinite()
    wide = classifier()
    wide['head']['num_classes'] = 7
    with pytest.raises(ValueError, match=r'same scores, .* 5 .* got .* 7 '):
        model.student = MODELS.build(wide)
    assert model.student.head.num_classes == 5


@pytest.mark.parametrize('losses', [None, [], 'KDLoss'])
def test_losses_must_be_some(scope, losses):
    scope('mmpretrain')
    config = dict(
        type='mmrkkd.KDClassifier',
        student=classifier(),
        teacher=dict(config=classifier(), allow_random_weights=True),
        losses=losses,
    )
    with pytest.raises(TypeError, match='losses must be the config of a'):
        MODELS.build(config)


def test_the_same_key_twice_is_refused_with_the_remedy(scope):
    scope('mmpretrain')
    losses = [dict(type='mmrkkd.KDLoss'), dict(type='mmrkkd.RankKDLoss')]
    with pytest.raises(
        ValueError, match='that of KDLoss.* KendallLoss is the'
    ):
        distilled(classifier(), losses)
