"""What every registered logit loss must keep."""

import inspect

import pytest
import torch
from torch.autograd import gradcheck

from mmrkkd.losses import LogitLoss
from mmrkkd.registry import MODELS

N, C = 6, 10
LOSSES = sorted(
    name
    for name, module in MODELS.module_dict.items()
    if inspect.isclass(module) and issubclass(module, LogitLoss)
)


@pytest.fixture(params=LOSSES)
def loss(request):
    return MODELS.get(request.param)()


def batch(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(
        2, *shape, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(shape[-1], shape[:-1], generator=generator)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), labels


def total(terms):
    return sum(terms.values())


def test_losses_are_found():
    assert {'KDLoss', 'KendallLoss', 'RankKDLoss'} <= set(LOSSES)


def test_terms_are_named_scalars(loss):
    terms = loss(*batch(N, C))
    assert terms
    for name, value in terms.items():
        assert name.startswith('loss_')
        assert value.shape == ()
        assert value.isfinite()


def test_gradient_reaches_the_student_only(loss):
    student, teacher, labels = batch(N, C)
    teacher.requires_grad_()
    total(loss(student, teacher, labels)).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_gradcheck(loss):
    student, teacher, labels = batch(3, 5)
    assert gradcheck(
        lambda values: total(loss(values, teacher, labels)), (student,)
    )


def test_weights_0_and_1_equal_slicing(loss):
    student, teacher, labels = batch(N, C)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    kept = weight > 0
    torch.testing.assert_close(
        total(loss(student, teacher, labels, weight)),
        total(loss(student[kept], teacher[kept], labels[kept])),
    )


def test_scale_of_the_weights_does_not_matter(loss):
    student, teacher, labels = batch(N, C)
    weight = torch.rand(N, dtype=torch.float64)
    torch.testing.assert_close(
        total(loss(student, teacher, labels, weight)),
        total(loss(student, teacher, labels, 7 * weight)),
    )


def test_weight_0_hides_even_nan(loss):
    student, teacher, labels = batch(N, C)
    with torch.no_grad():
        student[0, 0] = torch.nan
    weight = torch.ones(N)
    weight[0] = 0
    value = total(loss(student, teacher, labels, weight))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert (student.grad[0] == 0).all()


def test_nothing_selected_gives_0_and_no_gradient(loss):
    student, teacher, labels = batch(N, C)
    terms = loss(student, teacher, labels, torch.zeros(N))
    total(terms).backward()
    assert total(terms) == 0
    assert (student.grad == 0).all()


def test_no_samples_give_the_same_keys_and_0(loss):
    student, teacher, labels = batch(0, C)
    terms = loss(student, teacher, labels)
    assert set(terms) == set(loss(*batch(N, C)))
    assert total(terms) == 0
    total(terms).backward()


def test_leading_dimensions_are_samples(loss):
    student, teacher, labels = batch(2, 3, C)
    weight = torch.rand(2, 3)
    torch.testing.assert_close(
        total(loss(student, teacher, labels, weight)),
        total(
            loss(
                student.flatten(0, 1),
                teacher.flatten(0, 1),
                labels.flatten(),
                weight.flatten(),
            )
        ),
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(loss, dtype):
    student, teacher, labels = batch(N, C, dtype=dtype)
    value = total(loss(student, teacher, labels))
    assert value.dtype == torch.float32
    value.backward()
    assert student.grad.dtype == dtype
    exact = student.detach().float().requires_grad_()
    expected = total(loss(exact, teacher.float(), labels))
    expected.backward()
    torch.testing.assert_close(value, expected)
    # The gradient is rounded once, to the dtype of the logits.
    rounding = (
        torch.finfo(dtype).eps * exact.grad.abs()
        + torch.finfo(dtype).smallest_normal
    )
    assert ((student.grad.float() - exact.grad).abs() <= rounding).all()


def test_autocast_changes_nothing(loss):
    student, teacher, labels = batch(N, C, dtype=torch.float32)
    outside = total(loss(student, teacher, labels))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = total(loss(student, teacher, labels))
    assert torch.equal(outside, inside)


@pytest.mark.parametrize('magnitude', [1e4, 3e4])
def test_huge_logits_stay_finite(loss, magnitude):
    student, teacher, labels = batch(N, C, dtype=torch.float32)
    student = (student.detach() * magnitude).requires_grad_()
    value = total(loss(student, teacher * magnitude, labels))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_constant_student_stays_finite(loss):
    _, teacher, labels = batch(N, C, dtype=torch.float32)
    student = torch.full((N, C), 0.1, requires_grad=True)
    value = total(loss(student, teacher, labels))
    value.backward()
    assert value.isfinite()
    # KL at T = 4 has gradients up to T / N; nothing may be far beyond.
    assert student.grad.abs().max() < 10


def test_errors(loss):
    student, teacher, labels = batch(N, C)
    with pytest.raises(TypeError, match='teacher_logits must be a floating'):
        loss(student, teacher.long(), labels)
    with pytest.raises(TypeError, match='teacher_logits must be .* NoneType'):
        loss(student)
    with pytest.raises(ValueError, match=r'same shape, got \(6, 10\) and'):
        loss(student, teacher[:, :-1], labels)
    with pytest.raises(ValueError, match='labels must have one value'):
        loss(student, teacher, labels[:-1])
    with pytest.raises(ValueError, match='weight must have one value'):
        loss(student, teacher, labels, torch.ones(N, 2))
    with pytest.raises(ValueError, match='weight must be finite and >= 0'):
        loss(student, teacher, labels, -torch.ones(N))
    with pytest.raises(ValueError, match='weight must be finite and >= 0'):
        loss(student, teacher, labels, torch.full((N,), torch.nan))


def test_settings_are_printable(loss):
    assert type(loss).__name__ in repr(loss)
    assert 'weight=' in repr(loss)


def test_leaves_nothing_in_the_state_dict(loss):
    """What a loss learns is saved; its settings are not."""
    assert set(loss.state_dict()) == {
        name for name, _ in loss.named_parameters()
    }
