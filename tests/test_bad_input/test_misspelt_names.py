"""A wrong name in a config is answered with the nearest right one."""

import pytest

from mmrkkd.distillers.teacher import check_teacher
from mmrkkd.losses import LOSSES, KDLoss, LogitLoss, build_loss
from mmrkkd.registry import MODELS


@pytest.mark.parametrize(
    'written,meant',
    [
        ('RankKD', 'RankKDLoss'),
        ('rankkdloss', 'RankKDLoss'),
        ('mmrkkd.LSKD', 'LSKDLoss'),
    ],
)
def test_an_unknown_loss_suggests_the_nearest(written, meant):
    with pytest.raises(
        KeyError,
        match=rf"{written} is not in the .* did you mean '{meant}'\?.*"
        r'The losses: .*CRLDLoss, CTKDLoss,.* KDLoss,.* WTTMLoss',
    ):
        build_loss(dict(type=written))


def test_a_name_like_no_loss_gets_the_list_alone():
    with pytest.raises(KeyError) as error:
        build_loss(dict(type='Huber'))
    assert 'did you mean' not in str(error.value)
    assert 'KendallLoss' in str(error.value)


def test_a_loss_without_type_is_refused():
    with pytest.raises(KeyError, match=r"needs type, got the keys \['temper"):
        build_loss(dict(temperature=4.0))


@pytest.mark.parametrize(
    'config,message',
    [
        (
            dict(type='KDLoss', tempreatuer=2.0),
            "KDLoss has no option 'tempreatuer': did you mean 'temperature'"
            r'\? Its options: temperature, loss_weight',
        ),
        (
            dict(type='mmrkkd.RankKDLoss', gama=1.0),
            "RankKDLoss has no option 'gama'.* Its options: temperature, kd_",
        ),
        (
            dict(type=KDLoss, lossweight=2.0),
            "did you mean 'loss_weight'",
        ),
        (
            dict(type='RankKDLoss', kd=dict(type='KDLoss', temp=2.0)),
            "KDLoss has no option 'temp': did you mean 'temperature'",
        ),
        (
            dict(type='LSKDLoss', kd=dict(type='DKDLoss', target_wieght=1)),
            "DKDLoss has no option 'target_wieght': did you mean 'target_w",
        ),
    ],
)
def test_an_unknown_option_suggests_the_nearest(config, message):
    with pytest.raises(TypeError, match=message):
        build_loss(config)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (
            dict(type='mmrkkd.ATLoss', power=1.0),
            r"^ATLoss needs student_layers, e.g. 'backbone\[3\]'.*"
            r'\(docs/en/features.md\); got power$',
        ),
        (dict(type='FGDLoss'), 'FGDLoss needs student_layers.*; got nothing$'),
        (dict(type='CRDLoss'), 'CRDLoss needs num_data, the number of images'),
    ],
)
def test_what_a_loss_cannot_do_without_is_named(config, message):
    with pytest.raises(TypeError, match=message):
        build_loss(config)


def test_every_loss_that_cannot_do_without_something_says_what_it_is():
    built = 0
    for name in LOSSES:
        try:
            build_loss(dict(type=name))
        except TypeError as error:
            assert f'{name} needs ' in str(error)
            assert '(docs/en/features.md); got nothing' in str(error)
        else:
            built += 1
    assert built > 20


def test_a_loss_that_takes_any_option_gets_them_all():
    class AnyOptions(LogitLoss):
        def __init__(self, **options):
            super().__init__()
            self.options = options

    MODELS.register_module(module=AnyOptions)
    try:
        loss = build_loss(dict(type='AnyOptions', tau=3))
    finally:
        del MODELS.module_dict['AnyOptions']
    assert loss.options == dict(tau=3)


@pytest.mark.parametrize('weight', [-1, '0.9', None, True, float('nan')])
@pytest.mark.parametrize('name', ['kd_weight', 'rank_weight'])
def test_a_weight_that_is_no_number_above_0_is_refused(name, weight):
    with pytest.raises(ValueError, match=rf'{name} must be .* >= 0, got '):
        build_loss({'type': 'RankKDLoss', name: weight})


@pytest.mark.parametrize(
    'teacher,message',
    [
        (
            dict(config='c.py', checkpiont='t.pth'),
            "teacher has no option 'checkpiont': did you mean 'checkpoint'"
            r'\? Its options: config, checkpoint, sha256, classes, allow_r',
        ),
        (
            dict(config='c.py', allow_random=True),
            "did you mean 'allow_random_weights'",
        ),
        (
            dict(checkpoint='t.pth'),
            r"teacher.config is missing.* has the keys \['checkpoint'\]",
        ),
        ('c.py', r"teacher must be a dict, teacher=dict\(.* got 'c.py'"),
        (
            dict(type='ImageClassifier', backbone=dict(type='ResNet')),
            "teacher has no option 'type'",
        ),
    ],
)
def test_wrong_keys_of_a_teacher(teacher, message):
    with pytest.raises(TypeError, match=message):
        check_teacher(teacher)
