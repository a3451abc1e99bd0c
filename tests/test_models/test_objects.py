"""Which object the boxes and cells of a detector are candidates of."""

from types import SimpleNamespace

import pytest
import torch
from conftest import CLASSES, detector_config
from mmengine.structures import InstanceData
from small_dense_heads import batch as dense_batch
from small_dense_heads import distilled
from small_query_heads import query_distilled

from mmrkkd.distillers import KDDetector
from mmrkkd.distillers.readers.objects import (
    objects_of_boxes,
    objects_of_cells,
)
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LOSSES = [
    dict(type='mmrkkd.RankMimicLoss'),
    dict(type='mmrkkd.BoxRankLoss'),
]


def sample(boxes, labels):
    instances = InstanceData(
        bboxes=torch.tensor(boxes).float().view(-1, 4),
        labels=torch.tensor(labels).long(),
    )
    return SimpleNamespace(gt_instances=instances)


def test_boxes_by_hand():
    samples = [
        sample([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 9, 9]], [1, 1, 2]),
        sample([], []),
        sample([[0, 0, 10, 10]], [1]),
    ]
    rois = torch.tensor(
        [
            [0, 0, 0, 9, 10],  # Most of object 0.
            [0, 6, 0, 15, 10],  # Of object 1.
            [0, 6, 0, 15, 10],  # Of class 2: object 2, however little.
            [0, 0, 0, 9, 9],  # Background.
            [1, 0, 0, 9, 9],  # No object in its image.
            [2, 50, 50, 60, 60],  # Object 3 alone is of its class and image.
        ]
    ).float()
    labels = torch.tensor([1, 1, 2, 3, 1, 1])
    found = objects_of_boxes(rois, labels, samples)
    assert found.tolist() == [0, 1, 2, -1, -1, 3]
    assert objects_of_boxes(rois[:1], labels[:1], [sample([], [])]) == -1


def step(family):
    torch.manual_seed(0)
    model = MODELS.build(distilled(family, LOSSES)).train()
    model.student.init_weights()
    data = model.data_preprocessor(dense_batch(family), True)
    return model, data


@pytest.mark.parametrize('family', ['retinanet', 'fcos'])
def test_cells_are_the_candidates_that_the_head_learns_from(family):
    model, data = step(family)
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    positive = match.labels < 3
    assert torch.equal(match.groups >= 0, positive) and positive.any()
    # The three objects of an image are of three classes.
    image = torch.arange(len(positive)) // (len(positive) // 2)
    expected = 3 * image + match.labels
    assert torch.equal(match.groups[positive], expected[positive])


def test_a_point_in_two_objects_is_of_the_smaller_one():
    model, data = step('fcos')
    for each in data['data_samples']:
        each.gt_instances.bboxes = torch.tensor(
            [[0.0, 0, 120, 112], [30, 30, 60, 60], [90, 90, 110, 110]]
        )
        each.gt_instances.labels = torch.zeros(3).long()
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    # The first level, of stride 8: x, y = 44, 44 lies in both.
    width = data['inputs'].shape[-1] // 8
    cell = 5 * width + 5
    assert match.labels[cell] == 0 and match.groups[cell] == 1


@pytest.mark.parametrize('family', ['retinanet', 'fcos', 'gfl'])
def test_a_dense_step(family):
    model, data = step(family)
    terms = model(**data, mode='loss')
    kd = [terms['loss_rank_mimic'], terms['loss_box_rank']]
    assert all(value.isfinite() for value in kd) and kd[0] > 0
    sum(kd).backward()
    assert any(
        weight.grad is not None and weight.grad.any()
        for weight in model.backbone.parameters()
    )


def with_classes(config, count):
    config.bbox_head.num_classes = count
    return config


@pytest.mark.parametrize('shares', ['one class', 'one of three'])
@pytest.mark.parametrize('family', ['retinanet', 'gfl'])
def test_candidates_of_one_class_are_compared(family, shares):
    config = distilled(family, LOSSES)
    data = dense_batch(family)
    if shares == 'one class':
        config['class_names'] = config['teacher']['classes'] = ('cat',)
        with_classes(config['student'], 1)
        with_classes(config['teacher']['config'], 1)
        for each in data['data_samples']:
            each.gt_instances.labels.zero_()
    else:
        config['classes'] = 'shared'
        config['teacher']['classes'] = ('zebra', CLASSES[1])
        with_classes(config['teacher']['config'], 2)
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    model.student.init_weights()
    terms = model(**model.data_preprocessor(data, True), mode='loss')
    kd = [terms['loss_rank_mimic'], terms['loss_box_rank']]
    assert all(value.isfinite() for value in kd) and kd[0] > 0
    sum(kd).backward()
    assert model.backbone.conv1.weight.grad.any()


@pytest.mark.parametrize('name', ['KDLoss', 'RankKDLoss', 'ListMLELoss'])
def test_one_shared_class_is_too_few_for_others_before_training(name):
    loss = dict(type=f'mmrkkd.{name}', locations='foreground')
    config = distilled('gfl', [*LOSSES, loss], classes='shared')
    config['teacher']['classes'] = ('zebra', CLASSES[1])
    with_classes(config['teacher']['config'], 2)
    with pytest.raises(
        ValueError,
        match=f"share 1 .* \\('dog'\\), and {name} must have at least 2",
    ):
        MODELS.build(config)


def test_a_two_stage_step(batch):
    torch.manual_seed(0)
    model = KDDetector(
        student=detector_config(),
        teacher=dict(config=detector_config(), allow_random_weights=True),
        losses=LOSSES,
        class_names=CLASSES,
    ).train()
    terms = model(**model.data_preprocessor(batch(), True), mode='loss')
    kd = terms['loss_rank_mimic'] + terms['loss_box_rank']
    assert kd.isfinite()
    kd.backward()
    assert model.roi_head.bbox_head.fc_cls.weight.grad.any()


def test_nothing_is_looked_for_where_no_loss_asks():
    model = MODELS.build(
        distilled('fcos', dict(type='mmrkkd.BinaryKDLoss'))
    ).train()
    data = model.data_preprocessor(dense_batch('fcos'), True)
    with model.reader.tap(model.student) as taps:
        model.student(**data, mode='loss')
    (match,) = model.reader.read(
        taps,
        model.student,
        model.teacher.model,
        data['inputs'],
        data['data_samples'],
    )
    assert match.groups is None and not model.reader.wants


def test_queries_have_no_candidates():
    with pytest.raises(
        TypeError, match='RankMimicLoss .* queries of the reader'
    ):
        MODELS.build(query_distilled('dab', LOSSES))


def test_heads_that_show_no_labels_are_told():
    model, data = step('yolox')
    with pytest.raises(RuntimeError, match="object's candidates needs labels"):
        model(**data, mode='loss')


def test_heads_that_do_not_say_where_their_cells_are():
    head = torch.nn.Identity()
    with pytest.raises(TypeError, match='Identity does not say where its cel'):
        objects_of_cells(
            head, [torch.zeros(1, 2, 2, 1, 3)], torch.zeros(4), []
        )
