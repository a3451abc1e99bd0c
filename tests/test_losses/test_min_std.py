"""The floor under the deviation that a ranking is standardised by."""

from pathlib import Path

import pytest
import torch
import yaml

from mmrkkd.losses import (
    KDLoss,
    KendallLoss,
    LSKDLoss,
    RankKDLoss,
    build_loss,
)
from mmrkkd.losses.min_std import MinStd
from mmrkkd.ops import kendall_tau, standardize

SWEEP = (
    Path(__file__).parents[2]
    / 'configs/classification/image_folder/min_std.yml'
)
KINDS = {
    'KendallLoss': KendallLoss,
    'RankKDLoss': lambda **options: RankKDLoss(kd_weight=0.0, **options),
    'LSKDLoss': LSKDLoss,
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 12, generator=generator).double()
    return student, 3 * teacher


def loss_and_gradient(loss, student, teacher):
    student = student.detach().requires_grad_()
    value = sum(loss(student, teacher).values())
    return value.detach(), torch.autograd.grad(value, student)[0]


def test_relative_to_the_teachers_deviation_of_each_sample(logits):
    student, teacher = logits
    deviation = 0.5 * teacher.std(-1)
    width = student.std(-1).maximum(deviation).unsqueeze(-1)
    z_hat = (student - student.mean(-1, keepdim=True)) / width
    tau = kendall_tau(z_hat, standardize(teacher))
    loss = KendallLoss(min_std=0.5)(student, teacher)
    torch.testing.assert_close(sum(loss.values()), -tau.mean())


def test_absolute_in_logits(logits):
    student, teacher = logits
    width = student.std(-1, keepdim=True).clamp(min=1.0)
    z_hat = (student - student.mean(-1, keepdim=True)) / width
    tau = kendall_tau(z_hat, standardize(teacher))
    loss = KendallLoss(min_std=dict(absolute=1.0))(student, teacher)
    torch.testing.assert_close(sum(loss.values()), -tau.mean())


RANKINGS = [name for name in KINDS if name != 'LSKDLoss']


@pytest.mark.parametrize('min_std', [0, 0.0, None, dict(absolute=0)])
@pytest.mark.parametrize('name', RANKINGS)
def test_none_is_the_published_formula(name, logits, min_std):
    def published(student, teacher):
        tau = kendall_tau(standardize(student), standardize(teacher))
        return dict(loss_rank=-tau.mean())

    loss = KINDS[name](min_std=min_std)
    weight = loss.now(getattr(loss, 'rank', loss).rank_weight)
    value, gradient = loss_and_gradient(published, *logits)
    now = loss_and_gradient(loss, *logits)
    torch.testing.assert_close(now[0], weight * value)
    torch.testing.assert_close(now[1], weight * gradient)


@pytest.mark.parametrize('name', RANKINGS)
def test_the_default_floor_is_the_teachers_deviation(name, logits):
    kind = KINDS[name]
    expected = loss_and_gradient(kind(min_std=1.0), *logits)
    for now, wanted in zip(loss_and_gradient(kind(), *logits), expected):
        assert torch.equal(now, wanted)


@pytest.mark.parametrize('min_std', [0, None])
def test_no_floor_is_no_floor(kind, logits, min_std):
    expected = loss_and_gradient(kind(min_std=0), *logits)
    for now, before in zip(
        loss_and_gradient(kind(min_std=min_std), *logits), expected
    ):
        assert torch.equal(now, before)


def test_a_student_as_spread_as_its_teacher_is_left_alone(kind, logits):
    student, teacher = logits
    expected = loss_and_gradient(kind(min_std=0), 5 * student, teacher)
    for now, before in zip(
        loss_and_gradient(kind(min_std=0.5), 5 * student, teacher), expected
    ):
        assert torch.equal(now, before)


@pytest.mark.parametrize('min_std', [0.25, dict(absolute=0.5)])
def test_nearly_constant_logits_pull_no_harder(kind, logits, min_std):
    """A layer that starts with weights of deviation 0.01."""
    student, teacher = logits
    _, usual = loss_and_gradient(kind(min_std=0), student, teacher)
    _, steep = loss_and_gradient(kind(min_std=0), 1e-3 * student, teacher)
    _, bounded = loss_and_gradient(
        kind(min_std=min_std), 1e-3 * student, teacher
    )
    assert steep.norm() > 500 * usual.norm()
    assert bounded.norm() < 5 * usual.norm()


def test_at_a_small_start_ranking_pulls_no_harder_than_kl():
    torch.manual_seed(0)
    student, teacher = 1e-3 * torch.randn(64, 100), 4 * torch.randn(64, 100)
    teacher[:, 0] += 8
    _, kl = loss_and_gradient(KDLoss(), student, teacher)
    published = KendallLoss(min_std=0)
    _, published = loss_and_gradient(published, student, teacher)
    _, floored = loss_and_gradient(KendallLoss(min_std=0.5), student, teacher)
    assert published.norm() > 30 * kl.norm()
    assert floored.norm() < kl.norm()


def test_a_constant_student_learns_the_order(logits):
    _, teacher = logits
    _, gradient = loss_and_gradient(
        KendallLoss(min_std=0.5), torch.zeros_like(teacher), teacher
    )
    assert torch.equal(gradient.argsort(-1), (-teacher).argsort(-1))


def test_a_constant_teacher_sets_no_floor(logits):
    student, teacher = logits
    teacher = torch.zeros_like(teacher)
    value, gradient = loss_and_gradient(
        KendallLoss(min_std=0.5), student, teacher
    )
    assert value == 0 and (gradient == 0).all()


def test_ignored_channels_set_no_floor(logits):
    student, teacher = logits
    teacher = teacher.clone()
    teacher[:, -1] = 1e4
    loss = KendallLoss(ignore_channels=[-1], min_std=0.5)
    expected = KendallLoss(min_std=0.5)(student[:, :-1], teacher[:, :-1])
    torch.testing.assert_close(loss(student, teacher), expected)


def test_the_floor_is_printed(kind):
    assert 'min_std=0.5' in repr(kind(min_std=0.5))
    assert 'min_std=absolute 2' in repr(kind(min_std=dict(absolute=2)))
    assert str(MinStd(dict(relative=0.5))) == str(MinStd(0.5))


@pytest.mark.parametrize(
    'min_std',
    [-1, '0.5', torch.inf, dict(absolute=-1), dict(abs=1), dict(a=1, b=2)],
)
def test_errors(kind, min_std):
    with pytest.raises(ValueError, match='min_std must be .* got'):
        kind(min_std=min_std)


def test_an_empty_dict_is_refused(kind):
    with pytest.raises(ValueError, match=r'min_std must be .* got \{\}'):
        kind(min_std={})


@pytest.mark.parametrize(('name', 'number'), [('', 5), ('_choice', 8)])
def test_cells_of_the_experiment_are_losses(name, number):
    sweep = SWEEP.with_name(f'min_std{name}.yml')
    cells = yaml.safe_load(sweep.read_text())['cells']
    assert len(cells) == number
    for cell in cells.values():
        options = {
            key.removeprefix('model.losses.'): value
            for key, value in cell.get('cfg_options', {}).items()
            if key.startswith('model.losses.')
        }
        ranks = cell['config'].startswith('rkkd_')
        assert ranks == bool(options)
        build_loss(dict(type='RankKDLoss' if ranks else 'KDLoss', **options))
