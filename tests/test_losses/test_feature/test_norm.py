"""NORM: many copies of the teacher's last map, inside the student."""

import pytest
import torch
from torch import nn

from mmrkkd.losses import NORMLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.norm import Residual

STUDENT, TEACHER = (1, 3, 4, 4), (1, 5, 4, 4)


def made(student=STUDENT, teacher=TEACHER, **options):
    loss = NORMLoss(**{'copies': 2, **options})
    loss.connect([student], [teacher])
    return loss


def trained(residual):
    """A residual as it may be after some training, in evaluation."""
    generator = torch.Generator().manual_seed(1)
    for norm in (residual.expand[1], residual.contract[1]):
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.data.normal_(generator=generator)
        norm.running_var.uniform_(0.2, 3.0, generator=generator)
        norm.num_batches_tracked.fill_(7)
    return residual.eval()


def test_golden_value():
    loss = made((1, 1, 1, 2), (1, 1, 1, 2), loss_weight=1.0)
    loss.residual.expand = nn.Conv2d(1, 2, 1, bias=False)
    loss.residual.expand.weight.data = torch.tensor([1.0, 3.0]).view(
        2, 1, 1, 1
    )
    student = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    teacher = torch.tensor([2.0, 2.0]).view(1, 1, 1, 2)
    # Copies (1, 2) and (3, 6): errors 1, 0, 1, 16; 2 times their mean.
    term = loss(FeaturePair([student], [teacher]))['loss_norm']
    assert term.item() == pytest.approx(2 * (1 + 0 + 1 + 16) / 4)


def test_equals_the_square_error_to_a_tiled_map():
    torch.manual_seed(0)
    loss = made(copies=3, loss_weight=0.5).double()
    student, teacher = (
        torch.randn(2, *shape[1:], dtype=torch.float64)
        for shape in (STUDENT, TEACHER)
    )
    expanded = loss.residual.expand(student)
    tiled = torch.cat([teacher, teacher, teacher], 1)
    expected = 0.5 * 3 * (expanded - tiled).square().mean()
    pair = FeaturePair([student], [teacher])
    torch.testing.assert_close(loss(pair)['loss_norm'], expected)
    # What ran inside the student is not run again.
    loss.residual.expand = None
    pair.expanded = expanded
    torch.testing.assert_close(loss(pair)['loss_norm'], expected)


@pytest.mark.parametrize(
    ('student', 'teacher'), [((2, 2), (4, 4)), ((4, 4), (2, 2))]
)
def test_the_finer_map_is_pooled_by_its_largest(student, teacher):
    loss = made((1, 1, *student), (1, 1, *teacher), copies=1)
    loss.residual.expand = nn.Identity()
    maps = [torch.randn(1, 1, *size) for size in (student, teacher)]
    term = loss(FeaturePair(*[[each] for each in maps]))['loss_norm']
    s, t = (
        each.view(2, side // 2, 2, side // 2).amax((1, 3))
        for each, (side, _) in zip(maps, (student, teacher))
    )
    assert term.item() == pytest.approx((s - t).square().mean().item())


def test_residual_is_a_sum():
    residual = trained(Residual(3, 10))
    features = torch.randn(2, 3, 4, 4)
    grown, expanded = residual(features)
    assert expanded.shape == (2, 10, 4, 4)
    torch.testing.assert_close(grown, features + residual.contract(expanded))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_the_merged_layer_does_what_both_did(dtype):
    torch.manual_seed(0)
    residual = trained(Residual(6, 40)).to(dtype)
    linear, merged = (nn.Linear(6, 9).to(dtype) for _ in range(2))
    weight, bias = residual.merged_into(linear.weight, linear.bias)
    assert weight.dtype == bias.dtype == dtype
    merged.weight.data, merged.bias.data = weight, bias
    features = torch.randn(8, 6, 5, 5, dtype=dtype)
    expected = linear(residual(features)[0].mean((2, 3)))
    found = merged(features.mean((2, 3)))
    # Of the order of additions only: each of some 40 terms is rounded, and
    # the largest partial sum is a bound of their size.
    matrix = residual.affine()[0].abs().sum(1).max()
    size = linear.weight.double().abs().sum(1).max() * matrix
    limit = 40 * torch.finfo(dtype).eps * (size * features.abs().max()).item()
    assert (found - expected).abs().max() <= limit
    # And it is no identity.
    assert (found - linear(features.mean((2, 3)))).abs().max() > 1e3 * limit


def test_merging_is_rounded_once():
    residual = trained(Residual(6, 40))
    linear = nn.Linear(6, 9)
    found = residual.merged_into(linear.weight, linear.bias)
    exact = residual.double().merged_into(
        linear.weight.double(), linear.bias.double()
    )
    for value, wanted in zip(found, exact):
        assert torch.equal(value, wanted.float())


def test_it_counts_from_the_first_step_on():
    residual = Residual(3, 10)
    assert not residual.counts
    residual.eval()(torch.randn(2, 3, 4, 4))
    assert not residual.counts
    residual.train()(torch.randn(2, 3, 4, 4))
    assert residual.counts
    residual.forget()
    assert not residual.counts


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(copies=0), 'copies must be an integer >= 1, got 0'),
        (dict(copies=1.5), 'copies must be an integer >= 1, got 1.5'),
        (dict(logit_scale=0), 'logit_scale must be'),
        (dict(student_layers=['a', 'b']), 'takes one layer, .* got a, b of'),
        (dict(teacher_layers=['a', 'b']), 'takes one layer, .* and a, b of'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        NORMLoss(**options)


def test_one_output_of_a_layer():
    with pytest.raises(ValueError, match=r'without \[\*\], got 2 of the stud'):
        NORMLoss('neck[*]').connect([STUDENT] * 2, [TEACHER] * 2)


def test_sides_must_be_multiples():
    with pytest.raises(ValueError, match='multiple of those of the other'):
        made((1, 3, 6, 6), (1, 5, 4, 4))
    # Height and width alike.
    with pytest.raises(ValueError, match='multiple of those of the other'):
        made((1, 3, 4, 4), (1, 5, 8, 4))


def test_a_residual_is_wanted():
    some = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match='no residual yet: call connect'):
        NORMLoss()(FeaturePair([some], [some]))
