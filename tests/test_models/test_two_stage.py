"""Matched logits: the same boxes, one student forward."""

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.registry import MODELS

from mmrkkd.distillers.readers.two_stage import TwoStageReader, box_logits

pytestmark = pytest.mark.usefixtures('mmdet_scope')
DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-rcnn')


def make(base='faster-rcnn', **changes):
    return MODELS.build(detector_config(base, **changes))


def read(reader, student, teacher, batch):
    data = student.data_preprocessor(batch(), True)
    with reader.tap(student) as taps:
        losses = student(**data, mode='loss')
    return (
        losses,
        taps,
        reader.read(
            taps,
            student,
            teacher.eval(),
            data['inputs'],
            data['data_samples'],
        ),
    )


@pytest.mark.parametrize('base', DETECTORS)
def test_teacher_scores_the_students_boxes(base, batch):
    student, teacher = make(base), make(base)
    _, taps, pairs = read(TwoStageReader(), student, teacher, batch)
    assert len(pairs) == (3 if base == 'cascade-rcnn' else 1)
    inputs = student.data_preprocessor(batch(), True)['inputs']
    for stage, (tap, pair) in enumerate(zip(taps, pairs)):
        features = teacher.extract_feat(inputs)
        expected = box_logits(teacher, stage, features, tap.scored_rois)
        assert len(expected) > 8
        torch.testing.assert_close(pair.teacher_logits, expected)
        # The boxes belong to both images of the batch.
        assert set(tap.scored_rois[:, 0].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize('base', DETECTORS)
def test_tapped_logits_are_those_of_the_loss(base, batch):
    student = make(base)
    losses, _, pairs = read(TwoStageReader(), student, student, batch)
    for pair in pairs:
        cross_entropy = torch.nn.functional.cross_entropy(
            pair.student_logits, pair.labels
        )
        torch.testing.assert_close(
            pair.scale * cross_entropy, losses[pair.prefix + 'loss_cls']
        )
        assert pair.student_logits.requires_grad


@pytest.mark.parametrize('base', DETECTORS)
def test_a_model_agrees_with_itself(base, batch):
    model = make(base).eval()
    _, _, pairs = read(TwoStageReader(), model, model, batch)
    for pair in pairs:
        torch.testing.assert_close(
            pair.student_logits.detach(), pair.teacher_logits
        )
        assert not pair.teacher_logits.requires_grad


def test_stages_of_a_cascade(batch):
    student = make('cascade-rcnn')
    _, _, pairs = read(TwoStageReader(), student, student, batch)
    assert [pair.prefix for pair in pairs] == ['s0.', 's1.', 's2.']
    assert [pair.scale for pair in pairs] == [1.0, 0.5, 0.25]


def test_one_stage_teacher_serves_a_cascade(batch):
    student, teacher = make('cascade-rcnn'), make()
    reader = TwoStageReader()
    reader.check(student, teacher)
    _, taps, pairs = read(reader, student, teacher, batch)
    inputs = student.data_preprocessor(batch(), True)['inputs']
    features = teacher.extract_feat(inputs)
    torch.testing.assert_close(
        pairs[2].teacher_logits,
        box_logits(teacher, 0, features, taps[2].scored_rois),
    )


def test_student_runs_once(batch):
    student, teacher = make(), make()
    runs = []
    student.roi_head.bbox_head.register_forward_hook(
        lambda *_: runs.append('head')
    )
    student.backbone.register_forward_hook(lambda *_: runs.append('backbone'))
    read(TwoStageReader(), student, teacher, batch)
    assert sorted(runs) == ['backbone', 'head']


def test_no_hook_stays_behind(batch):
    student = make()
    read(TwoStageReader(), student, student, batch)
    with pytest.raises(ZeroDivisionError), TwoStageReader().tap(student):
        raise ZeroDivisionError
    for module in student.modules():
        assert not module._forward_pre_hooks


def test_foreground_weights(batch):
    student = make()
    _, _, (pair,) = read(TwoStageReader('foreground'), student, student, batch)
    foreground = pair.labels < 3
    assert foreground.any() and not foreground.all()
    assert torch.equal(pair.weight, foreground.float())


def test_confidence_weights(batch):
    student = make()
    _, _, (pair,) = read(TwoStageReader('confidence'), student, student, batch)
    probabilities = pair.teacher_logits.softmax(-1)
    torch.testing.assert_close(
        pair.weight, probabilities[:, :3].max(-1).values
    )


def test_no_box_gives_an_empty_pair():
    student, reader = make(), TwoStageReader()
    with reader.tap(student) as taps:
        pass
    inputs = torch.zeros(1, 3, 64, 64)
    (pair,) = reader.read(taps, student, student.eval(), inputs, [])
    assert pair.student_logits.shape == pair.teacher_logits.shape == (0, 4)
    assert pair.labels.shape == (0,)


def test_errors():
    reader = TwoStageReader()
    one_stage = MODELS.build(
        Config.fromstring(
            "_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'\n"
            'model = dict(backbone=dict(init_cfg=None))',
            '.py',
        ).model
    )
    with pytest.raises(TypeError, match='teacher RetinaNet has no roi_head'):
        reader.check(make(), one_stage)
    sigmoid = make(
        roi_head=dict(bbox_head=dict(loss_cls=dict(use_sigmoid=True)))
    )
    with pytest.raises(TypeError, match='student.* CrossEntropyLoss, which'):
        reader.check(sigmoid, make())
    with pytest.raises(ValueError, match='has 1 RoI stages, the teacher 3'):
        reader.check(make(), make('cascade-rcnn'))
    with pytest.raises(
        ValueError, match="locations must be one of .* got 'some'"
    ):
        TwoStageReader('some')
