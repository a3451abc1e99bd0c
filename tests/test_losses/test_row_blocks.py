"""Very many samples go block by block, with the same numbers."""

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmrkkd.losses import BinaryKDLoss, BinaryKLLoss, base, row_blocks

LOSSES = (BinaryKDLoss, BinaryKLLoss)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 4 rows, from the first number on."""
    monkeypatch.setattr(row_blocks, 'BLOCK', 20)
    monkeypatch.setattr(base, 'LARGE', 1)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(2, 23, 5, generator=generator).double()


def both(loss, logits, monkeypatch, **options):
    """Value and gradient in blocks, and at once."""
    results = []
    for large in (1, 1 << 40):
        monkeypatch.setattr(base, 'LARGE', large)
        student = logits[0].clone().requires_grad_()
        (value,) = loss(student, logits[1], **options).values()
        (2 * value).backward()
        results.append((value.detach(), student.grad))
    return results


@pytest.mark.parametrize('kind', LOSSES)
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('normalizer', [None, 3.0])
def test_blocks_change_nothing(
    kind, weighted, normalizer, logits, small_blocks, monkeypatch
):
    weight = torch.rand(23).double() if weighted else None
    if weighted:
        weight[3:9] = 0
    blocks, whole = both(
        kind(), logits, monkeypatch, weight=weight, normalizer=normalizer
    )
    torch.testing.assert_close(blocks, whole)


@pytest.mark.parametrize('kind', LOSSES)
def test_a_second_backward_pass_gives_the_same(kind, logits, small_blocks):
    student = logits[0].clone().requires_grad_()
    (value,) = kind()(student, logits[1]).values()
    gradients = [
        torch.autograd.grad(value, student, retain_graph=True)[0].clone()
        for _ in range(3)
    ]
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


class _TwoTerms(BinaryKDLoss):
    def per_sample(self, student_logits, teacher_logits, labels):
        terms = super().per_sample(student_logits, teacher_logits, labels)
        return {**terms, 'loss_square': student_logits.square().sum(1)}


def test_each_of_two_terms_has_its_own_gradient(logits, small_blocks):
    student = logits[0].clone().requires_grad_()
    terms = _TwoTerms()(student, logits[1], normalizer=1.0)
    (gradient,) = torch.autograd.grad(
        terms['loss_square'], student, retain_graph=True
    )
    torch.testing.assert_close(gradient, 2 * student.detach())
    (gradient,) = torch.autograd.grad(terms['loss_binary_kd'], student)
    exact = logits[0].clone().requires_grad_()
    (value,) = BinaryKDLoss()(exact, logits[1], normalizer=1.0).values()
    value.backward()
    torch.testing.assert_close(gradient, exact.grad)


def test_a_student_without_gradient_has_its_loss(logits, small_blocks):
    terms = BinaryKDLoss()(*logits)
    assert not terms['loss_binary_kd'].requires_grad


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_logits_are_computed_in_float32(dtype, logits, small_blocks):
    student = logits[0].to(dtype).requires_grad_()
    teacher = logits[1].to(dtype)
    loss = BinaryKDLoss()(student, teacher)['loss_binary_kd']
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.grad.dtype == dtype
    exact = student.detach().double().requires_grad_()
    expected = BinaryKDLoss()(exact, teacher.double())['loss_binary_kd']
    torch.testing.assert_close(loss.double(), expected)
    expected.backward()
    # Rounded once.
    torch.testing.assert_close(
        student.grad.double(),
        exact.grad,
        rtol=torch.finfo(dtype).eps,
        atol=torch.finfo(dtype).smallest_normal,
    )


def test_weight_0_hides_even_nan(logits, small_blocks):
    student = logits[0].clone()
    student[7] = torch.nan
    student.requires_grad_()
    weight = torch.ones(23)
    weight[7] = 0
    loss = BinaryKDLoss()(student, logits[1], weight=weight)['loss_binary_kd']
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert (student.grad[7] == 0).all()


def test_all_weights_0_give_0(logits, small_blocks):
    student = logits[0].clone().requires_grad_()
    terms = BinaryKDLoss()(student, logits[1], weight=torch.zeros(23))
    terms['loss_binary_kd'].backward()
    assert terms['loss_binary_kd'] == 0
    assert (student.grad == 0).all()


def test_autocast_changes_nothing(logits, small_blocks):
    student = logits[0].float().requires_grad_()
    outside = BinaryKDLoss()(student, logits[1].float())['loss_binary_kd']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = BinaryKDLoss()(student, logits[1].float())['loss_binary_kd']
        (gradient,) = torch.autograd.grad(inside, student)
    assert torch.equal(outside, inside)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(outside, student)[0], rtol=0, atol=0
    )


def peak_bytes(function):
    """The most memory that a function holds beyond what was there."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as run:
        function()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in run.profiler.kineto_results.events()
        if event.name() == '[memory]'
    )
    return max(accumulate(change for _, change in changes))


@pytest.mark.parametrize('kind', LOSSES)
def test_the_gradient_and_some_blocks_are_all_the_memory(kind):
    rows, classes = 60_000, 80
    student = torch.randn(rows, classes, requires_grad=True)
    teacher = torch.randn(rows, classes)
    assert student.numel() > row_blocks.LARGE
    weight = torch.ones(rows)
    gradient = 4 * student.numel()
    block = 4 * row_blocks.BLOCK

    def step():
        (value,) = kind()(student, teacher, weight=weight).values()
        value.backward()

    # Two images of RetinaNet at 800 x 1344, 403,200 rows of 80 classes: a
    # gradient of 129 MB, and less than 197 MB in all.
    assert gradient < peak_bytes(step) < gradient + 16 * block


def test_a_teacher_of_inference_mode_and_transforms(monkeypatch):
    monkeypatch.setattr(base, 'LARGE', 8)
    logits = torch.randn(4, 5)
    with torch.inference_mode():
        teacher = torch.randn(4, 5)
    leaf = logits.clone().requires_grad_()
    BinaryKDLoss()(leaf, teacher)['loss_binary_kd'].backward()
    by_func = torch.func.grad(
        lambda s: BinaryKDLoss()(s, teacher)['loss_binary_kd']
    )(logits)
    torch.testing.assert_close(leaf.grad, by_func)
