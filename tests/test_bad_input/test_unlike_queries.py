"""Query heads that cannot be compared, and options that cannot be."""

import sys
from pathlib import Path

import pytest
from conftest import detector_config
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))

from small_query_heads import query_config, query_distilled

from mmrkkd.distillers.readers import build_reader
from mmrkkd.distillers.readers.queries import QueryReader
from mmrkkd.distillers.readers.sparse import SparseReader
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope', 'undrawn_weights')
RKKD = dict(type='mmrkkd.RankKDLoss')


def refusal(student, teacher, **options):
    """The message by which a pair of families is refused."""
    models = [MODELS.build(query_config(each)) for each in (student, teacher)]
    with pytest.raises((TypeError, ValueError)) as caught:
        build_reader(dict(options), models[0]).check(*models)
    return str(caught.value)


@pytest.mark.parametrize(
    'student,teacher,words',
    [
        ('detr', 'deformable', ['DETRHead', 'softmax', 'by sigmoid']),
        ('deformable', 'detr', ['DeformableDETRHead', 'by softmax']),
        ('detr', 'mask2former', ['boxes', 'Mask2FormerHead', 'masks']),
        ('maskformer', 'detr', ['MaskFormerHead', 'masks', 'boxes']),
        ('detr', 'sparse_rcnn', ['teacher SparseRCNN has no queries']),
        ('sparse_rcnn', 'detr', ['teacher DETR has no learned proposals']),
    ],
)
def test_unlike_heads_are_refused_before_training(student, teacher, words):
    message = refusal(student, teacher)
    assert all(word in message for word in words), message
    assert 'use' in message.lower()


@pytest.mark.parametrize(
    'student,teacher,words',
    [
        ('ddq', 'ddq', ['DDQDETRHead cannot score other queries']),
        ('dino', 'ddq', ['DDQDETRHead cannot score other queries']),
        ('mask2former', 'mask2former', ['Mask2FormerHead cannot score']),
        ('dab', 'conditional', ['32 channels', '256']),
    ],
)
def test_decoders_that_cannot_take_other_queries(student, teacher, words):
    message = refusal(student, teacher, match='teacher_queries')
    assert all(word in message for word in words), message
    assert "use match='hungarian'" in message


def test_queries_are_no_boxes():
    config = query_distilled('sparse_rcnn', RKKD)
    config['teacher']['config'] = detector_config()
    with pytest.raises(TypeError, match='FasterRCNN has no learned proposals'):
        MODELS.build(config)
    config = query_distilled('sparse_rcnn', RKKD, matching='rois')
    with pytest.raises(TypeError, match="learned proposals.*matching='auto'"):
        MODELS.build(config)
    config = query_distilled('detr', RKKD, matching='grid')
    with pytest.raises(TypeError, match='DETR has no dense head'):
        MODELS.build(config)


def test_scores_of_a_texts_tokens_are_refused():
    class GroundingDINOHead(nn.Module):
        """Here only its name counts."""

    model = nn.Module()
    model.bbox_head = GroundingDINOHead()
    assert type(build_reader('auto', model)) is QueryReader
    with pytest.raises(
        TypeError, match='GroundingDINOHead .* tokens of a text'
    ):
        QueryReader().check(model, model)


def test_channels_that_are_no_scores_of_classes_are_refused():
    model = MODELS.build(query_config('detr'))
    model.bbox_head.loss_cls.custom_cls_channels = True
    model.bbox_head.loss_cls.get_cls_channels = lambda classes: classes + 2
    with pytest.raises(TypeError, match='CrossEntropyLoss, whose channels'):
        QueryReader().check(model, model)


@pytest.mark.parametrize(
    'options,words',
    [
        (dict(match='greedy'), 'match must be'),
        (dict(layers='first'), 'layers must be'),
        (dict(teacher_layer='mean'), 'teacher_layer must be'),
        (dict(locations='top'), 'locations must be'),
        (dict(teacher_top=0), 'teacher_top must be a number of queries >= 1'),
        (dict(teacher_top=2.5), 'got 2.5'),
        (
            dict(match='teacher_queries', locations='foreground'),
            'knows no labels',
        ),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        QueryReader(**options)


def test_an_unknown_option_is_named():
    model = MODELS.build(query_config('sparse_rcnn'))
    with pytest.raises(TypeError, match='match'):
        build_reader(dict(type='sparse', match='hungarian'), model)
    with pytest.raises(ValueError, match='layers must be'):
        SparseReader(layers=0)


def test_a_head_that_does_not_run_is_told():
    model = MODELS.build(query_config('detr'))
    reader = QueryReader()
    with reader.tap(model) as taps:
        pass
    with pytest.raises(RuntimeError, match='DETRHead was not called'):
        reader.read(taps, model, model, None, [])
