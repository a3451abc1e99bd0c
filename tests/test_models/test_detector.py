"""KDDetector: to everybody but itself it is the student."""

import copy

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from small_dense_heads import distilled as dense_distilled

from mmrkkd.distillers import KDDetector
from mmrkkd.losses import KDLoss

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss', temperature=1.0)


def make(base='faster-rcnn', teacher_base=None, losses=RKKD, **changes):
    teacher = dict(
        config=detector_config(teacher_base or base),
        allow_random_weights=True,
        classes=CLASSES,
    )
    teacher.update(changes.pop('teacher', {}))
    torch.manual_seed(0)
    return KDDetector(
        student=detector_config(base),
        teacher=teacher,
        losses=losses,
        **dict(dict(class_names=CLASSES), **changes),
    )


def losses_of(model, batch):
    torch.manual_seed(1)
    return model(**model.data_preprocessor(batch(), True), mode='loss')


# -- losses ----------------------------------------------------------------


@pytest.mark.parametrize('base', ['faster-rcnn', 'mask-rcnn', 'cascade-rcnn'])
def test_terms_of_a_step(base, batch):
    model = make(base)
    terms = losses_of(model, batch)
    prefixes = ['s0.', 's1.', 's2.'] if base == 'cascade-rcnn' else ['']
    for prefix in prefixes:
        for name in (
            'loss_kd',
            'loss_rank',
            'loss_cls',
            'kd/tau',
            'kd/top1_agreement',
            'kd/kl',
        ):
            assert terms[prefix + name].isfinite().all(), prefix + name
    total, _ = model.parse_losses(terms)
    total.backward()
    head = model.student.roi_head.bbox_head
    head = head[2] if base == 'cascade-rcnn' else head
    assert head.fc_cls.weight.grad.abs().sum() > 0


def test_distillation_terms_follow_from_the_logits(batch):
    model = make()
    seen = {}
    model.student.roi_head.bbox_head.loss_cls.register_forward_pre_hook(
        lambda module, args: seen.update(student=args[0])
    )
    model.teacher.model.roi_head.bbox_head.register_forward_hook(
        lambda module, args, output: seen.update(teacher=output[0])
    )
    terms = losses_of(model, batch)
    expected = model.distiller[0](seen['student'], seen['teacher'])
    torch.testing.assert_close(terms['loss_kd'], expected['loss_kd'])
    torch.testing.assert_close(terms['loss_rank'], expected['loss_rank'])


def test_a_teacher_equal_to_the_student_leaves_no_divergence(batch):
    model = make()
    # Batch statistics of a student in training mode would differ.
    model.teacher.model.load_state_dict(model.student.state_dict())
    terms = losses_of(model.eval(), batch)
    assert abs(terms['loss_kd']) < 1e-6
    torch.testing.assert_close(terms['kd/tau'], torch.tensor(1.0))
    torch.testing.assert_close(terms['kd/top1_agreement'], torch.tensor(1.0))


def test_task_weight(batch):
    plain = losses_of(make(), batch)
    halved = losses_of(make(task_weight=0.5), batch)
    assert set(halved) == set(plain)
    for name, value in plain.items():
        scale = (
            0.5
            if 'loss' in name and name not in ('loss_kd', 'loss_rank')
            else 1.0
        )
        for a, b in zip(
            *(v if isinstance(v, list) else [v] for v in (value, halved[name]))
        ):
            torch.testing.assert_close(b, scale * a)


def test_several_losses(batch):
    model = make(
        losses=[dict(type='KDLoss', temperature=1.0), dict(type='KendallLoss')]
    )
    terms = losses_of(model, batch)
    assert {'loss_kd', 'loss_rank'} <= set(terms)


def test_foreground_only(batch):
    model = make(rois='foreground')
    everything = losses_of(make(), batch)
    terms = losses_of(model, batch)
    assert terms['loss_kd'] != everything['loss_kd']


def test_teacher_of_permuted_classes(batch):
    same, permuted = make(), make()
    order = [2, 0, 1]
    head = permuted.teacher.model.roi_head.bbox_head.fc_cls
    with torch.no_grad():
        rows = [*order, 3]
        head.weight.copy_(head.weight[rows].clone())
        head.bias.copy_(head.bias[rows].clone())
    permuted.teacher.classes = tuple(CLASSES[i] for i in order)
    permuted.class_map = permuted.match_student_classes(CLASSES)
    a, b = losses_of(same, batch), losses_of(permuted, batch)
    torch.testing.assert_close(a['loss_kd'], b['loss_kd'])
    torch.testing.assert_close(a['loss_rank'], b['loss_rank'])


def test_teacher_that_shares_some_classes(batch):
    model = make(
        classes='shared', teacher=dict(classes=('fish', 'bird', 'cat'))
    )
    terms = losses_of(model, batch)
    assert terms['loss_kd'].isfinite()
    assert terms['loss_rank'].isfinite()


def test_caffe_teacher_gets_its_own_input(batch):
    preprocessor = dict(
        mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
    )
    caffe = detector_config(data_preprocessor=preprocessor)
    model = make(teacher=dict(config=caffe))
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    losses_of(model, batch)
    expected = model.teacher.model.data_preprocessor(batch(), True)['inputs']
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=2e-4)


# -- a plain student to everybody else -------------------------------------


@pytest.mark.parametrize('base', ['faster-rcnn', 'mask-rcnn', 'cascade-rcnn'])
def test_state_dict_is_the_plain_students(base):
    model, plain = make(base), MODELS.build(detector_config(base))
    expected = plain.state_dict()
    for state in (model.state_dict(), get_state_dict(model)):
        assert set(state) == set(expected)
        assert set(state._metadata) >= set(expected._metadata) - {''}
        plain.load_state_dict(state, strict=True)
    own = plain.state_dict()
    for key, value in model.student.state_dict().items():
        assert torch.equal(own[key], value)


@pytest.mark.parametrize('load', ['torch', 'mmengine'])
def test_loads_a_plain_students_weights(load):
    plain, model = MODELS.build(detector_config()), make()
    state = plain.state_dict()
    keys = set(state)
    if load == 'torch':
        model.load_state_dict(state, strict=True)
    else:
        load_state_dict(model, state, strict=True)
    assert set(state) == keys
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.student.state_dict()[key])


def test_wrong_weights_are_still_reported():
    state = MODELS.build(detector_config()).state_dict()
    del state['neck.lateral_convs.0.conv.weight']
    state['unknown'] = torch.ones(1)
    with pytest.raises(
        RuntimeError, match='(?s)lateral_convs.*unknown|unknown.*lateral_convs'
    ):
        make().load_state_dict(state, strict=True)


def test_teacher_is_in_nothing():
    model = make()
    own = sum(p.numel() for p in model.parameters())
    assert own == sum(p.numel() for p in model.student.parameters())
    teacher = {id(p) for p in model.teacher.model.parameters()}
    assert not teacher & {id(p) for p in model.parameters()}
    assert model.teacher.model not in list(model.modules())
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    )
    assert not teacher & {
        id(p) for group in wrapper.param_groups for p in group['params']
    }


def test_teacher_stays_frozen_and_in_eval_mode(batch):
    model = make()
    before = copy.deepcopy(model.teacher.model.state_dict())
    for mode in (True, False, True):
        model.train(mode)
        assert not any(m.training for m in model.teacher.model.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.parse_losses(losses_of(model, batch))[0].backward()
    optimizer.step()
    after = model.teacher.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_teacher_follows_dtype_and_device():
    model = make().double()
    parameter = next(model.teacher.model.parameters())
    assert parameter.dtype == torch.float64
    model.to('meta')
    assert next(model.teacher.model.parameters()).device.type == 'meta'


def test_ema_copy_leaves_the_teacher_out(batch):
    model = make()
    ema = ExponentialMovingAverage(model, momentum=0.5)
    assert ema.module.student is not model.student
    state = ema.state_dict()
    plain = MODELS.build(detector_config()).state_dict()
    assert {key.removeprefix('module.') for key in state} - {'steps'} == set(
        plain
    )
    ema.load_state_dict(state, strict=True)
    ema.update_parameters(model)
    assert losses_of(ema.module, batch)['loss_kd'].isfinite()


def test_predicts_like_the_student(batch):
    model = make().eval()
    data = model.data_preprocessor(batch(), False)
    copied = copy.deepcopy(data)
    with torch.no_grad():
        ours = model(**data, mode='predict')
        students = model.student(**copied, mode='predict')
    for a, b in zip(ours, students):
        assert torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes)
        assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)


def test_same_seed_same_student_as_without_distillation():
    torch.manual_seed(3)
    plain = MODELS.build(detector_config())
    plain.init_weights()
    torch.manual_seed(3)
    model = KDDetector(
        detector_config(),
        dict(config=detector_config(), allow_random_weights=True),
        RKKD,
    )
    model.init_weights()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_init_weights_leaves_the_teacher_alone():
    model = make()
    before = copy.deepcopy(model.teacher.model.state_dict())
    model.init_weights()
    after = model.teacher.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_settings_name_what_matters():
    text = make(rois='foreground', task_weight=0.5).settings()
    for part in (
        'FasterRCNN, random weights',
        'same input',
        '4 channels',
        'foreground',
        'task_weight: 0.5',
        'temperature=1',
        'steepness=1',
        'form=1',
    ):
        assert part in text, part


# -- errors ----------------------------------------------------------------


def test_class_lists_must_match():
    with pytest.raises(ValueError, match="(?s)student has .*'cat'.*'fish'"):
        make(teacher=dict(classes=('fish', 'dog', 'bird')))
    bigger = detector_config(num_classes=7)
    with pytest.raises(ValueError, match='4 channels, the teacher 8'):
        make(teacher=dict(config=bigger, classes=None), class_names=None)


@pytest.mark.parametrize(
    'changes,error,message',
    [
        (
            dict(task_weight=-1),
            ValueError,
            'task_weight must be .* >= 0, got -1',
        ),
        (dict(classes='some'), ValueError, "classes must be one of .* 'some'"),
        (dict(rois='none'), ValueError, "rois must be one of .* got 'none'"),
        (dict(losses=dict(type='NoLoss')), KeyError, 'NoLoss is not in'),
    ],
)
def test_errors(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def of_features(name, layer):
    return dict(type=f'mmrkkd.{name}', student_layers=layer)


@pytest.mark.parametrize(
    'losses,message',
    [
        (
            [dict(type='KDLoss'), dict(type='KDLoss', temperature=2.0)],
            r'losses\[0\] \(KDLoss\) and losses\[1\] \(KDLoss\) .* same key, '
            'that of KDLoss: use each type of loss once',
        ),
        (
            [dict(type='RankKDLoss'), dict(type='KDLoss')],
            r'\(RankKDLoss\) and .* \(KDLoss\) .* that of KDLoss: use each',
        ),
        (
            [dict(type='RankKDLoss'), dict(type='KendallLoss')],
            r'\(RankKDLoss\) .* that of KendallLoss: .* ranking of Kendall',
        ),
        (
            [dict(type='DKDLoss'), dict(type='LSKDLoss'), dict(type='KDLoss')],
            r'losses\[1\] \(LSKDLoss\) and losses\[2\] .* that of KDLoss',
        ),
        (
            [
                of_features('FGDLoss', 'neck[0]'),
                of_features('FGDLoss', 'neck[1]'),
            ],
            r'that of FGDLoss: give one .* all the layers, student_layers=',
        ),
    ],
)
def test_two_losses_of_one_key_are_refused_before_training(losses, message):
    with pytest.raises(ValueError, match=message):
        make(losses=losses)


def test_the_ranking_takes_the_loss_of_a_sigmoid_before_keys_are_compared():
    losses = [dict(type='RankKDLoss'), dict(type='BinaryKDLoss')]
    with pytest.raises(ValueError, match='that of BinaryKDLoss'):
        MODELS.build(dense_distilled('fcos', losses))


def test_losses_inside_of_others_that_differ_are_no_trouble(batch):
    inner = dict(type='LSKDLoss', kd=dict(type='DKDLoss'))
    losses = [dict(type='RankKDLoss', kd=inner), dict(type='KDLoss')]
    terms = losses_of(make(losses=losses), batch)
    assert {'loss_dkd_target', 'loss_rank', 'loss_kd'} <= set(terms)


class Another(KDLoss):
    """A loss of a user, with the key of its parent."""


def test_two_losses_of_a_users_are_refused_by_their_keys(batch):
    model = make(losses=[Another(), dict(type='KDLoss')])
    with pytest.raises(ValueError, match="same key 'loss_kd': let a loss"):
        losses_of(model, batch)
