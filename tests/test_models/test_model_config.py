"""One finder of the data preprocessor, wherever a config has it."""

import copy

import pytest
from mmengine.registry import DefaultScope

from mmrkkd.distillers.model_config import (
    plain_model,
    refuse_misplaced,
    whole_model,
)
from mmrkkd.distillers.teacher import build_teacher, read_teacher_config
from mmrkkd.registry import MODELS

OWN, AROUND, BESIDE = (dict(mean=[x] * 3, std=[1.0] * 3) for x in (1, 2, 3))


def config(own=None, around=None, beside=None):
    """A distillation with a preprocessor in up to three places."""
    student = dict(type='Student')
    model = dict(type='mmrkkd.KDClassifier', student=student, teacher={})
    whole = dict(model=model)
    for owner, value in ((student, own), (model, around), (whole, beside)):
        if value is not None:
            owner['data_preprocessor'] = value
    return whole


@pytest.mark.parametrize(
    'places, found',
    [
        (dict(own=OWN), OWN),
        (dict(around=AROUND), AROUND),
        (dict(beside=BESIDE), BESIDE),
        (dict(own=OWN, around=AROUND, beside=BESIDE), OWN),
        (dict(around=AROUND, beside=BESIDE), AROUND),
        (dict(), None),
    ],
)
def test_the_nearest_preprocessor_is_the_students(places, found):
    whole = config(**places)
    before = copy.deepcopy(whole)
    assert plain_model(whole).get('data_preprocessor') == found
    # A teacher that was itself distilled gets the same.
    teacher = read_teacher_config(whole)
    assert teacher.model == plain_model(whole)
    assert whole == before


def test_a_plain_model_is_what_the_runner_builds():
    plain = dict(model=dict(type='X'), data_preprocessor=BESIDE)
    assert plain_model(plain) == whole_model(plain)
    assert whole_model(plain) == dict(type='X', data_preprocessor=BESIDE)


def test_a_distiller_inside_of_another_model_is_found():
    distiller = config(around=AROUND)['model']
    whole = dict(model=dict(type='mmdet.DetTTAModel', module=distiller))
    before = copy.deepcopy(whole)
    assert plain_model(whole) == dict(
        type='mmdet.DetTTAModel',
        module=dict(type='Student', data_preprocessor=AROUND),
    )
    assert whole == before
    assert plain_model(dict(model=dict(type='X', module=None))).module is None


def test_a_distilled_teacher_sees_what_it_was_trained_on():
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmrkkd.CIFARResNet', depth=8),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64
        ),
    )
    model = dict(
        type='mmrkkd.KDClassifier',
        data_preprocessor=AROUND,
        student=student,
        teacher=dict(
            config=dict(student, data_preprocessor=AROUND),
            allow_random_weights=True,
        ),
        losses=dict(type='mmrkkd.KDLoss'),
        class_names=('cat', 'dog', 'bird'),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        teacher = build_teacher(model, allow_random_weights=True).model
        trained = MODELS.build(model)
    assert (teacher.data_preprocessor.mean == 2).all()
    assert (trained.data_preprocessor.mean == 2).all()
    assert trained.bridge.is_identity


def test_settings_beside_the_model_are_refused():
    """Where they do nothing; a variable that the model took is fine."""
    loss = dict(type='mmrkkd.KDLoss')
    model = dict(type='mmrkkd.KDDetector', student={}, losses=loss)
    refuse_misplaced(dict(model=model, losses=dict(loss)))
    refuse_misplaced(dict(model=dict(type='RetinaNet'), losses=[]))
    for key, value in (
        ('losses', dict(type='mmrkkd.DKDLoss')),
        ('matching', dict(type='grid')),
        ('task_weight', 0.5),
    ):
        message = (
            f'{key} at the top of the config does nothing: .*'
            rf'Write model = dict\({key}='
        )
        with pytest.raises(ValueError, match=message):
            refuse_misplaced(dict(model=model, **{key: value}))
