"""DOT against SGD written out by hand, in float64."""

import copy

import pytest
import torch
from torch import nn

from mmrkkd.engine import DOT
from mmrkkd.engine.dot_wrapper import BothGradients

# Rounding of a sum of ten numbers in float64.
EXACT = dict(rtol=1e-14, atol=1e-14)


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def give(optimizer, task, distillation):
    """Gradients by backward passes, as the wrapper has them made."""
    sum(task).backward(retain_graph=True)
    with optimizer.distilling():
        sum(distillation).backward()


def test_two_steps_with_constant_gradients():
    """p = 1, g = .5, d = 1, lr = .1.

    The first step is 1 - .1 (.5 + 1) = .85; then the momenta are
    .825 * .5 + .5 = .9125 and .975 * 1 + 1 = 1.975, which take
    .1 * 2.8875 from it.
    """
    p = parameter(1.0)
    optimizer = DOT([p], lr=0.1, momentum=0.9, delta=0.075)
    for expected in (0.85, 0.56125):
        give(optimizer, [(0.5 * p).sum()], [p.sum()])
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(p.item(), expected, **EXACT)
    state = optimizer.state[p]
    assert state['momentum_task'].item() == pytest.approx(0.9125, rel=1e-14)
    assert state['momentum_distillation'].item() == pytest.approx(1.975)


def test_five_steps_of_several_groups_by_hand():
    """A parameter of both losses, of one each, in groups of their own."""
    torch.manual_seed(0)
    start = dict(both=[1.0, -2.0], task=[3.0], kd=[-1.0], alone=[5.0])
    settings = dict(
        both=dict(lr=0.1, momentum=0.9, delta=0.09, weight_decay=0.01),
        task=dict(lr=0.05, momentum=0.8, delta=0.1, weight_decay=0.02),
        kd=dict(lr=0.02, momentum=0.5, delta=0.2, weight_decay=0.03),
        alone=dict(lr=0.5, momentum=0.5, delta=0.2, weight_decay=0.5),
    )
    found = {name: parameter(*values) for name, values in start.items()}
    optimizer = DOT(
        [dict(params=[found[name]], **settings[name]) for name in found],
        lr=1.0,
    )
    by_hand = {name: list(values) for name, values in start.items()}
    momenta = {name: [[0.0, 0.0] for _ in start[name]] for name in start}
    for _ in range(5):
        slopes = torch.randn(4, dtype=torch.float64)
        a, b, c, d = slopes.tolist()
        give(
            optimizer,
            [(a * found['both']).sum(), (b * found['task'] ** 2).sum() / 2],
            [(c * found['both'] ** 2).sum() / 2, (d * found['kd']).sum()],
        )
        optimizer.step()
        optimizer.zero_grad()
        for name in ('both', 'task', 'kd'):
            lr, m, delta, decay = settings[name].values()
            delta = delta if name == 'both' else 0.0
            for i, p in enumerate(by_hand[name]):
                g = dict(both=a, task=b * p, kd=0.0)[name] + decay * p
                k = dict(both=c * p, task=0.0, kd=d)[name]
                v = momenta[name][i]
                v[0] = (m - delta) * v[0] + g
                v[1] = (m + delta) * v[1] + k
                by_hand[name][i] = p - lr * (v[0] + v[1])
    for name, values in by_hand.items():
        torch.testing.assert_close(found[name].tolist(), values, **EXACT)
    assert by_hand['alone'] == start['alone']


@pytest.mark.parametrize('kinds', [(1, 1), (1, 0), (0, 1)])
def test_delta_of_zero_or_one_kind_of_gradient_is_sgd(kinds):
    """The momenta then add up to SGD's."""
    torch.manual_seed(0)
    ours, plain = parameter(1.0, 2.0), parameter(1.0, 2.0)
    settings = dict(lr=0.1, momentum=0.9, weight_decay=0.05)
    # A single kind has no delta, whatever is set.
    optimizer = DOT([ours], delta=0.0 if all(kinds) else 0.075, **settings)
    sgd = torch.optim.SGD([plain], **settings)
    for _ in range(5):
        slopes = torch.randn(2, 2, dtype=torch.float64)
        ours.grad = slopes[0].clone() if kinds[0] else None
        with optimizer.distilling():
            ours.grad = slopes[1].clone() if kinds[1] else None
        plain.grad = sum(g for g, there in zip(slopes, kinds) if there)
        optimizer.step()
        optimizer.zero_grad()
        sgd.step()
        torch.testing.assert_close(ours, plain, **EXACT)


def test_a_saved_state_goes_on_bit_for_bit():
    def step(p, optimizer, number):
        torch.manual_seed(number)
        give(
            optimizer,
            [(torch.randn(2) * p**2).sum()],
            [(torch.randn(2) * p).sum()],
        )
        optimizer.step()
        optimizer.zero_grad()

    p = parameter(1.0, 2.0)
    optimizer = DOT([p], lr=0.1, weight_decay=0.1)
    for number in range(3):
        step(p, optimizer, number)
    other = nn.Parameter(p.detach().clone())
    resumed = DOT([other], lr=3.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(3, 6):
        step(p, optimizer, number)
        step(other, resumed, number)
    assert torch.equal(p, other)


def test_accumulated_gradients_add_up_apart_and_are_forgotten():
    p = parameter(1.0)
    optimizer = DOT([p], lr=0.1)
    for _ in range(2):
        give(optimizer, [(2 * p).sum()], [(3 * p).sum()])
    assert p.grad.item() == 4 and optimizer.distilled[p].item() == 6
    optimizer.zero_grad()
    assert p.grad is None and not optimizer.distilled


def test_clipping_is_that_of_the_sum():
    """Norms of the sums (3, 4) and 12 make 13, brought down to 6.5."""
    p, q = parameter(0.0, 0.0), parameter(0.0)
    optimizer = DOT([p, q], lr=0.1)
    p.grad = torch.tensor([1.0, 5.0], dtype=torch.float64)
    with optimizer.distilling():
        p.grad = torch.tensor([2.0, -1.0], dtype=torch.float64)
        q.grad = torch.tensor([12.0], dtype=torch.float64)
    assert optimizer.clip(6.5).item() == pytest.approx(13)
    # PyTorch adds 1e-6 to the norm.
    half = 6.5 / (13 + 1e-6)
    torch.testing.assert_close(p.grad.tolist(), [half, 5 * half], **EXACT)
    torch.testing.assert_close(
        [optimizer.distilled[each].tolist() for each in (p, q)],
        [[2 * half, -half], [12 * half]],
        **EXACT,
    )
    assert optimizer.clip(1e9).item() == pytest.approx(6.5)
    torch.testing.assert_close(p.grad.tolist(), [half, 5 * half], **EXACT)


@pytest.mark.skipif(
    not hasattr(torch.amp, 'GradScaler'), reason='older loss scalers want CUDA'
)
@pytest.mark.parametrize('value', [1.0, float('inf')])
def test_a_loss_scaler_sees_the_gradients_of_both_kinds(value):
    scaler = torch.amp.GradScaler('cpu', init_scale=8.0)
    p = parameter(1.0)
    optimizer = DOT([p], lr=0.1)
    give(
        optimizer,
        [scaler.scale(0.5 * p).sum()],
        [scaler.scale(value * p).sum()],
    )
    scaler.step(BothGradients(optimizer))
    scaler.update()
    overflows = value == float('inf')
    assert p.item() == pytest.approx(1.0 if overflows else 0.85, rel=1e-14)
    assert scaler.get_scale() == (4.0 if overflows else 8.0)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(lr=-1.0), 'lr of DOT must be >= 0, got -1.0'),
        (dict(lr=0.1, momentum=1.0), r'momentum of DOT must be in \[0, 1\)'),
        (dict(lr=0.1, delta=0.1), 'momentum [+] delta < 1; momentum is 0.9, '),
        (dict(lr=0.1, delta=-0.1), 'delta of DOT must be .* got -0.1'),
        (dict(lr=0.1, momentum=0.2, delta=0.3), 'delta of DOT .* got 0.3'),
        (dict(lr=0.1, weight_decay=-1), 'weight_decay of DOT must be >= 0'),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DOT([parameter(1.0)], **settings)
    group = dict(params=[parameter(1.0)], **settings)
    with pytest.raises(ValueError, match=message):
        DOT([group], lr=0.1)


def test_gradients_that_nobody_keeps_apart_are_refused():
    p = parameter(1.0)
    optimizer = DOT([p], lr=0.1)
    p.sum().backward()
    with pytest.raises(RuntimeError, match="type='mmrkkd.DOTOptimWrapper'"):
        optimizer.step()
    assert p.item() == 1


def test_a_gradient_that_is_missing_once_is_0():
    p = parameter(1.0)
    optimizer = DOT([p], lr=0.1, momentum=0.9, delta=0.075)
    give(optimizer, [p.sum()], [p.sum()])
    optimizer.step()
    optimizer.zero_grad()
    p.sum().backward()
    optimizer.step()
    state = optimizer.state[p]
    assert state['momentum_task'].item() == pytest.approx(1.825, rel=1e-14)
    assert state['momentum_distillation'].item() == pytest.approx(0.975)
    resumed = DOT([p], lr=0.1, momentum=0.9, delta=0.075)
    resumed.load_state_dict(optimizer.state_dict())
    assert 'by_both' in resumed.state[p]
