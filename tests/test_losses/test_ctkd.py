"""The learned temperature: values, and a gradient that climbs."""

import math

import pytest
import torch
from torch import nn

from mmrkkd.losses import CTKDLoss, Progress, RankKDLoss, set_progress


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        3 * torch.randn(2, 6, 8, generator=generator).double()
    ).unbind(0)
    return student.requires_grad_(), teacher


def temperature(theta):
    return 1 + 20 / (1 + math.exp(-theta))


def softmax(values):
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def distillation(student, teacher, theta):
    """T^2 KL in pure Python, the mean over samples."""
    t = temperature(theta)
    samples = []
    for row, target in zip(student.tolist(), teacher.tolist()):
        p_s = softmax([value / t for value in row])
        p_t = softmax([value / t for value in target])
        samples.append(
            t * t * sum(p * math.log(p / q) for p, q in zip(p_t, p_s))
        )
    return sum(samples) / len(samples)


def slope(student, teacher, theta, step=1e-4):
    """d distillation / d theta, by central differences."""
    above = distillation(student, teacher, theta + step)
    below = distillation(student, teacher, theta - step)
    return (above - below) / (2 * step)


def test_value_at_temperature_11_by_hand():
    # sigmoid(0) = 1/2, T = 1 + 20 / 2; softmax([log 3, 0]) = (3/4, 1/4)
    student = torch.zeros(1, 2).double()
    teacher = torch.tensor([[11 * math.log(3), 0.0]]).double()
    terms = CTKDLoss(theta=0.0, loss_weight=0.5)(student, teacher)
    assert list(terms) == ['loss_ctkd', 'kd/temperature']
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    # The teacher's logits above are rounded to float32.
    assert terms['loss_ctkd'].item() == pytest.approx(0.5 * 121 * kl, 1e-6)
    assert terms['kd/temperature'] == 11


def test_temperature_starts_at_15_62_and_stays_between_1_and_21():
    assert CTKDLoss().temperature().item() == pytest.approx(temperature(1.0))
    assert round(temperature(1.0), 2) == 15.62
    assert CTKDLoss(theta=-100).temperature() == 1
    assert CTKDLoss(theta=100).temperature() == 21


def test_range_of_the_temperature_can_be_set():
    loss = CTKDLoss(min_temperature=2.0, temperature_range=4.0, theta=0.0)
    assert loss.temperature() == 4


def test_value_is_that_of_distillation(logits):
    value = CTKDLoss()(*logits)['loss_ctkd']
    assert value.item() == pytest.approx(distillation(*logits, 1.0), 1e-12)


@pytest.mark.parametrize('theta', [-2.0, 0.0, 1.0])
@pytest.mark.parametrize('ramp', [0.25, 1.0])
def test_gradient_of_theta_is_reversed_and_scaled(logits, theta, ramp):
    loss = CTKDLoss(ramp=ramp, theta=theta, loss_weight=0.5)
    loss(*logits)['loss_ctkd'].backward()
    expected = -ramp * 0.5 * slope(*logits, theta)
    assert loss.theta.grad.item() == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(
    'epoch,factor',
    [(1, (1 - math.cos(math.pi / 10)) / 2), (5, 0.5), (10, 1), (200, 1)],
)
def test_the_ramp_is_a_cosine_over_10_epochs(logits, epoch, factor):
    loss = CTKDLoss()
    set_progress(loss, Progress(epoch=epoch))
    loss(*logits)['loss_ctkd'].backward()
    expected = -factor * slope(*logits, 1.0)
    assert loss.theta.grad.item() == pytest.approx(expected, 1e-5)


def test_a_step_of_theta_raises_the_loss(logits):
    loss = CTKDLoss(ramp=1.0)
    before = loss(*logits)['loss_ctkd']
    before.backward()
    torch.optim.SGD(loss.parameters(), lr=0.1).step()
    assert loss(*logits)['loss_ctkd'] > before


def test_gradient_of_the_student_is_not_reversed(logits):
    # d(T^2 KL)/dz_s = T (p_s - p_t), whatever the ramp is
    student, teacher = logits
    t = temperature(1.0)
    expected = t * ((student / t).softmax(-1) - (teacher / t).softmax(-1)) / 6
    for ramp in (0.0, 1.0):
        loss = CTKDLoss(ramp=ramp)(*logits)['loss_ctkd']
        (gradient,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(gradient, expected)


def test_ramp_0_holds_theta_still(logits):
    loss = CTKDLoss(ramp=0.0)
    loss(*logits)['loss_ctkd'].backward()
    assert loss.theta.grad == 0


@pytest.mark.parametrize('rank', [False, True])
def test_no_samples_give_theta_the_gradient_0(rank):
    loss = RankKDLoss(kd=dict(type='CTKDLoss')) if rank else CTKDLoss()
    student = torch.zeros(0, 5, requires_grad=True)
    terms = loss(student, torch.zeros(0, 5))
    sum(terms[name] for name in terms if 'loss' in name).backward()
    (theta,) = loss.parameters()
    assert theta.grad == 0


def test_ranking_sends_theta_nothing(logits):
    loss = RankKDLoss(kd=CTKDLoss(ramp=1.0), kd_weight=0.5, rank_weight=7.0)
    terms = loss(*logits)
    assert list(terms) == ['loss_ctkd', 'kd/temperature', 'loss_rank']
    assert terms['kd/temperature'].item() == pytest.approx(temperature(1.0))
    theta = loss.kd.theta
    (alone,) = torch.autograd.grad(
        terms['loss_rank'], theta, allow_unused=True, retain_graph=True
    )
    assert alone is None
    (terms['loss_ctkd'] + terms['loss_rank']).backward()
    assert theta.grad.item() == pytest.approx(-0.5 * slope(*logits, 1), 1e-5)


def test_the_ramp_inside_ranking_follows_the_run(logits):
    loss = RankKDLoss(kd=dict(type='CTKDLoss'), kd_weight=1.0)
    gradients = []
    for epoch in (5, 10):
        set_progress(loss, Progress(epoch=epoch))
        term = loss(*logits)['loss_ctkd']
        gradients.extend(torch.autograd.grad(term, loss.kd.theta))
    assert gradients[1].item() == pytest.approx(2 * gradients[0].item())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_computes_in_float32_whatever_autocast_and_the_module_say(
    logits, dtype
):
    student, teacher = (value.detach().float() for value in logits)
    expected = CTKDLoss()(student, teacher)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert CTKDLoss()(student, teacher) == expected
    # 1.0 has an exact value in every dtype.
    loss = CTKDLoss().to(dtype)
    assert loss(student, teacher) == expected
    loss(student.requires_grad_(), teacher)['loss_ctkd'].backward()
    assert loss.theta.grad.dtype == dtype


def test_float64_logits_go_with_theta_in_float32(logits):
    loss = CTKDLoss(ramp=1.0)
    value = loss(*logits)['loss_ctkd']
    assert value.dtype == torch.float64
    value.backward()
    assert loss.theta.dtype == loss.theta.grad.dtype == torch.float32


def test_only_theta_is_saved():
    assert list(CTKDLoss().state_dict()) == ['theta']
    saved = RankKDLoss(kd=CTKDLoss(theta=-0.5)).state_dict()
    assert list(saved) == ['kd.theta']
    loss = RankKDLoss(kd=dict(type='CTKDLoss'))
    loss.load_state_dict(saved)
    assert loss.kd.theta == -0.5


def test_the_diagnostic_is_not_part_of_the_sum(logits):
    loss = CTKDLoss()
    terms = loss(*logits)
    assert not terms['kd/temperature'].requires_grad
    total = loss(preds_S=logits[0], preds_T=logits[1])
    assert total == terms['loss_ctkd']


def test_student_and_temperature_train_together():
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 10), nn.Linear(6, 10)
    loss_function = CTKDLoss(ramp=1.0)
    optimizer = torch.optim.SGD(
        [*student.parameters(), *loss_function.parameters()], lr=0.2
    )
    inputs = torch.randn(64, 6)
    values, temperatures = [], []
    for _ in range(40):
        terms = loss_function(student(inputs), teacher(inputs))
        optimizer.zero_grad()
        terms['loss_ctkd'].backward()
        optimizer.step()
        values.append(terms['loss_ctkd'].item())
        temperatures.append(terms['kd/temperature'].item())
    assert values[-1] < values[0] / 2
    assert temperatures[-1] != temperatures[0]


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(loss_weight=-1), 'loss_weight must be .* >= 0, got -1'),
        (dict(ramp=-1), 'ramp must be a finite number >= 0, got -1'),
        (dict(ramp=dict(type='sine')), r'ramp.type must be one of'),
        (dict(min_temperature=0), 'min_temperature must be .* > 0, got 0'),
        (dict(temperature_range=0), 'temperature_range must be .* got 0'),
        (dict(theta=math.inf), 'theta must be a finite number, got inf'),
        (dict(theta='1'), "theta must be a finite number, got '1'"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        CTKDLoss(**change)
