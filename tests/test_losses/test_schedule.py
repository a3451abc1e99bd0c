"""Weights that change during a run, against arithmetic."""

import math

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmrkkd.losses import (
    KDLoss,
    Progress,
    RankKDLoss,
    build_schedule,
    set_progress,
)


def at(epoch, **options):
    return build_schedule('weight', options)(Progress(epoch=epoch))


def test_a_number_is_itself_at_all_times():
    schedule = build_schedule('weight', 0.9)
    assert schedule(Progress()) == schedule(Progress(240, 10**6)) == 0.9
    assert build_schedule('weight', 0)(Progress()) == 0


def test_a_run_starts_at_epoch_1_and_iteration_1():
    assert Progress() == Progress(epoch=1, iteration=1)


@pytest.mark.parametrize('epoch', [1, 2, 10, 19, 20, 21, 240])
def test_warm_up_of_dkd_is_epoch_over_20_up_to_1(epoch):
    assert at(epoch, type='linear', end=20) == min(epoch / 20, 1)


@pytest.mark.parametrize(
    'epoch,value',
    [
        (1, (1 - math.cos(math.pi / 10)) / 2),
        (5, 0.5),
        (9, (1 + math.cos(math.pi / 10)) / 2),
        (10, 1.0),
        (11, 1.0),
        (240, 1.0),
    ],
)
def test_ramp_of_ctkd_is_half_a_cosine_in_10_epochs(epoch, value):
    assert at(epoch, type='cosine', end=10) == pytest.approx(value, abs=1e-15)


def test_ramp_of_ctkd_starts_at_0_0245():
    assert round(at(1, type='cosine', end=10), 4) == 0.0245


def test_a_ramp_goes_from_start_at_begin_to_stop_at_end():
    options = dict(type='linear', start=0.1, stop=0.9, begin=5, end=9)
    expected = {1: 0.1, 5: 0.1, 6: 0.3, 7: 0.5, 8: 0.7, 9: 0.9, 10: 0.9}
    for epoch, value in expected.items():
        assert at(epoch, **options) == pytest.approx(value)


def test_a_ramp_may_go_down():
    options = dict(start=2.0, stop=1.0, end=4)
    assert at(1, type='linear', **options) == 1.75
    assert at(2, type='cosine', **options) == pytest.approx(1.5)
    assert at(4, type='linear', **options) == 1


def test_a_step_is_taken_when_its_milestone_is_finished():
    options = dict(type='step', start=0.9, milestones=[150, 180], gamma=0.1)
    for epoch, value in {
        1: 0.9,
        150: 0.9,
        151: 0.09,
        180: 0.09,
        181: 0.009,
        240: 0.009,
    }.items():
        assert at(epoch, **options) == pytest.approx(value)


def test_step_defaults_are_1_and_a_tenth():
    assert at(3, type='step', milestones=[3]) == 1
    assert at(4, type='step', milestones=[3]) == pytest.approx(0.1)


def test_weights_of_norm_by_the_epoch():
    options = dict(
        type='steps',
        values=[0.1, 0.5, 1, 0.5, 0.1],
        milestones=[10, 20, 180, 210],
    )
    for epoch, value in {
        1: 0.1,
        10: 0.1,
        11: 0.5,
        20: 0.5,
        21: 1,
        180: 1,
        181: 0.5,
        211: 0.1,
        240: 0.1,
    }.items():
        assert at(epoch, **options) == value


def test_gamma_0_switches_off():
    assert at(4, type='step', milestones=[3], gamma=0) == 0


@pytest.mark.parametrize(
    'options,value',
    [
        (dict(type='linear', end=1000), 0.25),
        (dict(type='cosine', end=500), 0.5),
        (dict(type='step', milestones=[249]), 0.1),
        (dict(type='step', milestones=[250]), 1.0),
        (dict(type='steps', values=[3, 7], milestones=[249]), 7),
    ],
)
def test_iterations_count_where_asked(options, value):
    schedule = build_schedule('weight', dict(options, by='iteration'))
    assert schedule(Progress(1, 250)) == pytest.approx(value)
    assert schedule(Progress(99, 250)) == schedule(Progress(1, 250))


def test_epochs_count_otherwise():
    schedule = build_schedule('weight', dict(type='linear', end=20))
    assert schedule(Progress(5, 1)) == schedule(Progress(5, 10**6)) == 0.25


def test_a_schedule_is_taken_as_it_is():
    schedule = build_schedule('weight', dict(type='linear', end=20))
    assert build_schedule('other', schedule) is schedule


def test_the_config_is_left_alone():
    config = ConfigDict(type='cosine', end=10)
    build_schedule('weight', config)
    assert config == dict(type='cosine', end=10)


@pytest.mark.parametrize(
    'value,text',
    [
        (0.9, '0.9'),
        (dict(type='linear', end=20), 'linear 0 to 1 from epoch 0 to 20'),
        (
            dict(type='cosine', start=0.1, begin=5, end=10, by='iteration'),
            'cosine 0.1 to 1 from iteration 5 to 10',
        ),
        (
            dict(type='step', milestones=[3, 4]),
            '1 times 0.1 after each epoch of [3, 4]',
        ),
        (
            dict(type='steps', values=[0.5, 1, 0], milestones=[3, 4]),
            '0.5, 1, 0, the next after epoch [3, 4]',
        ),
    ],
)
def test_the_log_states_the_schedule(value, text):
    assert f'{build_schedule("weight", value)}' == text
    assert f'loss_weight={text}' in repr(KDLoss(loss_weight=value))


@pytest.mark.parametrize(
    'value', [-1, -1e-9, math.nan, math.inf, True, '0.9', None, [0.9]]
)
def test_numbers_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match='kd_weight must be a finite .* >= 0'):
        build_schedule('kd_weight', value)


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(end=20), r'kd_weight.type must be one of .* got None'),
        (dict(type='sine', end=20), "kd_weight.type must be .* got 'sine'"),
        (dict(type='linear'), "kd_weight=.*: .* argument: 'end'"),
        (dict(type='linear', end=2, top=3), "kd_weight=.*: .* 'top'"),
        (dict(type='linear', end=0), 'kd_weight=.* begin < end, got .*end=0'),
        (dict(type='cosine', end=5, begin=5), 'kd_weight=.* begin=5, end=5'),
        (dict(type='linear', end=5, begin=-1), 'kd_weight=.* begin=-1'),
        (dict(type='linear', end='20'), "kd_weight={'type'.*'20'}: "),
        (dict(type='linear', end=math.nan), 'kd_weight=.* end=nan'),
        (dict(type='linear', end=5, start=-1), 'kd_weight=.*: start must be'),
        (dict(type='linear', end=5, stop=None), 'kd_weight=.*: stop must be'),
        (dict(type='linear', end=5, by='step'), 'kd_weight=.*: by must be'),
        (dict(type='step'), "kd_weight=.*: .* argument: 'milestones'"),
        (dict(type='step', milestones=5), 'kd_weight=.*: '),
        (dict(type='step', milestones=[5, 3]), r'increase, got \[5, 3\]'),
        (dict(type='step', milestones=[3, 3]), r'increase, got \[3, 3\]'),
        (dict(type='step', milestones=[3], gamma=-1), 'gamma must be'),
        (
            dict(type='steps', values=[1], milestones=[3]),
            r'one value more than milestones, got values=\[1\], mile',
        ),
        (dict(type='steps', values=[1, -1], milestones=[3]), 'a value must'),
        (dict(type='step', milestones=[3], start=-1), 'start must be'),
    ],
)
def test_errors_name_the_argument_and_the_option(options, message):
    with pytest.raises(ValueError, match=message):
        RankKDLoss(kd_weight=options)


def test_progress_reaches_losses_inside_losses():
    ramp = dict(type='linear', end=4)
    logits = torch.randn(2, 3, 5).double().unbind(0)
    parts = nn.ModuleList(
        [
            RankKDLoss(
                kd=dict(type='KDLoss', loss_weight=ramp),
                kd_weight=dict(type='step', milestones=[1], gamma=0.5),
                rank_weight=ramp,
            )
        ]
    )
    full = RankKDLoss(kd_weight=1.0, rank_weight=1.0)(*logits)
    for epoch, kd, rank in [(1, 0.25, 0.25), (2, 0.25, 0.5), (4, 0.5, 1.0)]:
        set_progress(parts, Progress(epoch=epoch))
        terms = parts[0](*logits)
        torch.testing.assert_close(terms['loss_kd'], kd * full['loss_kd'])
        torch.testing.assert_close(
            terms['loss_rank'], rank * full['loss_rank']
        )


def test_progress_of_one_loss_is_not_that_of_another():
    first, second = KDLoss(), KDLoss()
    set_progress(first, Progress(7, 70))
    assert first.progress == Progress(7, 70)
    assert second.progress == KDLoss().progress == Progress()
