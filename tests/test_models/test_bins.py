"""The distributions of box sides that GFL's head gives."""

import pytest
import torch
from mmdet.models.losses.kd_loss import knowledge_distillation_kl_div_loss
from small_dense_heads import batch, distilled

from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LD = dict(type='mmrkkd.LDLoss')


def built(**loss):
    torch.manual_seed(0)
    model = MODELS.build(distilled('gfl', [dict(LD, **loss)])).train()
    return model, model.data_preprocessor(batch('gfl'), True)


def match_of(model, data):
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    return match, taps


def test_bins_are_those_of_the_cells():
    model, data = built()
    match, taps = match_of(model, data)
    student, teacher = match.bins
    assert student.shape == teacher.shape == (len(match.labels), 4, 17)
    assert student.requires_grad and not teacher.requires_grad
    # Image 1, the second level, row 2, column 3: the right side is third.
    scores, sides = taps.outputs
    first, second = scores[0].shape[-2:], scores[1].shape[-2:]
    cells = len(match.labels) // 2
    row = cells + first.numel() + 2 * second[1] + 3
    maps = sides[1].unflatten(1, (4, 17))
    assert torch.equal(student[row, 2], maps[1, 2, :, 2, 3])


def test_the_term_is_the_published_one_but_for_its_weights():
    model, data = built()
    match, _ = match_of(model, data)
    terms = model(**data, mode='loss')
    positive = match.labels < 3
    student, teacher = (each[positive].flatten(0, 1) for each in match.bins)
    expected = knowledge_distillation_kl_div_loss(student, teacher, T=10)
    assert positive.any()
    torch.testing.assert_close(terms['loss_ld'], 0.25 * expected)


def test_its_gradient_reaches_the_boxes_and_not_the_scores():
    model, data = built(locations='confidence', temperature=1.0)
    model(**data, mode='loss')['loss_ld'].backward()
    head = model.bbox_head
    assert head.gfl_reg.weight.grad.any()
    assert head.gfl_cls.weight.grad is None
    assert model.backbone.conv1.weight.grad.any()


def test_an_equal_teacher_has_nothing_to_teach():
    model, data = built()
    model.student.eval()
    model.bbox_head.training = True
    model.teacher.model.load_state_dict(model.student.state_dict())
    match, _ = match_of(model, data)
    torch.testing.assert_close(*match.bins)


def test_nothing_is_noted_where_no_loss_asks():
    config = distilled('gfl', dict(type='mmrkkd.BinaryKDLoss'))
    model = MODELS.build(config).train()
    data = model.data_preprocessor(batch('gfl'), True)
    assert match_of(model, data)[0].bins is None
    assert not model.teacher.model.bbox_head._forward_hooks


def test_other_heads_are_refused():
    with pytest.raises(TypeError, match="LDLoss .* student's ATSSHead has no"):
        MODELS.build(distilled('atss', LD))
    with pytest.raises(TypeError, match="LDLoss .* teacher's ATSSHead has no"):
        MODELS.build(distilled('gfl', LD, 'atss'))
    config = distilled('gfl', LD)
    config['teacher']['config'].bbox_head.reg_max = 8
    with pytest.raises(
        TypeError, match="student's reg_max is 16.*teacher's 8"
    ):
        MODELS.build(config)
    matching = dict(type='grid', anchors='max')
    with pytest.raises(TypeError, match='not anchors max'):
        MODELS.build(distilled('gfl', LD, matching=matching))


def test_boxes_of_a_two_stage_detector_have_none():
    from conftest import CLASSES, detector_config

    with pytest.raises(
        TypeError, match="LDLoss .* boxes of the reader 'rois'"
    ):
        MODELS.build(
            dict(
                type='mmrkkd.KDDetector',
                student=detector_config(),
                teacher=dict(
                    config=detector_config(), allow_random_weights=True
                ),
                losses=LD,
                class_names=CLASSES,
            )
        )
