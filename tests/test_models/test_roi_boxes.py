"""The boxes that RoI heads make of the sampled ones, for losses of boxes."""

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.registry import MODELS as MMENGINE
from small_roi_heads import roi_config

from mmrkkd.distillers.class_map import ClassMap, match_classes
from mmrkkd.distillers.readers.base import Scores
from mmrkkd.distillers.readers.box_heads import box_stages
from mmrkkd.distillers.readers.roi_boxes import surest_classes
from mmrkkd.distillers.readers.two_stage import TwoStageReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
GIOU = dict(type='mmrkkd.BoxGIoULoss', difference=False)


def config(base='faster-rcnn', agnostic=False):
    found = detector_config(base)
    heads = found.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.reg_class_agnostic = agnostic
    return found


def make(base='faster-rcnn', seed=0, agnostic=False):
    """A detector that moves its boxes."""
    torch.manual_seed(seed)
    model = MMENGINE.build(config(base, agnostic))
    for name, weight in model.named_parameters():
        if 'bbox_head' in name and weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05)
    return model


def read(student, teacher, batch, class_map=None, **options):
    reader = TwoStageReader(**options)
    reader.class_map = class_map
    reader.check(student, teacher)
    reader.want('boxes', 'BoxGIoULoss', student, teacher)
    teacher.eval().requires_grad_(False)
    data = student.data_preprocessor(batch(), True)
    with reader.tap(student) as taps:
        student(**data, mode='loss')
    matches = reader.read(
        taps, student, teacher, data['inputs'], data['data_samples']
    )
    return taps, matches, data['inputs']


@pytest.mark.parametrize('agnostic', [False, True])
def test_boxes_are_those_that_the_head_predicts(agnostic, batch):
    student, teacher = make(agnostic=agnostic), make(seed=1, agnostic=agnostic)
    _, (match,), inputs = read(student, teacher, batch)
    rois = match.places
    with torch.no_grad():
        features = teacher.extract_feat(inputs)
        outputs = teacher.roi_head._bbox_forward(features, rois)
    first = outputs['cls_score'][:, :-1].argmax(-1)
    head = teacher.roi_head.bbox_head
    for index in (0, 5, len(rois) - 1):
        deltas = outputs['bbox_pred'][index]
        if not agnostic:
            deltas = deltas[4 * first[index] : 4 * first[index] + 4]
        expected = head.bbox_coder.decode(rois[index, None, 1:], deltas[None])
        torch.testing.assert_close(match.boxes[1][index], expected[0])
    ours, theirs = match.boxes
    assert ours.shape == theirs.shape == (len(rois), 4)
    assert ours.requires_grad and not theirs.requires_grad
    # They are moved, and not by the same.
    assert not torch.isclose(theirs, rois[:, 1:]).all(1).any()
    assert not torch.isclose(ours, theirs).all(1).any()


@pytest.mark.parametrize('base', ['faster-rcnn', 'cascade-rcnn'])
@pytest.mark.parametrize('cross', [None, 'shared_fcs.0'])
def test_a_twin_of_the_teacher_has_its_boxes(base, cross, batch):
    student, teacher = make(base, agnostic=True), make(base, agnostic=True)
    teacher.load_state_dict(student.state_dict())
    student.backbone.eval()
    _, matches, _ = read(student, teacher, batch, cross_layer=cross)
    assert len(matches) == (3 if base == 'cascade-rcnn' else 1)
    for match in matches:
        torch.testing.assert_close(*match.boxes, rtol=0, atol=1e-2)
        assert len(match.boxes[0]) > 8


def test_classes_in_another_order_move_boxes_by_the_same_class(batch):
    student, teacher = make(), make()
    names = (CLASSES[2], CLASSES[0], CLASSES[1])
    order = [CLASSES.index(name) for name in names]
    weights = student.state_dict()
    for kind, width in (('fc_cls', 1), ('fc_reg', 4)):
        for part in ('weight', 'bias'):
            key = f'roi_head.bbox_head.{kind}.{part}'
            rows = weights[key]
            known = rows[: 3 * width].unflatten(0, (3, width))[order]
            weights[key] = torch.cat([known.flatten(0, 1), rows[3 * width :]])
    teacher.load_state_dict(weights)
    student.backbone.eval()
    class_map = match_classes(CLASSES, names, 4, 4, background=True)
    _, (match,), _ = read(student, teacher, batch, class_map)
    torch.testing.assert_close(*match.boxes, rtol=0, atol=1e-2)


def test_the_background_is_no_class():
    logits = torch.tensor([[0.0, 2.0, 1.0, 9.0], [3.0, 2.0, 1.0, 9.0]])
    scores = Scores(4, background=True)
    ours, theirs = surest_classes(logits, scores, None)
    assert ours.tolist() == theirs.tolist() == [1, 0]
    # Of the teacher's three the student knows two, in another order.
    known = ClassMap(student=(0, 1, 2), teacher=(2, 0, 3))
    ours, theirs = surest_classes(logits, scores, known)
    assert (ours.tolist(), theirs.tolist()) == ([0, 1], [2, 0])


def build(losses, base='faster-rcnn', teacher=None, **changes):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmrkkd.KDDetector',
            student=config(base),
            teacher=dict(
                config=teacher or config(base), allow_random_weights=True
            ),
            losses=losses,
            class_names=CLASSES,
            **changes,
        )
    ).train()


@pytest.mark.parametrize('base', ['faster-rcnn', 'cascade-rcnn'])
@pytest.mark.parametrize('cross', [None, 'shared_fcs.0'])
def test_a_step(base, cross, batch):
    matching = dict(type='rois', cross_layer=cross)
    losses = [dict(type='mmrkkd.KDLoss'), dict(GIOU, locations='confidence')]
    model = build(losses, base, matching=matching, gradient_interval=1)
    data = model.data_preprocessor(batch(), True)
    terms = model(**data, mode='loss')
    found = [value for key, value in terms.items() if 'loss_box_giou' in key]
    assert len(found) == (3 if base == 'cascade-rcnn' else 1)
    assert all(value.isfinite() and value > 0 for value in found)
    shares = [v for k, v in terms.items() if 'grad_share_box_giou' in k]
    assert len(shares) == len(found)
    assert all(0 < share < 1 for share in shares)
    # Crossed, classes and boxes come out of the same features.
    apart = [key for key in terms if 'grad_norm_task_at_box_giou' in key]
    assert len(apart) == (0 if cross else len(found))
    sum(found).backward()
    _, head = box_stages(model.student)[0]
    moves = head.fc_reg.weight.grad
    # Crossed, they are moved by the teacher's layer.
    assert moves is None if cross else moves.any()
    assert head.fc_cls.weight.grad is None
    assert model.backbone.conv1.weight.grad.any()
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_no_box_gives_no_boxes():
    model = build([dict(type='mmrkkd.KDLoss'), GIOU])
    reader, student = model.reader, model.student
    images = torch.zeros(1, 3, 64, 64)
    with reader.tap(student) as taps:
        pass
    (match,) = reader.read(taps, student, model.teacher.model, images, [])
    assert [len(boxes) for boxes in match.boxes] == [0, 0]


@pytest.mark.parametrize('family', ['grid', 'sabl'])
def test_heads_that_find_boxes_otherwise_are_refused(family):
    other = MMENGINE.build(roi_config(family))
    reader = TwoStageReader()
    with pytest.raises(
        TypeError, match="BoxGIoULoss .* teacher's .*no fc_reg"
    ):
        reader.want('boxes', 'BoxGIoULoss', make(), other)


def test_the_mean_of_a_cascade_has_no_box():
    matching = dict(type='rois', teacher_stage='mean')
    with pytest.raises(TypeError, match="teacher_stage='mean' has no box"):
        build([GIOU], 'cascade-rcnn', matching=matching)
