"""Images and annotations that a data set may hold and should not."""

import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, classifier_config, detector_config
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

import small_dense_heads as dense
import small_query_heads as queries

from mmrkkd.datasets import LoadIntactImage, name_broken_images
from mmrkkd.distillers import KDClassifier, KDDetector
from mmrkkd.distillers.annotations import check_samples
from mmrkkd.registry import MODELS, TRANSFORMS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss')


@pytest.fixture(params=['faster-rcnn', 'mask-rcnn', 'cascade-rcnn'])
def detector(request):
    return make_detector(request.param)


def make_detector(base='faster-rcnn'):
    torch.manual_seed(0)
    return KDDetector(
        student=detector_config(base),
        teacher=dict(config=detector_config(base), allow_random_weights=True),
        losses=RKKD,
        class_names=CLASSES,
    )


def losses_of(model, data):
    return model(**model.data_preprocessor(data, True), mode='loss')


def assert_trains(model, losses):
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total)
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize('empty', [[0], [0, 1]])
def test_images_without_boxes_train(detector, batch, empty):
    data = batch()
    for index in empty:
        sample = data['data_samples'][index]
        sample.gt_instances = sample.gt_instances[:0]
    losses = losses_of(detector, data)
    distilled = [name for name in losses if name.endswith('loss_kd')]
    assert distilled
    # Background is a class, so boxes without an object are compared too.
    assert all(losses[name] > 0 for name in distilled)
    assert_trains(detector, losses)


@pytest.mark.parametrize(
    'box',
    [
        [8.0, 9.0, 8.0, 9.0],
        [8.0, 9.0, 8.0, 20.0],
        [8.0, 9.0, 20.0, 9.0],
        [20.0, 9.0, 8.0, 20.0],
    ],
)
def test_a_box_without_area_names_the_image(batch, box):
    data = batch()
    sample = data['data_samples'][0]
    sample.gt_instances.bboxes[1] = torch.tensor(box)
    sample.set_metainfo(dict(img_path='data/flat.jpg'))
    with pytest.raises(
        ValueError,
        match=rf'(?s)boxes must have x1 < x2 .* got \[{re.escape(str(box))}\] '
        'in data/flat.jpg; remove such boxes .*FilterAnnotations',
    ):
        losses_of(make_detector(), data)


def mask_student(family):
    torch.manual_seed(0)
    if family in dense.FAMILIES:
        config, data = dense.distilled(family, RKKD), dense.batch(family)
    else:
        config = queries.query_distilled(family, RKKD)
        data = queries.query_batch(family)
    return MODELS.build(config).train(), data


# RandomCrop(recompute_bbox=True) leaves them so in MMDetection's configs of
# Mask2Former, which learn from the masks alone.
@pytest.mark.parametrize('family', ['mask2former_panoptic', 'solo', 'solov2'])
def test_students_of_masks_take_an_emptied_object(family):
    model, data = mask_student(family)
    for sample in data['data_samples']:
        sample.gt_instances.bboxes[1] = 0
        sample.gt_instances.masks.masks[1] = 0
    assert_trains(model, losses_of(model, data))


def test_labels_of_masks_are_looked_at():
    model, data = mask_student('mask2former_panoptic')
    data['data_samples'][0].gt_instances.labels[0] = 4
    with pytest.raises(ValueError, match=r'class indices in \[0, 3\], got'):
        losses_of(model, data)


@pytest.mark.parametrize('family', ['condinst', 'yolact'])
def test_students_of_boxes_and_masks_want_boxes(family):
    model = MODELS.build(dense.distilled(family, RKKD))
    assert model.reader.learns_boxes(model.student)
    assert model.data_preprocessor.boxes


# 3, the number of classes, would pass for the background.
@pytest.mark.parametrize('label', [-1, 3, 80])
def test_a_boxs_label_that_is_no_class_names_the_image(batch, label):
    data = batch()
    sample = data['data_samples'][1]
    sample.gt_instances.labels[0] = label
    sample.set_metainfo(dict(img_path='data/broken.jpg'))
    with pytest.raises(
        ValueError,
        match=rf'labels must be class indices in \[0, 2\], got \[{label}\] '
        'in data/broken.jpg: the student has 3 classes',
    ):
        losses_of(make_detector(), data)


def test_an_images_label_that_is_no_class_names_the_image():
    from mmpretrain.structures import DataSample

    init_default_scope('mmpretrain')
    network = classifier_config()
    model = KDClassifier(
        student=network,
        teacher=dict(config=network, allow_random_weights=True),
        losses=RKKD,
        class_names=CLASSES,
    )
    samples = [DataSample().set_gt_label(label) for label in (2, 3)]
    samples[1].set_metainfo(dict(img_path='data/n01/broken.jpg'))
    data = dict(
        inputs=torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        data_samples=samples,
    )
    with pytest.raises(ValueError, match=r'got \[3\] in data/n01/broken.jpg'):
        losses_of(model, data)


def test_samples_without_labels_are_not_looked_at():
    check_samples(None, 3)
    check_samples([object()], 3)


@pytest.mark.parametrize('content', [b'', b'no image', b'\xff\xd8\xff\xe0JF'])
def test_a_corrupt_image_is_named(content, tmp_path):
    path = tmp_path / 'broken.jpg'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='broken.jpg is empty or no image'):
        LoadIntactImage()(dict(img_path=str(path)))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='missing.jpg'):
        LoadIntactImage()(dict(img_path=str(tmp_path / 'missing.jpg')))


def test_a_corrupt_image_may_be_passed_over(tmp_path):
    path = tmp_path / 'broken.jpg'
    path.write_bytes(b'')
    assert LoadIntactImage(ignore_empty=True)(dict(img_path=str(path))) is None


@pytest.mark.parametrize(
    'kind',
    ['LoadImageFromFile', 'mmcv.LoadImageFromFile', LoadImageFromFile],
)
def test_the_tools_name_images_of_any_config(kind, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'')
    dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='BaseDataset',
            serialize_data=False,
            pipeline=[dict(type=kind), dict(type='LoadAnnotations')],
        ),
    )
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    name_broken_images(config)
    first, second = config.train_dataloader.dataset.dataset.pipeline
    assert second == dict(type='LoadAnnotations')
    load = TRANSFORMS.build(first)
    with pytest.raises(ValueError, match='broken.jpg'):
        load(dict(img_path=str(tmp_path / 'broken.jpg')))
