"""The boxes of queries that answer each other, for losses of boxes."""

import pytest
import torch
from mmengine.registry import DefaultScope
from small_query_heads import query_batch, query_distilled
from test_queries import LAYERS, tell_queries_apart

from mmrkkd.distillers.readers.queries import layers_of
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
GIOU = dict(type='mmrkkd.BoxGIoULoss', difference=False)
SLOW = ('conditional', 'dab', 'ddq', 'deformable_refine', 'queryinst')
FAMILIES = [
    *('detr', 'deformable', 'dino', 'sparse_rcnn'),
    *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW),
]


def build(family, **changes):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(query_distilled(family, [GIOU], **changes))
    for part in (model.student, model.teacher.model):
        part.init_weights()
        tell_queries_apart(part)
        # Some begin with 0, behind which nothing learns in a first step.
        for name, weight in part.named_parameters():
            if 'reg' in name and weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.1)
    return model.train(), model.data_preprocessor(query_batch(family), True)


def read(model, data):
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    matches = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    return taps, matches


@pytest.mark.parametrize('family', FAMILIES)
def test_a_step(family):
    model, data = build(family, gradient_interval=1)
    torch.manual_seed(1)
    terms = model(**data, mode='loss')
    found = {key: value for key, value in terms.items() if 'giou' in key}
    assert set(found) >= {f'{layer}loss_box_giou' for layer in LAYERS[family]}
    assert all(value.isfinite() and value > 0 for value in found.values())
    # The task pulls there as well.
    at_boxes = f'{LAYERS[family][0]}kd/grad_norm_task_at_box_giou'
    assert at_boxes in found
    sum(found[f'{layer}loss_box_giou'] for layer in LAYERS[family]).backward()
    heads = {
        name
        for name, weight in model.student.named_parameters()
        if weight.grad is not None and weight.grad.any()
    }
    assert any('reg' in name for name in heads)
    assert any(name.startswith('backbone') for name in heads)
    assert all(p.grad is None for p in model.teacher.model.parameters())


@pytest.mark.parametrize('match', ['hungarian', 'teacher_queries'])
def test_boxes_are_those_of_the_matched_queries(match):
    model, data = build('detr', matching=dict(type='queries', match=match))
    taps, matches = read(model, data)
    last = layers_of(model.student, taps.outputs)[-1]
    match_ = matches[-1]
    ours, theirs = match_.boxes
    assert ours.shape == theirs.shape == (len(match_.student_logits), 4)
    assert ours.requires_grad and not theirs.requires_grad
    if match == 'teacher_queries':
        return
    # By the scores, which tell queries apart.
    per_image = len(ours) // 2
    for row in (0, per_image - 1, per_image, len(ours) - 1):
        image = row // per_image
        apart = (last.scores[image] - match_.student_logits[row]).abs().sum(-1)
        query = apart.argmin()
        assert apart[query] == 0
        x, y, w, h = last.boxes[image, query]
        expected = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        torch.testing.assert_close(ours[row], expected)


def test_a_twin_of_the_teacher_has_its_boxes():
    model, data = build('detr')
    model.teacher.model.load_state_dict(model.student.state_dict())
    model.student.eval()
    _, matches = read(model, data)
    for match in matches:
        torch.testing.assert_close(*match.boxes, rtol=0, atol=1e-4)


def test_masks_have_no_boxes():
    with pytest.raises(TypeError, match='BoxGIoULoss .* answer with masks'):
        build('mask2former')
