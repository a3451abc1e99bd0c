"""Matched logits: the same boxes, one student forward."""

import pytest
import torch
from conftest import detector_config
from mmengine.config import Config
from mmengine.registry import MODELS

from mmrkkd.distillers.class_map import ClassMap
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
        assert not module._forward_pre_hooks and not module._forward_hooks


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


def test_confidence_is_that_of_shared_classes(batch):
    student, reader = make(), TwoStageReader('confidence')
    reader.class_map = ClassMap((0, 1, 3), (2, 1, 3))
    _, _, (pair,) = read(reader, student, student, batch)
    probabilities = pair.teacher_logits.softmax(-1)
    torch.testing.assert_close(pair.weight, probabilities[:, 1:3].amax(-1))
    assert (pair.weight < probabilities[:, :3].amax(-1)).any()


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
    without_boxes = make()
    del without_boxes.roi_head.bbox_head
    with pytest.raises(TypeError, match='has no roi_head with a box head'):
        reader.check(without_boxes, make())
    with pytest.raises(
        ValueError, match='teacher_stage=3, but the teacher CascadeRCNN has 3'
    ):
        TwoStageReader(teacher_stage=3).check(make(), make('cascade-rcnn'))
    with pytest.raises(
        ValueError, match="locations must be one of .* got 'some'"
    ):
        TwoStageReader('some')
    for stage in ('first', -1, True, 1.0, None):
        with pytest.raises(ValueError, match="teacher_stage must be 'same'"):
            TwoStageReader(teacher_stage=stage)


# -- which stage of a cascade teaches --------------------------------------


def stage_logits(teacher, stage, match, batch):
    inputs = teacher.data_preprocessor(batch(), True)['inputs']
    features = teacher.extract_feat(inputs)
    scores = teacher.roi_head._bbox_forward(stage, features, match.places)
    return scores['cls_score'].detach()


@pytest.mark.parametrize(
    'teacher_stage, expected', [('same', 0), (0, 0), (1, 1), ('last', 2)]
)
def test_a_cascade_teaches_one_stage(teacher_stage, expected, batch):
    student, teacher = make(), make('cascade-rcnn')
    reader = TwoStageReader(teacher_stage=teacher_stage)
    reader.check(student, teacher)
    _, _, (match,) = read(reader, student, teacher, batch)
    torch.testing.assert_close(
        match.teacher_logits, stage_logits(teacher, expected, match, batch)
    )
    assert match.prefix == '' and match.scale == 1.0


def test_the_mean_of_a_cascade_is_that_of_its_scores(batch):
    """As CascadeRoIHead._refine_roi averages them: before softmax."""
    student, teacher = make(), make('cascade-rcnn')
    reader = TwoStageReader(teacher_stage='mean')
    _, _, (match,) = read(reader, student, teacher, batch)
    stages = [stage_logits(teacher, i, match, batch) for i in range(3)]
    torch.testing.assert_close(match.teacher_logits, sum(stages) / 3)
    assert "the teacher's stage: mean" in repr(reader)


def test_beyond_a_shorter_cascade_its_last_stage_teaches(batch):
    def two_stages():
        config = detector_config('cascade-rcnn')
        heads = config.roi_head
        heads.update(num_stages=2, stage_loss_weights=[1, 0.5])
        heads.bbox_head = heads.bbox_head[:2]
        config.train_cfg.rcnn = config.train_cfg.rcnn[:2]
        return MODELS.build(config)

    student, teacher = make('cascade-rcnn'), two_stages()
    reader = TwoStageReader()
    reader.check(student, teacher)
    _, _, matches = read(reader, student, teacher, batch)
    for match, stage in zip(matches, (0, 1, 1)):
        torch.testing.assert_close(
            match.teacher_logits, stage_logits(teacher, stage, match, batch)
        )


# -- what is not taken on trust --------------------------------------------


class PlainLoss(torch.nn.Module):
    """A softmax loss without use_sigmoid, as a user may write one."""

    def forward(self, pred, target, weight=None, **options):
        return torch.nn.functional.cross_entropy(pred, target)


def test_losses_are_called_as_users_call_them(batch):
    """No use_sigmoid; by keywords in any order; on a copy of the scores."""
    student = make()
    head = student.roi_head.bbox_head
    head.loss_cls = PlainLoss()
    TwoStageReader().check(student, student)
    standard = head.loss

    def loss(cls_score, bbox_pred, rois, labels, weights, *others, **options):
        terms = standard(
            cls_score, bbox_pred, rois, labels, weights, *others, **options
        )
        tap.loss.calls.clear()
        by_name = head.loss_cls(target=labels, pred=cls_score.clone())
        return dict(terms, loss_cls=by_name)

    head.loss = loss
    data = student.data_preprocessor(batch(), True)
    reader = TwoStageReader()
    with reader.tap(student) as (tap,):
        losses = student(**data, mode='loss')
    (match,) = reader.read([tap], student, student.eval(), data['inputs'], [])
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(match.student_logits, match.labels),
        losses['loss_cls'],
    )


def test_without_labels_there_is_no_foreground(batch):
    """The loss sees other scores than the head puts out."""
    student = make()
    head = student.roi_head.bbox_head
    standard = head.loss

    def loss(cls_score, *others, **options):
        return standard(2 * cls_score, *others, **options)

    head.loss = loss
    _, _, (match,) = read(TwoStageReader(), student, student, batch)
    assert match.labels is None and len(match.student_logits) > 8
    with pytest.raises(RuntimeError, match="'foreground' needs labels"):
        read(TwoStageReader('foreground'), student, student, batch)


def tapped(student, batch, then):
    """A training step, ``then`` run inside it."""
    data = student.data_preprocessor(batch(), True)
    reader = TwoStageReader()
    with reader.tap(student) as taps:
        student(**data, mode='loss')
        then(*taps)
    return reader.read(taps, student, student.eval(), data['inputs'], [])


def test_boxes_of_an_image_that_is_none_are_refused(batch):
    def move(tap):
        tap.runs[-1][1][0, 0] = 2.0

    with pytest.raises(ValueError, match=r'none of its 2 images: \[0.*2'):
        tapped(make(), batch, move)


def test_a_student_that_repeats_its_images_must_say_so(batch):
    student = make()
    standard = student.loss
    student.loss = lambda inputs, samples: standard(
        inputs.repeat(2, 1, 1, 1), samples * 2
    )
    teacher = make()
    with pytest.raises(ValueError, match='lie in 4 images, and the teacher s'):
        read(TwoStageReader(), student, teacher, batch)
    student.roi_head.num_branch = 2
    read(TwoStageReader(), student, teacher, batch)


def test_a_head_that_runs_on_other_boxes_is_refused(batch):
    student = make()
    head = student.roi_head.bbox_head

    def extract_more(tap):
        run = tap.runs[-1]
        tap.runs[-1] = run._replace(rois=run.rois[1:])

    with pytest.raises(RuntimeError, match='scored 64 boxes but extracted 63'):
        tapped(student, batch, extract_more)

    def extract_none(tap):
        tap.runs[-1] = tap.runs[-1]._replace(rois=None, images=0)

    with pytest.raises(RuntimeError, match='but extracted none'):
        tapped(student, batch, extract_none)

    def learn_again(tap):
        run = tap.runs[-1]
        tap.runs.append(run._replace(scores=run.scores + 1))
        head.loss_cls(tap.runs[-1].scores, run.scores.new_zeros(64).long())

    with pytest.raises(RuntimeError, match='learns from 2 sets of boxes'):
        tapped(student, batch, learn_again)


def test_runs_that_the_head_does_not_learn_from_are_passed_over(batch):
    student = make()
    head = student.roi_head.bbox_head

    def look_again(tap):
        run = tap.runs[-1]
        look_again.scores = scores = run.scores
        moved = run.rois.roll(1, 0)
        tap.runs.append(run._replace(scores=scores + 1, rois=moved))
        # As PISA and hard example mining ask the loss about some rows.
        head.loss_cls(scores[:3], scores.new_zeros(3).long())

    (match,) = tapped(student, batch, look_again)
    assert match.student_logits is look_again.scores
    assert match.labels.shape == (64,)
