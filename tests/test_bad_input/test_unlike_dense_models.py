"""Dense heads that cannot be compared, and losses that do not fit them."""

import sys
from pathlib import Path

import pytest
from conftest import detector_config
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

from small_dense_heads import CLASSES, dense_config, distilled

from mmrkkd.distillers.readers import build_reader
from mmrkkd.distillers.readers.grid import GridReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')
RKKD = dict(type='mmrkkd.RankKDLoss')
BINARY = dict(type='mmrkkd.BinaryKDLoss')


def build(config):
    return MMENGINE.build(config)


def refusal(student, teacher):
    """The message by which a pair of families is refused."""
    models = build(dense_config(student)), build(dense_config(teacher))
    with pytest.raises((TypeError, ValueError)) as caught:
        GridReader().check(*models)
    return str(caught.value)


@pytest.mark.parametrize(
    'student,teacher,words',
    [
        (
            'fcos',
            'retinanet',
            ['FCOSHead', '[1, 1, 1, 1, 1]', 'RetinaHead', "anchors='max'"],
        ),
        (
            'rtmdet',
            'gfl',
            ['RTMDetSepBNHead', '[8, 16, 32]', 'GFLHead', "levels='shared'"],
        ),
        ('yolof', 'retinanet', ['YOLOFHead', 'class and objectness']),
        ('yolox', 'rtmdet', ['YOLOXHead', 'RTMDetSepBNHead', 'objectness']),
        ('ssdlite', 'retinanet', ['SSDHead', 'softmax', 'by sigmoid']),
        ('solo', 'fcos', ['SOLOHead', 'mask cell', 'FCOSHead']),
    ],
)
def test_unlike_heads_are_refused_before_training(student, teacher, words):
    message = refusal(student, teacher)
    assert all(word in message for word in words), message
    assert 'Use a teacher' in message


@pytest.mark.parametrize(
    'student,teacher',
    [
        ('fcos', 'atss'),
        ('vfnet', 'gfl'),
        ('condinst', 'fcos'),
        ('rtmdet_ins', 'rtmdet'),
    ],
)
def test_heads_of_the_same_cells_go_together(student, teacher):
    models = build(dense_config(student)), build(dense_config(teacher))
    GridReader().check(*models)


def test_boxes_are_no_cells():
    boxes, cells = detector_config(), dense_config('retinanet')
    config = distilled('retinanet', RKKD)
    config['teacher']['config'] = boxes
    with pytest.raises(TypeError, match='teacher FasterRCNN has no dense hea'):
        MODELS.build(config)
    config = dict(config, student=boxes)
    config['teacher']['config'] = cells
    with pytest.raises(TypeError, match='teacher RetinaNet has no roi_head'):
        MODELS.build(config)


def shipped(name, **changes):
    config = Config.fromstring(f"_base_ = 'mmdet::{name}'", '.py').model
    config.backbone.update(init_cfg=None)
    config.update(changes)
    return config


def test_a_region_proposal_network_knows_no_classes():
    model = build(shipped('rpn/rpn_r50_fpn_1x_coco.py'))
    with pytest.raises(TypeError, match='RPNHead cannot .* knows no classes'):
        build_reader('auto', model).check(model, model)


def test_a_distiller_is_no_student():
    config = shipped('ld/ld_r18-gflv1-r101_fpn_1x_coco.py')
    config.update(teacher_ckpt=None)
    config.teacher_config = shipped('gfl/gfl_r50_fpn_1x_coco.py')
    config.teacher_config = dict(model=config.teacher_config)
    model = build(config)
    with pytest.raises(TypeError, match='is a distiller already'):
        GridReader().check(model, model)


def test_scores_of_a_texts_tokens_are_refused():
    class ATSSVLFusionHead(nn.Module):
        """GLIP's: here only its name counts."""

    model = nn.Module()
    model.bbox_head = ATSSVLFusionHead()
    with pytest.raises(
        TypeError, match='ATSSVLFusionHead .* tokens of a text'
    ):
        GridReader().check(model, model)


@pytest.mark.parametrize('name', ['KDLoss', 'DKDLoss', 'DISTLoss'])
def test_softmax_losses_are_refused_on_a_sigmoid_head(name):
    with pytest.raises(TypeError, match=f'{name} .* use BinaryKDLoss'):
        MODELS.build(distilled('atss', dict(type=f'mmrkkd.{name}')))


def test_binary_losses_are_refused_on_a_softmax():
    with pytest.raises(TypeError, match='BinaryKDLoss is for .* use KDLoss'):
        MODELS.build(distilled('ssdlite', BINARY))
    config = dict(
        type='mmrkkd.KDDetector',
        student=detector_config(),
        teacher=dict(config=detector_config(), allow_random_weights=True),
        losses=BINARY,
    )
    with pytest.raises(TypeError, match='BinaryKDLoss is for .* use KDLoss'):
        MODELS.build(config)


def one_class(losses):
    config = distilled('atss', losses)
    for part in (config['student'], config['teacher']['config']):
        part.bbox_head.num_classes = 1
    config['teacher']['classes'] = config['class_names'] = ['person']
    return config


def test_one_class_has_no_order():
    with pytest.raises(
        ValueError, match='RankKDLoss compares .* use BinaryKD'
    ):
        MODELS.build(one_class(RKKD))
    assert MODELS.build(one_class(BINARY)).reader.name == 'grid'


def test_unknown_options_of_the_reader_are_named():
    with pytest.raises(TypeError, match=r"no option 'location': did you mean"):
        MODELS.build(
            distilled('atss', RKKD, matching=dict(type='grid', location='all'))
        )
    for wrong in (dict(locations='some'), dict(top=2.0)):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be'):
            MODELS.build(
                distilled('atss', RKKD, matching=dict(type='grid', **wrong))
            )


def test_the_old_option_of_boxes_is_refused():
    with pytest.raises(TypeError, match='has no roi_head'):
        MODELS.build(distilled('atss', RKKD, rois='all'))


def test_other_classes_are_refused():
    config = distilled('atss', RKKD)
    config['teacher']['classes'] = [*CLASSES[:2], 'fish']
    with pytest.raises(ValueError, match='not made for the same classes'):
        MODELS.build(config)
