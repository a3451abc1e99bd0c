"""The boxes of the cells of dense heads, decoded as their predict does."""

import pytest
import torch
from small_dense_heads import batch, distilled

from mmrkkd.distillers.readers.grid_boxes import cell_boxes
from mmrkkd.distillers.readers.heads import spec_of
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LOSS = dict(type='mmrkkd.BoxGIoULoss')
FAMILIES = ('retinanet', 'nas_fpn', 'atss', 'gfl', 'fcos', 'autoassign')


def built(family, losses=LOSS, teacher=None, **changes):
    torch.manual_seed(0)
    config = distilled(family, losses, teacher, **changes)
    model = MODELS.build(config).train()
    model.student.init_weights()
    model.teacher.model.init_weights()
    return model, model.data_preprocessor(batch(family), True)


@pytest.mark.parametrize('family', FAMILIES)
def test_boxes_are_those_that_it_predicts(family):
    """Without suppression and clipping, every box of a head's predict."""
    model, data = built(family)
    detector = model.teacher.model
    head = detector.bbox_head
    if family == 'autoassign':
        # Which its forward does not look at.
        head.norm_on_bbox = True
    with torch.no_grad():
        features = detector.extract_feat(data['inputs'])
        head.training = True
        outputs = head(features)
        head.training = False
        levels = spec_of(head).levels(outputs, head)
        ours = cell_boxes(head, outputs, levels).view(2, -1, 4)
        config = head.test_cfg.copy()
        config.update(score_thr=-1.0, nms_pre=-1, min_bbox_size=-1)
        metas = [
            dict(img_shape=(10**6, 10**6), scale_factor=(1.0, 1.0))
            for _ in data['data_samples']
        ]
        predicted = head.predict_by_feat(
            *head(features), batch_img_metas=metas, cfg=config, with_nms=False
        )
    for mine, instances in zip(ours, predicted):
        theirs = getattr(instances.bboxes, 'tensor', instances.bboxes)
        # Every class of a box is a prediction there; its order is another,
        # and what lies outside of the image is cut off.
        mine = mine.clamp(min=0)[::29]
        apart = torch.cdist(
            mine.double(),
            theirs.unique(dim=0).double(),
            compute_mode='donot_use_mm_for_euclid_dist',
        )
        assert len(mine) > 10 and apart.amin(1).max() < 1e-2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_boxes_are_not_rounded_under_autocast(dtype):
    model, data = built('gfl')
    detector = model.student
    with torch.no_grad():
        outputs = detector.bbox_head(detector.extract_feat(data['inputs']))
        levels = spec_of(detector.bbox_head).levels(
            outputs, detector.bbox_head
        )
        expected = cell_boxes(detector.bbox_head, outputs, levels)
        with torch.autocast('cpu', dtype=dtype):
            found = cell_boxes(detector.bbox_head, outputs, levels)
    assert torch.equal(found, expected)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_step(family):
    model, data = built(family, gradient_interval=1)
    terms = model(**data, mode='loss')
    value = terms['loss_box_giou']
    assert value.isfinite() and value > 0
    # Beside the task's pull where the head says where boxes are.
    pulls = [
        terms[f'kd/grad_norm_{term}']
        for term in ('box_giou', 'task_at_box_giou')
    ]
    assert all(pull > 0 for pull in pulls)
    share = terms['kd/grad_share_box_giou']
    torch.testing.assert_close(share, pulls[0] / sum(pulls))
    value.backward()
    gradients = [weight.grad for weight in model.backbone.parameters()]
    assert any(each is not None and each.any() for each in gradients)
    classes = [
        weight.grad
        for name, weight in model.bbox_head.named_parameters()
        if name.endswith(('_cls.weight', 'conv_cls.weight'))
    ]
    assert classes and all(each is None for each in classes)


def test_the_term_is_made_of_the_matched_boxes():
    from mmrkkd.losses.box_giou import giou, greatest_difference

    model, data = built('gfl')
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    apart = greatest_difference(
        match.student_logits, match.teacher_logits, 'sigmoid'
    )
    expected = 4 * (match.counts * apart * (1 - giou(*match.boxes))).sum()
    terms = model(**data, mode='loss')
    torch.testing.assert_close(
        terms['loss_box_giou'], expected / match.normalizer
    )


def test_heads_with_other_boxes_are_refused():
    for family in ('vfnet', 'tood', 'yolox'):
        with pytest.raises(TypeError, match='BoxGIoULoss .* has none of the'):
            built(family)
    with pytest.raises(TypeError, match="teacher's VFNetHead has none of"):
        built('gfl', teacher='vfnet')
