"""What readers hand to losses of boxes, made again of the heads' raw outputs.

Decoding, matching, GIoU and weights are written out here, or MMDetection's
and torchvision's; nothing is asked of the readers.
"""

import pytest
import torch
from mmengine.registry import DefaultScope
from scipy.optimize import linear_sum_assignment
from small_dense_heads import CLASSES, batch, distilled
from small_query_heads import query_batch, query_distilled
from small_roi_heads import roi_batch, roi_config
from test_queries import tell_queries_apart
from torchvision.ops import (
    box_convert,
    generalized_box_iou,
    generalized_box_iou_loss,
)

from mmrkkd.distillers.terms import logit_terms
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
GIOU = dict(
    type='mmrkkd.BoxGIoULoss',
    difference=False,
    loss_weight=2.0,
    locations='confidence',
)
STDS = dict(target_stds=[0.2, 0.3, 0.1, 0.4], target_means=[0.1, -0.1, 0, 0.2])
# The teacher's classes, and where the student's stand among them.
ORDER, PLACES = ('bird', 'cat', 'dog'), [1, 2, 0]
MORE, AMONG_MORE = ('cow', 'bird', 'cat', 'elk', 'dog'), [2, 4, 1]


def read(model, data):
    """The matches, and what the student's losses gave."""
    model._know_classes()
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    return model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )


def check(model, match, boxes, weight, divisor, source):
    """The boxes, the value of the term, and its gradient at a source."""
    for found, expected in zip(match.boxes, boxes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    apart = generalized_box_iou_loss(*boxes)
    expected = match.scale * 2 * (weight * apart).sum() / divisor
    scores = model.reader.scores(model.student)
    terms = logit_terms(
        model.distiller, match, model.class_map, scores, telemetry=False
    )
    value = terms[match.prefix + 'loss_box_giou']
    assert value > 0
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    pulls = [
        torch.autograd.grad(each, source, retain_graph=True)[0]
        for each in (value, expected)
    ]
    assert pulls[0].any()
    torch.testing.assert_close(*pulls, rtol=1e-3, atol=1e-4 * pulls[1].max())


def scatter(part, seed, std, *names):
    """Weights with which boxes are moved, and not all alike."""
    torch.manual_seed(seed)
    for name, weight in part.named_parameters():
        if any(each in name for each in names):
            weight.data.add_(std * torch.randn_like(weight))


def by_deltas(coder, priors, deltas):
    """x, y in sizes of the prior, w, h as the logarithm of its share."""
    deltas = deltas * torch.tensor(coder.stds) + torch.tensor(coder.means)
    sizes = priors[..., 2:] - priors[..., :2]
    centers = priors[..., :2] + sizes / 2 + deltas[..., :2] * sizes
    return box_convert(
        torch.cat([centers, sizes * deltas[..., 2:].exp()], -1),
        'cxcywh',
        'xyxy',
    )


# -- cells --------------------------------------------------------------------


def cell_boxes(head, maps, strides, offset):
    """(B, N, 4) of one level, of a stride and what the sides are in."""
    (height, width), images = maps.shape[-2:], len(maps)
    stride, unit = strides
    y, x = torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing='ij'
    )
    rows = maps.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2)
    rows = rows.reshape(images, -1, 4) * unit
    if offset is not None:
        points = stride * (torch.stack([x, y], -1).flatten(0, 1) + offset)
        return torch.cat([points - rows[..., :2], points + rows[..., 2:]], -1)
    corner = stride * torch.stack([x, y, x, y], -1)[..., None, :]
    level = [each[0] for each in head.prior_generator.strides].index(stride)
    priors = corner + head.prior_generator.base_anchors[level]
    priors = priors.flatten(0, 2)
    if type(head).__name__ != 'FSAFHead':
        return by_deltas(head.bbox_coder, priors, rows)
    # Top, bottom, left, right, in shares of 4 of the anchor's sides.
    top, bottom, left, right = (4 * rows).unbind(-1)
    w, h = (priors[:, 2:] - priors[:, :2]).unbind(-1)
    cx, cy = ((priors[:, 2:] + priors[:, :2]) / 2).unbind(-1)
    sides = cx - left * w, cy - top * h, cx + right * w, cy + bottom * h
    return torch.stack(sides, -1)


@pytest.mark.parametrize(
    ('family', 'offset', 'change'),
    [
        ('rtmdet', 0, {}),
        # In training in strides, where it predicts in pixels.
        ('condinst', 0.5, {}),
        ('fcos', 0.5, dict(norm_on_bbox=True)),
        ('fsaf', None, {}),
        ('paa', None, dict(bbox_coder=STDS)),
    ],
)
def test_cells(family, offset, change):
    torch.manual_seed(0)
    config = distilled(family, [GIOU])
    head = config['teacher']['config'].bbox_head
    for name, value in change.items():
        if isinstance(value, dict):
            head[name].update(value)
        else:
            head[name] = value
    model = MODELS.build(config).train()
    sides = model.student, model.teacher.model
    for seed, part in enumerate(sides):
        part.init_weights()
        scatter(part.bbox_head, seed, 0.02, '')
    data = model.data_preprocessor(batch(family), True)
    outputs = []
    sides[0].bbox_head.register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    (match,) = read(model, data)
    with torch.no_grad():
        # As it predicts: in pixels.
        features = sides[1].extract_feat(data['inputs'])
        outputs.append(sides[1].bbox_head(features))
    boxes = []
    for part, output in zip(sides, outputs, strict=True):
        strides = [each[0] for each in part.bbox_head.prior_generator.strides]
        units = [1] * len(strides)
        if part is sides[0] and getattr(part.bbox_head, 'norm_on_bbox', False):
            units = strides
        levels = [
            cell_boxes(part.bbox_head, maps, unit, offset)
            for maps, *unit in zip(output[1], strides, units, strict=True)
        ]
        boxes.append(torch.cat(levels, 1).flatten(0, 1))
    weight = match.teacher_logits.sigmoid().amax(1)
    if match.counts is not None:
        weight = weight * match.counts
    # Turned inside out torchvision's boxes have an area.
    whole = [(each[:, 2:] > each[:, :2]).all(1) for each in boxes]
    if (whole[0] & whole[1]).all():
        source = outputs[0][1][0]
        check(model, match, boxes, weight, match.normalizer, source)
    for found, expected in zip(match.boxes, boxes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    assert not torch.isclose(*boxes).all(1).all()


# -- boxes of RoI heads -------------------------------------------------------


def stages_of(head):
    several = isinstance(head.bbox_head, torch.nn.ModuleList)
    return list(head.bbox_head) if several else [head.bbox_head]


def unlike(config):
    """Of a teacher: more classes, one set of deltas or many, other units."""
    heads = config.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.num_classes = 5
        head.reg_class_agnostic = not head.reg_class_agnostic
        head.bbox_coder.update(STDS)
        if head.loss_cls.type == 'SeesawLoss':
            head.loss_cls.num_classes = 5
    return config


@pytest.mark.parametrize(
    ('family', 'teacher', 'agnostic'),
    [
        ('libra', 'libra', False),
        ('double_head', 'libra', False),
        # Of the teacher each class has deltas of its own.
        ('seesaw', 'seesaw', True),
        ('trident', 'libra', False),
        ('cascade_mask', 'cascade_mask', True),
    ],
)
def test_sampled_boxes(family, teacher, agnostic):
    torch.manual_seed(0)
    student, other = roi_config(family), unlike(roi_config(teacher))
    for head in [student.roi_head.bbox_head]:
        for each in head if isinstance(head, list) else [head]:
            each.reg_class_agnostic = agnostic
    model = MODELS.build(
        dict(
            type='mmrkkd.KDDetector',
            student=student,
            teacher=dict(
                config=other, allow_random_weights=True, classes=MORE
            ),
            losses=[GIOU],
            class_names=CLASSES,
            classes='shared',
        )
    ).train()
    for seed, part in enumerate((model.student, model.teacher.model)):
        torch.manual_seed(seed)
        for name, weight in part.named_parameters():
            # TridentNet's convolutions start with what lay in the memory.
            is_trident = family == 'trident' and 'conv2' in name
            is_head = name.startswith('roi_head') and weight.dim() > 1
            if is_trident or is_head or 'fc_reg' in name:
                torch.nn.init.normal_(weight, std=0.05)
    calls = []
    for head in stages_of(model.student.roi_head):
        head.loss_and_target = noted(head.loss_and_target, calls)
    data = model.data_preprocessor(roi_batch(), True)
    matches = read(model, data)
    teacher = model.teacher.model
    features = teacher.extract_feat(data['inputs'])
    heads = stages_of(teacher.roi_head)
    for stage, (match, call, head) in enumerate(
        zip(matches, calls, stages_of(model.student.roi_head), strict=True)
    ):
        deltas, rois = call
        rois = torch.cat([rois[:, :1] % 2, rois[:, 1:]], 1)
        teaching = min(stage, len(heads) - 1)
        place = [teaching] if hasattr(teacher.roi_head, 'num_stages') else []
        with torch.no_grad():
            found = teacher.roi_head._bbox_forward(*place, features, rois)
        scores = found['cls_score'].softmax(1)
        if scores.shape[1] == 7:
            # Seesaw: class times objectness.
            scores = found['cls_score'][:, :5].softmax(1)
            scores *= found['cls_score'][:, 5:].softmax(1)[:, :1]
        weight, first = scores[:, AMONG_MORE].max(1)
        boxes = []
        for side, moved, classes in (
            (head, deltas, first),
            (
                heads[teaching],
                found['bbox_pred'],
                torch.tensor(AMONG_MORE)[first],
            ),
        ):
            if moved.shape[1] > 4:
                places = torch.arange(len(rois)), classes
                moved = moved.unflatten(1, (-1, 4))[places]
            boxes.append(by_deltas(side.bbox_coder, rois[:, 1:], moved))
        assert torch.equal(match.places, rois) and len(rois) > 8
        check(model, match, boxes, weight, weight.sum(), deltas)


def noted(method, calls):
    def call(cls_score, bbox_pred, rois, *args, **options):
        calls.append((bbox_pred, rois))
        return method(cls_score, bbox_pred, rois, *args, **options)

    return call


# -- queries ------------------------------------------------------------------


@pytest.mark.parametrize('family', ['detr', 'deformable_refine', 'dino'])
def test_queries(family):
    """Of other numbers of queries and layers, and in another order."""
    torch.manual_seed(0)
    matching = dict(type='queries', teacher_top=9)
    config = query_distilled(family, [GIOU], matching=matching)
    other = config['teacher']
    other['classes'] = ORDER
    other['config'].num_queries = 17
    other['config'].decoder.num_layers = 3
    if 'num_pred_layer' in other['config'].bbox_head:
        other['config'].bbox_head.num_pred_layer = 4
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config)
    for seed, part in enumerate((model.student, model.teacher.model)):
        part.init_weights()
        tell_queries_apart(part)
        scatter(part, seed, 0.1, 'reg', 'cls')
    data = model.train().data_preprocessor(query_batch(family), True)
    outputs, teacher = [], model.teacher.model
    model.bbox_head.register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    matches = read(model, data)
    with torch.no_grad():
        asked = teacher.forward_transformer(
            teacher.extract_feat(data['inputs']), data['data_samples']
        )
        theirs = teacher.bbox_head(**asked)
    sigmoid = model.bbox_head.loss_cls.use_sigmoid
    for layer, match in enumerate(matches):
        # The last 24 are no noise; the teacher's first layer has no pupil.
        ours = [each[layer][:, -24:] for each in outputs[0][:2]]
        pairs = [
            paired(*image, sigmoid)
            for image in zip(*ours, *(each[layer + 1] for each in theirs[:2]))
        ]
        *boxes, weight = (torch.cat(each) for each in zip(*pairs))
        # Six objects.
        source = outputs[0][1]
        source = source if torch.is_tensor(source) else source[layer]
        check(model, match, boxes, weight, 6, source)


def paired(logits, boxes, other_logits, other_boxes, sigmoid):
    """Of an image: boxes of the pairs, and the teacher's probability."""
    if sigmoid:
        ours, theirs = logits.sigmoid(), other_logits.sigmoid()
        known = theirs[:, PLACES]
        cost = -known @ ours.log().T - (1 - known) @ (1 - ours).log().T
    else:
        ours, theirs = logits.softmax(1), other_logits.softmax(1)
        cost = -theirs[:, [*PLACES, 3]] @ ours.log().T
    sure = theirs[:, :3].amax(1)
    asked = sure.topk(9).indices.sort().values
    corners = [
        box_convert(each, 'cxcywh', 'xyxy') for each in (boxes, other_boxes)
    ]
    cost = cost + 5 * torch.cdist(other_boxes, boxes, p=1)
    cost = cost + 2 * (1 - generalized_box_iou(*corners[::-1]))
    _, answers = linear_sum_assignment(cost[asked].detach())
    return corners[0][answers], corners[1][asked], sure[asked]
