"""The student's features through the rest of the teacher's head."""

import copy

import pytest
import torch
from mmengine.registry import MODELS as MMENGINE
from small_dense_heads import CLASSES, batch, dense_config, distilled
from torch import nn

from mmrkkd.distillers.class_map import match_classes
from mmrkkd.distillers.readers.cross_head import (
    CrossBoxBranch,
    CrossHead,
    as_teachers,
)
from mmrkkd.distillers.readers.crossing_layers import usual_layer
from mmrkkd.distillers.readers.grid import GridReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
CROSS = dict(type='grid', cross_layer='cls_convs.2.activate')
BINARY = dict(type='mmrkkd.BinaryKDLoss')


def build(family='gfl', **changes):
    torch.manual_seed(0)
    changes = {'matching': CROSS, **changes}
    return MODELS.build(distilled(family, BINARY, **changes)).train()


def match_of(model, family=''):
    data = model.data_preprocessor(batch(family), True)
    with model.reader.tap(model.student) as taps:
        losses = model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps, model.student, model.teacher.model, data['inputs'], []
    )
    return losses, match


def test_features_get_the_teachers_moments():
    student, teacher = torch.randn(2, 3, 4, 5, 6).double()
    unified = as_teachers(5 * student + 1, teacher)
    dims = (0, 2, 3)
    torch.testing.assert_close(
        unified.mean(dims), teacher.mean(dims), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        unified.std(dims), teacher.std(dims), rtol=1e-5, atol=0
    )


def test_equal_features_stay_what_they_are():
    maps = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(
        as_teachers(maps, maps), maps, rtol=0, atol=1e-5
    )


def test_moments_of_the_student_have_gradient():
    # Any shift or scale of a channel is taken off again, up to the epsilon
    # beside its deviation: wide channels.
    torch.manual_seed(0)
    student = (10 * torch.randn(2, 3, 4, 4).double()).requires_grad_()
    pulls = torch.randn(2, 3, 4, 4)
    teacher = torch.randn(2, 3, 4, 4)
    (as_teachers(student, teacher) * pulls).sum().backward()
    for direction in (torch.ones_like(student), student.detach()):
        along = (student.grad * direction).sum((0, 2, 3))
        torch.testing.assert_close(
            along, torch.zeros_like(along), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize('shape', [(1, 3, 1, 1), (2, 3, 4, 4)])
def test_constant_channels_get_the_teachers_mean(shape):
    student = torch.full(shape, 2.0).requires_grad_()
    teacher = torch.randn(shape)
    unified = as_teachers(student, teacher)
    unified.sum().backward()
    expected = teacher.mean((0, 2, 3), keepdim=True).expand(shape)
    torch.testing.assert_close(unified, expected)
    assert student.grad.isfinite().all()


def test_a_twin_of_the_teacher_has_its_scores():
    model = build()
    model.teacher.model.load_state_dict(model.student.state_dict())
    model.student.eval()
    _, match = match_of(model)
    difference = match.student_logits - match.teacher_logits
    assert match.student_logits.requires_grad
    # The moments are divided out and multiplied in again.
    assert difference.abs().max() < 1e-4


def test_classes_in_another_order_are_compared_by_name():
    model = build()
    model.teacher.model.load_state_dict(model.student.state_dict())
    model.student.eval()
    names = ('dog', 'bird', 'cat')
    class_map = match_classes(CLASSES, names, 3, 3)
    model.reader.class_map = class_map
    _, match = match_of(model)
    crossed = class_map.select_student(match.student_logits)
    taught = class_map.select_teacher(match.teacher_logits)
    torch.testing.assert_close(crossed, taught, rtol=0, atol=1e-4)


def test_scores_are_those_of_the_teachers_head():
    model = build()
    _, match = match_of(model)
    head, other = model.student.bbox_head, model.teacher.model.bbox_head
    inputs = model.data_preprocessor(batch(), True)['inputs']
    student, teacher = [], []
    levels = zip(
        model.student.extract_feat(inputs),
        model.teacher.model.extract_feat(inputs),
    )
    for features, others in levels:
        for conv, own in zip(head.cls_convs[:2], other.cls_convs[:2]):
            features, others = conv(features), own(others)
        features = head.cls_convs[2].norm(head.cls_convs[2].conv(features))
        others = other.cls_convs[2].norm(other.cls_convs[2].conv(others))
        crossed = other.cls_convs[3](as_teachers(features, others).relu())
        for side, maps in ((student, crossed), (teacher, others.relu())):
            side.append(
                other.gfl_cls(
                    maps if maps is crossed else other.cls_convs[3](maps)
                )
            )
    for wanted, found in (
        (student, match.student_logits),
        (teacher, match.teacher_logits),
    ):
        rows = torch.cat([x.flatten(2).transpose(1, 2) for x in wanted], 1)
        torch.testing.assert_close(found, rows.flatten(0, 1))


def test_gradient_reaches_what_lies_before_the_layer_alone():
    model = build()
    data = model.data_preprocessor(batch(), True)
    model(**data, mode='loss')['loss_binary_kd'].backward()
    head = model.student.bbox_head
    assert head.cls_convs[2].conv.weight.grad.abs().sum() > 0
    assert head.cls_convs[3].conv.weight.grad is None
    assert head.gfl_cls.weight.grad is None
    assert model.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_task_losses_are_those_without_it():
    plain, crossed = build(matching='auto'), build()
    (losses, _), (others, match) = match_of(plain), match_of(crossed)
    for one, other in zip(losses['loss_cls'], others['loss_cls']):
        assert torch.equal(one, other)
    # Labels are still the student's own.
    assert match.labels is not None


@pytest.mark.parametrize(
    'family,layer',
    [
        ('retinanet', 'cls_convs.2.activate'),
        ('atss', 'cls_convs.2.activate'),
        ('fcos', 'cls_convs.1.activate'),
    ],
)
def test_published_layers(family, layer):
    model = build(family, matching=dict(type='grid', cross_layer=layer))
    data = model.data_preprocessor(batch(), True)
    terms = model(**data, mode='loss')
    assert terms['loss_binary_kd'].isfinite()
    assert layer in repr(model.reader)


TOWERS = [
    ('rtmdet', 'cls_convs.*.0.activate'),
    # All levels share their convolutions, and have norms of their own.
    ('rtmdet', 'cls_convs.*.1.conv'),
    ('yolox', 'multi_level_cls_convs.*.0.activate'),
    # Whose branches share their towers.
    ('rtmdet_ins', 'rtm_cls.*'),
]


@pytest.mark.parametrize('family,layer', TOWERS)
def test_a_tower_for_each_level(family, layer):
    model = build(family, matching=dict(type='grid', cross_layer=layer))
    _, match = match_of(model, family)
    ours = match.student_logits.view(match.images, -1, 3)
    theirs = match.teacher_logits.view(match.images, -1, 3)
    # Strides of 8, 16 and 32.
    shares = [ours.shape[1] * share // 21 for share in (16, 4, 1)]
    for one, other in zip(
        ours.split(shares, 1), theirs.split(shares, 1), strict=True
    ):
        assert not torch.isclose(one, other).all()
    match.student_logits.sum().backward()
    name, *_ = layer.split('.')
    name = name.replace('rtm_cls', 'cls_convs')
    towers = getattr(model.student.bbox_head, name)
    assert all(tower[0].conv.weight.grad.any() for tower in towers)


@pytest.mark.parametrize(
    'family,layer,times',
    [
        ('rtmdet', 'cls_convs.0.1.activate', 1),
        ('yolox', 'multi_level_cls_convs.2.1.activate', 1),
        ('rtmdet', 'rtm_cls.0', 1),
        ('rtmdet_ins', 'cls_convs.*.0.activate', 6),
        ('gfl', 'cls_convs.*.activate', 20),
    ],
)
def test_a_layer_of_other_levels_is_refused(family, layer, times):
    model = build(family, matching=dict(type='grid', cross_layer=layer))
    levels = 5 if family == 'gfl' else 3
    message = f"student's head ran it {times} times for {levels} levels"
    with pytest.raises(ValueError, match=message):
        match_of(model, family)


@pytest.mark.parametrize(
    'family,layer',
    [('gfl', 'reg_convs.2.activate'), ('fcos', 'conv_centerness')],
)
def test_a_layer_of_other_branches_is_refused(family, layer):
    model = build(family, matching=dict(type='grid', cross_layer=layer))
    message = f'{layer}.*no class score of the .* depends on it'
    with pytest.raises(ValueError, match=message):
        match_of(model)


def test_pull_is_measured_where_both_terms_pass():
    model = build(gradient_interval=1)
    data = model.data_preprocessor(batch(), True)
    terms = model(**data, mode='loss')
    assert terms['kd/grad_norm_binary_kd'] > 0
    assert terms['kd/grad_norm_task'] > 0


def test_no_hook_stays_behind():
    model = build()
    match_of(model)
    for part in (model.student, model.teacher.model):
        for module in part.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_unknown_layers_are_named():
    student = MMENGINE.build(dense_config('gfl'))
    reader = GridReader(cross_layer='cls_convs.7.activate')
    with pytest.raises(
        ValueError, match="student's head GFLHead has no 'cls_convs.7'; .*'cls"
    ):
        reader.check(student, student)
    reader = GridReader(cross_layer='cls_convs.*.conv.*')
    with pytest.raises(ValueError, match=r"has no 'cls_convs.\*.conv.\*'"):
        reader.check(student, student)


def test_heads_of_other_widths_are_refused():
    config = distilled('gfl', BINARY, matching=CROSS)
    config['student'].bbox_head.feat_channels = 64
    model = MODELS.build(config)
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ValueError, match=r'one shape in both heads, got .*64'):
        model(**data, mode='loss')


# -- boxes ------------------------------------------------------------------

LD = dict(type='mmrkkd.LDLoss', locations='confidence', temperature=1.0)
GIOU = dict(type='mmrkkd.BoxGIoULoss', locations='confidence')
BOXES = {
    'gfl': ('cls_convs.2.activate', 'reg_convs.2.activate', LD),
    'retinanet': ('cls_convs.2.activate', 'reg_convs.2.activate', GIOU),
    'atss': ('cls_convs.2.activate', 'reg_convs.2.activate', GIOU),
    'fcos': ('cls_convs.1.activate', 'reg_convs.1.activate', GIOU),
}


def with_boxes(family='gfl', losses=None, **changes):
    layer, box_layer, loss = BOXES[family]
    matching = dict(type='grid', cross_layer=layer, cross_box_layer=box_layer)
    torch.manual_seed(0)
    config = distilled(
        family, losses or [BINARY, loss], matching=matching, **changes
    )
    model = MODELS.build(config).train()
    # Boxes of unlike sizes.
    model.student.init_weights()
    return model


def read(model, family):
    data = model.data_preprocessor(batch(family), True)
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    return match


@pytest.mark.parametrize('family', BOXES)
def test_a_twin_of_the_teacher_has_its_boxes(family):
    model = with_boxes(family)
    model.teacher.model.load_state_dict(model.student.state_dict())
    model.student.eval()
    model.bbox_head.training = True
    match = read(model, family)
    ours, theirs = match.bins or match.boxes
    assert ours.requires_grad and not theirs.requires_grad
    scale = theirs.abs().max()
    assert (ours - theirs).abs().max() < 1e-4 * scale
    assert (match.student_logits - match.teacher_logits).abs().max() < 1e-4


def test_boxes_are_those_of_the_teachers_head():
    model = with_boxes()
    match = read(model, 'gfl')
    head, other = model.student.bbox_head, model.teacher.model.bbox_head
    inputs = model.data_preprocessor(batch('gfl'), True)['inputs']
    wanted = []
    levels = zip(
        model.student.extract_feat(inputs),
        model.teacher.model.extract_feat(inputs),
        other.scales,
    )
    for features, others, scale in levels:
        for conv, own in zip(head.reg_convs[:2], other.reg_convs[:2]):
            features, others = conv(features), own(others)
        features = head.reg_convs[2].norm(head.reg_convs[2].conv(features))
        others = other.reg_convs[2].norm(other.reg_convs[2].conv(others))
        crossed = other.reg_convs[3](as_teachers(features, others).relu())
        maps = scale(other.gfl_reg(crossed))
        wanted.append(maps.flatten(2).transpose(1, 2))
    rows = torch.cat(wanted, 1).flatten(0, 1).unflatten(1, (4, -1))
    torch.testing.assert_close(match.bins[0], rows)


@pytest.mark.parametrize('family', BOXES)
def test_gradient_of_boxes_reaches_their_branch_alone(family):
    model = with_boxes(family)
    data = model.data_preprocessor(batch(family), True)
    terms = model(**data, mode='loss')
    assert terms['loss_binary_kd'].isfinite()
    name = 'loss_ld' if family == 'gfl' else 'loss_box_giou'
    assert terms[name] > 0
    terms[name].backward()
    head, layer = model.student.bbox_head, 1 if family == 'fcos' else 2
    assert head.reg_convs[layer].conv.weight.grad.any()
    assert head.reg_convs[layer + 1].conv.weight.grad is None
    assert head.cls_convs[0].conv.weight.grad is None
    assert model.backbone.conv1.weight.grad.any()
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_scores_are_the_same_whether_boxes_are_crossed():
    model = with_boxes()
    config = distilled('gfl', [BINARY, LD], matching=CROSS)
    plain = MODELS.build(config).train()
    plain.load_state_dict(model.state_dict())
    plain.teacher.model.load_state_dict(model.teacher.model.state_dict())
    crossed, own = read(model, 'gfl'), read(plain, 'gfl')
    assert torch.equal(crossed.student_logits, own.student_logits)
    assert torch.equal(crossed.bins[1], own.bins[1])
    assert not torch.isclose(crossed.bins[0], own.bins[0]).all()


def test_boxes_that_nothing_compares_are_not_crossed():
    model = with_boxes(losses=[BINARY])
    with pytest.raises(ValueError, match='cross_box_layer.*no loss compares'):
        read(model, 'gfl')


@pytest.mark.parametrize('layer', ['cls_convs.1.activate', 'reg_convs.9'])
def test_box_layers_elsewhere_are_refused(layer):
    matching = dict(CROSS, cross_box_layer=layer)
    config = distilled('gfl', [BINARY, LD], matching=matching)
    message = (
        f"cross_box_layer='{layer}'.*(no box of the|has no 'reg_convs.9').*"
        "'reg_convs.2.activate' is the published"
    )
    with pytest.raises(ValueError, match=message):
        read(MODELS.build(config).train(), 'gfl')


def test_boxes_are_not_crossed_by_themselves():
    with pytest.raises(ValueError, match='needs a cross_layer: where boxes'):
        GridReader(cross_box_layer='reg_convs.2.activate')
    layers = 'cls_convs.2.activate and reg_convs.2.activate'
    assert layers in repr(with_boxes().reader)


# -- the usual layers ------------------------------------------------------


@pytest.mark.parametrize(
    ('family', 'scores', 'boxes'),
    [
        ('gfl', 'cls_convs.2.activate', 'reg_convs.2.activate'),
        ('fcos', 'cls_convs.1.activate', 'reg_convs.1.activate'),
        ('rtmdet', 'cls_convs.*.0.activate', 'reg_convs.*.0.activate'),
        ('rtmdet_ins', 'rtm_cls.*', 'rtm_reg.*'),
        ('nas_fpn', 'cls_convs.*.2.activate', 'reg_convs.*.2.activate'),
        (
            'yolox',
            'multi_level_cls_convs.*.0.activate',
            'multi_level_reg_convs.*.0.activate',
        ),
        ('ssd', None, None),
    ],
)
def test_usual_layers(family, scores, boxes):
    head = MMENGINE.build(dense_config(family)).bbox_head
    assert usual_layer(head, CrossHead.towers) == scores
    assert usual_layer(head, CrossBoxBranch.towers) == boxes


def test_a_short_tower_is_crossed_at_its_first_convolution():
    for convs, place in ((1, 0), (2, 0), (3, 1)):
        config = dense_config('gfl')
        config.bbox_head.stacked_convs = convs
        head = MMENGINE.build(config).bbox_head
        found = usual_layer(head, CrossHead.towers)
        assert found == f'cls_convs.{place}.activate'


def test_separable_convolutions_are_crossed_behind_both():
    config = dense_config('yolox')
    config.bbox_head.use_depthwise = True
    head = MMENGINE.build(config).bbox_head
    assert usual_layer(head, CrossHead.towers) == (
        'multi_level_cls_convs.*.0.pointwise_conv.activate'
    )


AUTO = [
    *('gfl', 'retinanet', 'atss', 'fcos', 'rtmdet', 'rtmdet_ins', 'yolox'),
    *('ddod', 'foveabox', 'paa', 'vfnet', 'nas_fpn', 'free_anchor', 'ssdlite'),
]


@pytest.mark.parametrize('family', AUTO)
def test_crossed_at_the_usual_layer(family):
    matching = dict(type='grid', cross_layer='auto')
    losses = dict(type='mmrkkd.KendallLoss')
    config = distilled(family, losses, matching=matching)
    model = MODELS.build(config).train()
    assert model.reader.cross.branches[0].layer != 'auto'
    data = model.data_preprocessor(batch(family), True)
    terms = model(**data, mode='loss')
    terms['loss_rank'].backward()
    gradients = [weight.grad for weight in model.backbone.parameters()]
    assert any(each is not None and each.any() for each in gradients)


def test_what_has_no_usual_layer_is_told():
    matching = dict(type='grid', cross_layer='auto')
    loss = dict(type='mmrkkd.KDLoss')
    message = "cross_layer='auto': the student's SSDHead has no tower.*name"
    with pytest.raises(ValueError, match=message):
        MODELS.build(distilled('ssd', loss, matching=matching))
    config = distilled('gfl', BINARY, matching=matching)
    config['student'].bbox_head.stacked_convs = 3
    message = "'cls_convs.1.activate' in the student.*'cls_convs.2.activate'"
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)


# -- what is not run again ---------------------------------------------------


def calls(model, family='gfl', **layers):
    """How often each convolution of the teacher's head runs in a step."""
    head, seen = model.teacher.model.bbox_head, {}

    def note(name, layer):
        own = layer.forward

        def forward(*args):
            seen[name] = seen.get(name, 0) + 1
            return own(*args)

        layer.forward = forward

    for name, layer in head.named_modules():
        if isinstance(layer, nn.Conv2d):
            note(name, layer)
    match = read(model, family)
    return seen, match


@pytest.mark.parametrize('boxes', [False, True])
def test_what_lies_before_the_layers_runs_once(boxes):
    model = with_boxes() if boxes else build()
    first = read(model, 'gfl').student_logits
    seen, match = calls(model)
    # Five levels, of the teacher's own scores and of the crossed.
    assert seen['cls_convs.0.conv'] == seen['cls_convs.2.conv'] == 5
    assert seen['cls_convs.3.conv'] == seen['gfl_cls'] == 10
    assert seen['reg_convs.2.conv'] == 5
    assert seen['reg_convs.3.conv'] == seen['gfl_reg'] == (10 if boxes else 5)
    # Batch norm's means move, the scores of this batch do not.
    assert torch.equal(match.student_logits, first)


def test_a_copy_of_the_distiller_leaves_out_the_same():
    model = build()
    read(model, 'gfl')
    copied = copy.deepcopy(model)
    seen, match = calls(copied)
    assert seen['cls_convs.2.conv'] == 5 and seen['gfl_cls'] == 10
    assert torch.equal(match.student_logits, read(model, 'gfl').student_logits)
