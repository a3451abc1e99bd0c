"""Teachers that cannot teach: of another task, other classes, other heads."""

import pytest
from conftest import CLASSES, detector_config
from mmengine.registry import init_default_scope
from torch import nn

from mmrkkd.distillers import KDClassifier, KDDetector
from mmrkkd.registry import MODELS

pytestmark = pytest.mark.usefixtures('mmdet_scope')


def classifier(num_classes=3, scope='mmpretrain.', **loss):
    return dict(
        type=f'{scope}ImageClassifier',
        backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
        neck=dict(type=f'{scope}GlobalAveragePooling'),
        head=dict(
            type=f'{scope}LinearClsHead',
            num_classes=num_classes,
            in_channels=64,
            loss=dict(type=f'{scope}CrossEntropyLoss', **loss),
        ),
    )


def make(kind, student, teacher, names=CLASSES, **changes):
    return kind(
        student=student,
        teacher=dict(config=teacher, allow_random_weights=True, **changes),
        losses=dict(type='mmrkkd.KDLoss'),
        class_names=names,
    )


def pretrain(config):
    return dict(default_scope='mmpretrain', model=config)


def test_a_classifier_does_not_teach_a_detector():
    with pytest.raises(
        TypeError,
        match='the teacher ImageClassifier has no roi_head: the reader rois',
    ):
        make(KDDetector, detector_config(), pretrain(classifier(scope='')))


def test_a_detector_does_not_teach_a_classifier():
    init_default_scope('mmpretrain')
    teacher = dict(default_scope='mmdet', model=detector_config())
    with pytest.raises(
        TypeError,
        match='the teacher FasterRCNN .*KDClassifier distils image classif',
    ):
        make(KDClassifier, classifier(scope=''), teacher)


@pytest.mark.parametrize('place', ['detector', 'student'])
def test_of_a_model_around_a_detector_the_detector_is_asked(place):
    around = nn.Module()
    setattr(around, place, MODELS.build(detector_config()))
    with pytest.raises(
        TypeError,
        match='no reader fits the student Module: .* It is a model around a '
        r'detector \(FasterRCNN\): give that detector as the student',
    ):
        make(KDDetector, around, detector_config())


def test_a_classifiers_student_is_no_detector():
    with pytest.raises(TypeError, match='the student FasterRCNN .*KDClassif'):
        make(KDClassifier, detector_config(), detector_config())


def test_a_sigmoid_teacher_of_a_softmax_detector_is_refused():
    teacher = detector_config()
    teacher.roi_head.bbox_head.loss_cls.use_sigmoid = True
    with pytest.raises(TypeError, match="the teacher's box head .*sigmoid"):
        make(KDDetector, detector_config(), teacher)


def test_a_sigmoid_teacher_of_a_softmax_classifier_is_refused():
    init_default_scope('mmpretrain')
    teacher = classifier(scope='', use_sigmoid=True)
    with pytest.raises(TypeError, match="the teacher's head .* by a sigmoid"):
        make(KDClassifier, classifier(scope=''), teacher)


def test_multi_label_heads_are_not_told_what_they_have_done():
    """The advice was use_sigmoid=False, which stands there already."""
    init_default_scope('mmpretrain')
    teacher = classifier(scope='', use_sigmoid=False)
    teacher['head'].update(type='MultiLabelLinearClsHead')
    with pytest.raises(TypeError, match='multi-label') as caught:
        make(KDClassifier, classifier(scope=''), teacher)
    assert 'whatever its loss' in str(caught.value)
    assert 'use_sigmoid' not in str(caught.value)


def test_a_cascade_without_the_stage_that_is_asked_for_is_refused():
    with pytest.raises(ValueError, match='teacher_stage=3, but the teacher '):
        KDDetector(
            student=detector_config(),
            teacher=dict(
                config=detector_config('cascade-rcnn'),
                allow_random_weights=True,
            ),
            losses=dict(type='mmrkkd.KDLoss'),
            matching=dict(type='rois', teacher_stage=3),
            class_names=CLASSES,
        )


def test_a_teacher_of_more_classes_is_refused_with_both_numbers():
    init_default_scope('mmpretrain')
    with pytest.raises(ValueError, match='has 3 channels, the teacher 7'):
        make(
            KDClassifier,
            classifier(scope=''),
            classifier(7, scope=''),
            names=None,
        )


def test_one_class_name_without_a_comma_is_refused():
    with pytest.raises(
        ValueError, match=r"student's classes .* 'person'.*\('person',\)"
    ):
        make(KDDetector, detector_config(), detector_config(), names='person')
    with pytest.raises(ValueError, match=r'teacher.classes .* needs a comma'):
        make(
            KDDetector, detector_config(), detector_config(), classes='person'
        )
