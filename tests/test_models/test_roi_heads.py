"""Every RoI head of MMDetection: scored in its own way, or refused."""

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.registry import MODELS
from mmengine.runner import set_random_seed
from small_roi_heads import FAMILIES, roi_batch, roi_config, roi_detector

from mmrkkd.distillers import KDDetector
from mmrkkd.distillers.readers.box_heads import (
    REFUSED,
    box_logits,
    check_box_head,
)
from mmrkkd.distillers.readers.two_stage import TwoStageReader

pytestmark = pytest.mark.usefixtures('mmdet_scope')
# One that reads more than the boxes' features, one whose loss is called
# twice, one whose student repeats its images.
FAST = ('scnet', 'pisa', 'trident')
EACH = [
    family if family in FAST else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]


def student_of(family):
    # TridentNet has its branches in training mode only; its BatchNorm is
    # in eval mode then, too.
    return roi_detector(family).train(family == 'trident')


def pair(family):
    """A student, and a teacher with its weights."""
    student, teacher = student_of(family), roi_detector(family, seed=1)
    teacher.load_state_dict(student.state_dict())
    return student, teacher.eval()


def losses_of(student):
    data = student.data_preprocessor(roi_batch(), True)
    set_random_seed(0)
    return student(**data, mode='loss')


def step(student, teacher):
    """The student's own losses, its taps and the matches."""
    reader = TwoStageReader()
    reader.check(student, teacher)
    with reader.tap(student) as taps:
        losses = losses_of(student)
    data = student.data_preprocessor(roi_batch(), True)
    matches = reader.read(
        taps, student, teacher, data['inputs'], data['data_samples']
    )
    return losses, taps, matches


@pytest.mark.parametrize('family', EACH)
def test_a_teacher_with_the_students_weights_gives_its_logits(family):
    student, teacher = pair(family)
    losses, _, matches = step(student, teacher)
    # Another model: some of MMDetection's samplers remember.
    plain = losses_of(student_of(family))
    assert plain.keys() == losses.keys()
    for name, value in plain.items():
        values = value if isinstance(value, list) else [value]
        tapped = losses[name] if isinstance(value, list) else [losses[name]]
        for one, other in zip(values, tapped):
            assert torch.equal(one, other), name
    assert len(matches) == getattr(student.roi_head, 'num_stages', 1)
    for match in matches:
        rows = slice(None)
        if family == 'trident':
            # The first rows are those of branch 0, the teacher is branch 1.
            rows = slice(len(match.labels) // 3, 2 * len(match.labels) // 3)
        student_logits = match.student_logits.detach()[rows]
        scale = student_logits.abs().max()
        assert scale > 0
        torch.testing.assert_close(
            match.teacher_logits[rows],
            student_logits,
            rtol=0,
            atol=1e-5 * max(1.0, float(scale)),
        )
        # Labels of every box, with objects among them.
        assert match.labels.shape == match.student_logits.shape[:1]
        assert 0 < (match.labels < 3).sum() < len(match.labels)
        assert set(match.places[:, 0].tolist()) == {0.0, 1.0}


def test_the_heads_part_of_the_scores_is_not_left_out():
    """SCNet scores boxes without its context, too, but otherwise."""
    student, teacher = pair('scnet')
    _, _, matches = step(student, teacher)
    inputs = student.data_preprocessor(roi_batch(), True)['inputs']
    features = teacher.extract_feat(inputs)
    bare = box_logits(teacher, 0, features, matches[0].places, context={})
    whole = box_logits(teacher, 0, features, matches[0].places)
    torch.testing.assert_close(whole, matches[0].teacher_logits)
    assert (bare - whole).abs().max() > 0.01 * whole.abs().max()


def test_branches_of_a_student_lie_one_after_another():
    """TridentNet's boxes of branch b have the image index b B + image."""
    student, teacher = pair('trident')
    _, (tap,), (match,) = step(student, teacher)
    assert set(tap.scored_rois[:, 0].tolist()) == set(map(float, range(6)))
    assert torch.equal(match.places[:, 0], tap.scored_rois[:, 0] % 2)
    assert torch.equal(match.places[:, 1:], tap.scored_rois[:, 1:])


def test_a_teacher_that_merges_branches_is_refused():
    student, teacher = pair('trident')
    teacher.roi_head.test_branch_idx = -1
    with pytest.raises(ValueError, match='test_branch_idx=-1 scores each box'):
        TwoStageReader().check(student, teacher)


def seesaw_head():
    loss = dict(type='SeesawLoss', num_classes=3)
    config = detector_config()
    config.roi_head.bbox_head.loss_cls = loss
    return MODELS.build(config)


def test_seesaws_logits_are_its_prediction(batch):
    """Its C + 2 scores as C + 1 logits, with gradient to all of them."""
    student = seesaw_head().eval()
    reader = TwoStageReader()
    reader.check(student, student)
    assert reader.scores(student).channels == 4
    data = student.data_preprocessor(batch(), True)
    with reader.tap(student) as taps:
        student(**data, mode='loss')
    (match,) = reader.read(
        taps, student, student, data['inputs'], data['data_samples']
    )
    (scores,) = match.sources
    assert scores.shape[1] == 5 and match.student_logits.shape[1] == 4
    expected = student.roi_head.bbox_head.loss_cls.get_activation(scores)
    torch.testing.assert_close(match.student_logits.softmax(1), expected)
    torch.testing.assert_close(
        match.teacher_logits, match.student_logits.detach()
    )
    (gradient,) = torch.autograd.grad(
        match.student_logits[:, 0].sum(), scores, retain_graph=True
    )
    assert (gradient != 0).all()


@pytest.mark.parametrize('teacher_stage', ['same', 'mean'])
@pytest.mark.parametrize('family', ['scnet', 'seesaw'])
def test_a_plain_student_learns_from_a_richer_teacher(
    family, teacher_stage, batch
):
    model = KDDetector(
        student=detector_config(),
        teacher=dict(config=roi_config(family), allow_random_weights=True),
        losses=dict(type='mmrkkd.RankKDLoss'),
        task_weight=0.0,
        matching=dict(type='rois', teacher_stage=teacher_stage),
        class_names=CLASSES,
    )
    terms = model(**model.data_preprocessor(batch(), True), mode='loss')
    model.parse_losses(terms)[0].backward()
    assert terms['loss_kd'].isfinite() and terms['loss_kd'] > 0
    assert model.roi_head.bbox_head.fc_cls.weight.grad.any()


@pytest.mark.parametrize(
    'config, reason',
    [
        (
            'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py',
            'MultiInstanceRoIHead .* two predictions without order',
        ),
        (
            'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
            'SparseRoIHead .* learned proposals',
        ),
        (
            'queryinst/queryinst_r50_fpn_1x_coco.py',
            'SparseRoIHead .* learned proposals',
        ),
    ],
)
@pytest.mark.slow
def test_heads_that_are_refused_by_name(config, reason):
    from mmengine.config import Config

    model = Config.fromstring(f"_base_ = 'mmdet::{config}'", '.py').model
    model.backbone.init_cfg = None
    with pytest.raises(TypeError, match=f"the student's {reason}"):
        check_box_head('student', MODELS.build(model))


@pytest.mark.slow
def test_every_roi_head_is_tried_or_refused():
    """A RoI head that MMDetection adds shows up here."""
    from mmdet.models.roi_heads.base_roi_head import BaseRoIHead
    from mmdet.registry import MODELS as DETECTION

    known = {
        name
        for name, kind in DETECTION.module_dict.items()
        if isinstance(kind, type)
        and issubclass(kind, BaseRoIHead)
        and kind.__module__.startswith('mmdet.models.roi_heads')
    }
    tried = {roi_config(family).roi_head.type for family in FAMILIES}
    assert known == tried | set(REFUSED)


def test_boxes_of_a_sigmoid_are_compared_with_such_boxes_alone():
    sigmoid, softmax = (
        MODELS.build(config)
        for config in (roi_config('v3det'), detector_config())
    )
    reader = TwoStageReader()
    assert str(reader.scores(sigmoid)) == '3 channels, sigmoid'
    for pair in ((sigmoid, softmax), (softmax, sigmoid)):
        with pytest.raises(TypeError, match='boxes by .* same loss_cls'):
            reader.check(*pair)


def test_a_head_that_reads_something_unknown_is_refused():
    model = MODELS.build(detector_config())
    standard = model.roi_head._bbox_forward

    def with_text(x, rois, text_feat=None):
        return standard(x, rois)

    model.roi_head._bbox_forward = with_text
    with pytest.raises(TypeError, match='_bbox_forward also takes text_feat'):
        check_box_head('teacher', model)
