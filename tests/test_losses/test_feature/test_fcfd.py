"""FCFD: each network goes on from the other one's features."""

import copy
import itertools
import math
import re

import pytest
import torch
from torch import nn

from mmrkkd.losses import FCFDLoss, Progress, set_progress
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.fcfd import bridge

LAYERS = ['a', 'b', 'c']
STUDENT = [(1, 2, 8, 8), (1, 3, 4, 4), (1, 4, 2, 2)]
TEACHER = [(1, 3, 8, 8), (1, 5, 4, 4), (1, 6, 2, 2)]


class Net(nn.Module):
    """A network of three layers; ``calls`` are those that were run."""

    def __init__(self, shapes):
        super().__init__()
        widths = [shape[1] for shape in shapes]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, width, 3, 2, padding=1)
            for before, width in itertools.pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], 4)
        self.calls = []

    def run(self, number, features):
        self.calls.append(number)
        return self.layers[number - 1](features).tanh()

    def scores(self, features):
        return self.head(features.mean((2, 3)))


def made(dtype=torch.float64, **options):
    """A loss and a batch, of noise."""
    torch.manual_seed(0)
    loss = FCFDLoss(LAYERS, **options).to(dtype)
    loss.activated = [True] * 3, [True, False, True]
    loss.connect(STUDENT, TEACHER)
    nets = Net(STUDENT).to(dtype), Net(TEACHER).to(dtype)
    nets[1].requires_grad_(False)
    pair = FeaturePair(
        *(
            [torch.randn(3, *shape[1:], dtype=dtype) for shape in shapes]
            for shapes in (STUDENT, TEACHER)
        ),
        stages=nets,
    )
    for features in pair.student:
        features.requires_grad_()
    return loss.to(dtype), pair


def total(loss, pair, paths=None):
    if paths is not None:
        loss.draw = lambda: paths
    return sum(loss(pair).values())


def mean_square(one, two):
    errors = [(a - b) ** 2 for a, b in zip(one.tolist(), two.tolist())]
    return math.fsum(errors) / len(errors)


def appearance(features, teacher, is_last):
    value = mean_square(features.flatten(), teacher.flatten())
    if is_last:
        value += mean_square(
            features.clamp_min(0).mean((2, 3)).flatten(),
            teacher.clamp_min(0).mean((2, 3)).flatten(),
        )
    return value


def kl(logits, target, temperature):
    value = 0.0
    for row, wanted in zip(logits.tolist(), target.tolist()):
        p, q = (
            [math.exp(z / temperature) for z in each] for each in (wanted, row)
        )
        p, q = ([z / sum(each) for z in each] for each in (p, q))
        value += sum(a * math.log(a / b) for a, b in zip(p, q))
    return temperature**2 * value / len(logits)


def test_terms_are_those_of_the_equation():
    loss, pair = made(loss_weight=0.5, kl_weight=3.0, temperature=2.0)
    own, others = pair.stages
    with torch.no_grad():
        bridged = [b(s) for b, s in zip(loss.to_teacher, pair.student)]
        expected = sum(
            appearance(x, t, is_last)
            for x, t, is_last in zip(bridged, pair.teacher, [0, 0, 1])
        )
        # The student's first layer, then the teacher's other two.
        second = others.run(1, bridged[0])
        third = others.run(2, second)
        expected += appearance(second, pair.teacher[1], False)
        expected += appearance(third, pair.teacher[2], True)
        target = others.scores(pair.teacher[2])
        divergence = kl(others.scores(third), target, 2)
        # The teacher's first two, then the student's last.
        last = own.run(2, loss.to_student[1](pair.teacher[1]))
        divergence += kl(own.scores(last), target, 2)
    loss.draw = lambda: [(0, 0), (1, 1)]
    terms = loss(pair)
    assert set(terms) == {'loss_fcfd', 'loss_fcfd_kl'}
    assert terms['loss_fcfd'].item() == pytest.approx(0.5 * expected)
    assert terms['loss_fcfd_kl'].item() == pytest.approx(3 * divergence)


@pytest.mark.parametrize(
    ('paths', 'own', 'others'),
    [
        ([(0, 0)], [], [1, 2]),
        ([(0, 1)], [], [2]),
        ([(1, 0)], [1, 2], []),
        ([(1, 1), (0, 1)], [2], [2]),
    ],
)
def test_a_path_runs_what_is_left_of_the_other_network(paths, own, others):
    loss, pair = made()
    total(loss, pair, paths)
    assert [net.calls for net in pair.stages] == [own, others]


def test_gradients_reach_student_and_bridges_and_not_the_teacher():
    loss, pair = made()
    for features in pair.teacher:
        features.requires_grad_()
    total(loss, pair, [(1, 0), (0, 0)]).backward()
    for features in pair.student:
        assert features.grad.abs().sum() > 0
    own, others = pair.stages
    assert all(p.grad.abs().sum() > 0 for p in own.parameters())
    assert all(p.grad is None for p in others.parameters())
    assert all(features.grad is None for features in pair.teacher)
    for key, parameter in loss.named_parameters():
        # No gradient of a bridge that was not drawn, but a zero.
        unused = key.startswith('to_student.1')
        assert (parameter.grad.abs().max() == 0) == unused, key


def test_gradcheck():
    loss, pair = made()
    loss.eval()

    def value(*student):
        pair.student = list(student)
        return total(loss, pair, [(1, 1), (0, 0)])

    assert torch.autograd.gradcheck(value, tuple(pair.student), fast_mode=True)


def test_paths_are_drawn_without_repeating():
    loss, _ = made(paths=4)
    torch.manual_seed(1)
    assert sorted(loss.draw()) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    loss.paths = 2
    drawn = [tuple(sorted(loss.draw())) for _ in range(200)]
    # Of six pairs each is as likely as the other: 33 of 200 on average, and
    # 7 is five deviations away.
    assert len(set(drawn)) == 6
    assert min(drawn.count(each) for each in set(drawn)) > 7


def test_processes_draw_the_same_by_the_iteration(monkeypatch):
    monkeypatch.setattr(
        'mmrkkd.losses.feature.fcfd.is_distributed', lambda: True
    )
    loss, _ = made()
    draws = []
    for iteration in (1, 1, 2, 3, 4, 5):
        set_progress(loss, Progress(iteration=iteration))
        torch.manual_seed(len(draws))
        draws.append(loss.draw())
    assert draws[0] == draws[1]
    assert len({tuple(each) for each in draws}) > 1


def test_every_weight_may_be_a_schedule():
    ramp = dict(type='linear', stop=4.0, end=4)
    loss, pair = made(loss_weight=ramp, kl_weight=ramp)
    loss.draw = lambda: [(0, 0), (1, 0)]
    terms = []
    for epoch in (1, 3):
        set_progress(loss, Progress(epoch=epoch))
        terms.append(loss(pair))
    for key, value in terms[0].items():
        torch.testing.assert_close(terms[1][key], 3 * value)


def test_half_precision_is_computed_in_float32():
    loss, pair = made(torch.float32)
    loss.draw = lambda: [(0, 0), (1, 0)]
    exact = loss(pair)
    halves = FeaturePair(
        [each.detach().bfloat16() for each in pair.student],
        [each.bfloat16() for each in pair.teacher],
        stages=pair.stages,
    )
    wide = FeaturePair(
        [each.float() for each in halves.student],
        [each.float() for each in halves.teacher],
        stages=pair.stages,
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        terms = loss(halves)
    for key, value in loss(wide).items():
        assert terms[key].dtype == torch.float32
        torch.testing.assert_close(terms[key], value)
        assert value != exact[key]


def test_state_is_all_that_was_learned():
    loss, pair = made()
    fresh, _ = made()
    for parameter in fresh.parameters():
        parameter.data += 1
    fresh.load_state_dict(loss.state_dict())
    paths = [(0, 0), (1, 0)]
    assert total(fresh, pair, paths) == total(copy.deepcopy(loss), pair, paths)


@pytest.mark.parametrize(
    ('source', 'target', 'kind', 'kernel', 'stride'),
    [
        ((1, 2, 4, 4), (1, 3, 4, 4), nn.Conv2d, (3, 3), (1, 1)),
        ((1, 2, 8, 8), (1, 3, 4, 4), nn.Conv2d, (3, 3), (2, 2)),
        ((1, 2, 4, 4), (1, 3, 8, 8), nn.ConvTranspose2d, (4, 4), (2, 2)),
    ],
)
def test_bridges(source, target, kind, kernel, stride):
    parts = bridge(source, target, True)
    assert type(parts[0]) is kind and parts[0].bias is None
    assert (parts[0].kernel_size, parts[0].stride) == (kernel, stride)
    assert isinstance(parts[1], nn.BatchNorm2d)
    assert parts[2].negative_slope == 0.1
    assert len(bridge(source, target, False)) == 2
    assert parts(torch.randn(2, *source[1:])).shape[1:] == target[1:]


def test_bridges_know_what_they_stand_for():
    loss, _ = made()
    assert [len(each) for each in loss.to_teacher] == [3, 2, 3]
    # No path changes at the last layer.
    assert [len(each) for each in loss.to_student] == [3, 3]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(student_layers='a'), "between two layers, got one, 'a'"),
        (dict(paths=0), 'a number from 1 to 4 for 3 layers, got 0'),
        (dict(paths=5), 'a number from 1 to 4 for 3 layers, got 5'),
        (dict(paths=1.0), 'a number from 1 to 4 for 3 layers, got 1.0'),
        (dict(temperature=0), 'temperature must be'),
        (dict(kl_weight=-1), 'kl_weight must be'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        FCFDLoss(**{'student_layers': LAYERS, **options})


def test_sides_that_no_bridge_joins():
    with pytest.raises(ValueError, match=re.escape('(1, 2, 9, 9) and (1, 3')):
        bridge((1, 2, 9, 9), (1, 3, 4, 4), True)


def test_what_the_distillers_give_is_wanted():
    loss, pair = made()
    pair.stages = None
    with pytest.raises(ValueError, match='from layer to layer, .* got None'):
        loss(pair)
    with pytest.raises(ValueError, match='bridges for 0 layers, got 3: call'):
        FCFDLoss(LAYERS)(pair)


def test_the_log_states_the_settings():
    text = repr(FCFDLoss(LAYERS))
    for part in ('a, b, c <- a, b, c', 'loss_weight=5', 'kl_weight=1'):
        assert part in text
    assert 'temperature=4, paths=2' in text
