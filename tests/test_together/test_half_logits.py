"""Half precision logits cost their own rounding and nothing more."""

import pytest
import torch

from mmrkkd.losses import KDLoss, KendallLoss, build_loss

HALVES = [torch.float16, torch.bfloat16]
ONE_VIEW = [
    'KDLoss', 'KendallLoss', 'RankKDLoss', 'DKDLoss', 'CTKDLoss', 'DISTLoss',
    'NKDLoss', 'TTMLoss', 'WTTMLoss', 'LRALoss',
]  # fmt: skip
TWO_VIEWS = ['MLKDLoss', 'CRLDLoss']
# What one sample's gradient cannot pass: w T |p_s - p_t|, with |.| <= 1, of
# each divergence in it (w its weight, T its temperature, T^2 KL(z / T)).
STEEPEST = dict(
    KDLoss=4.0,
    # Standardised logits give tau a slope of 2 k / (C std) and no more;
    # without an order it is 0, and here std is far above 1 otherwise.
    KendallLoss=1.0,
    RankKDLoss=0.9 * 4.0 + 0.9,
    DKDLoss=(1.0 + 8.0) * 4.0,
    CTKDLoss=21.0,
    NKDLoss=1.0 + 1.5,
    TTMLoss=45.0,
    WTTMLoss=4.0 * 20**0.8,  # U <= C^(1 - g), g = 0.2.
    # Each view is the student's side of two divergences, within and cross.
    CRLDLoss=(2.0 + 0.5) * 4.0,
)


def logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator)


def optimised(loss, student, teacher):
    """The optimised terms' sum and its gradient at the student."""
    student = student.detach().clone().requires_grad_()
    labels = (torch.arange(student.shape[-2]) % 7).expand(student.shape[:-1])
    terms = loss(student, teacher, labels)
    total = sum(value for name, value in terms.items() if 'loss' in name)
    total.backward()
    return total.detach(), student.grad


def unit_roundoff(dtype):
    return torch.finfo(dtype).eps / 2


@pytest.mark.parametrize('dtype', HALVES)
@pytest.mark.parametrize('kind', ONE_VIEW + TWO_VIEWS)
def test_the_gradient_is_float32s_rounded_once(kind, dtype):
    shape = (2, 6, 20) if kind in TWO_VIEWS else (6, 20)
    student, teacher = logits(*shape).to(dtype), logits(*shape, seed=1)
    loss = build_loss(dict(type=kind))
    with torch.autocast('cpu', dtype=dtype):
        total, gradient = optimised(loss, student, teacher.to(dtype))
    expected, exact = optimised(
        loss, student.float(), teacher.to(dtype).float()
    )
    assert total.dtype == torch.float32
    assert total.isfinite() and torch.equal(total, expected)
    assert gradient.dtype == dtype
    assert torch.equal(gradient, exact.to(dtype))
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize('dtype', HALVES)
def test_kl_gradients_stay_within_the_rounding_of_the_logits(dtype):
    """
    One sample's gradient is T (p_s - p_t). A softmax's Jacobian,
    (diag p - p p') / T, has a norm of at most 1 / (2 T): errors e_s and e_t
    of the logits move the gradient by at most (|e_s| + |e_t|) / 2.
    """
    student, teacher = logits(6, 20), logits(6, 20, seed=1)
    loss = KDLoss(temperature=4.0)
    _, exact = optimised(loss, student.double(), teacher.double())
    _, gradient = optimised(loss, student.to(dtype), teacher.to(dtype))
    unit = unit_roundoff(dtype)
    moved = unit * (student.norm(dim=1) + teacher.norm(dim=1)) / 2 / 6
    # The gradient is rounded too; under fp16's normal numbers to a step.
    smallest = torch.finfo(dtype).tiny * unit * 20**0.5
    budget = moved + unit * (exact.norm(dim=1) + moved) + smallest
    error = (gradient.double() - exact).norm(dim=1)
    assert (error <= budget).all(), (error / budget).max()


@pytest.mark.parametrize('dtype', HALVES)
def test_ranking_gradients_stay_within_the_rounding_of_the_logits(dtype):
    """
    d tau / d s_i = 2 k / (C (C - 1)) sum_j sech^2(k ds) tanh(k dt). The
    slope of sech^2 is at most 4 / sqrt(27) and that of tanh 1, and errors
    of e in the logits are 2 e in a difference: the gradient moves by at
    most 4 k^2 / C (4 / sqrt(27) e_s + e_t).
    """
    samples, classes = 6, 20
    student = logits(samples, classes)
    teacher = logits(samples, classes, seed=1)
    loss = KendallLoss(normalize=False)
    _, exact = optimised(loss, student.double(), teacher.double())
    _, gradient = optimised(loss, student.to(dtype), teacher.to(dtype))
    unit = unit_roundoff(dtype)
    moved = 4 / classes / samples * unit * (
        4 / 27**0.5 * student.abs().max() + teacher.abs().max()
    )  # fmt: skip
    smallest = torch.finfo(dtype).tiny * unit
    budget = moved + unit * (exact.abs() + moved) + smallest
    error = (gradient.double() - exact).abs()
    assert (error <= budget).all(), (error / budget).max()


@pytest.mark.parametrize('dtype', [torch.float32, *HALVES])
@pytest.mark.parametrize('kind', ONE_VIEW + TWO_VIEWS)
@pytest.mark.parametrize('scale', [1e4, 0.0])
def test_huge_and_constant_logits_never_blow_up(scale, kind, dtype):
    shape = (2, 6, 20) if kind in TWO_VIEWS else (6, 20)
    # Up to 1e4 and not beyond: fp16 ends at 65504.
    student = logits(*shape)
    student = scale * student / student.abs().max()
    teacher = logits(*shape, seed=1).to(dtype)
    loss = build_loss(dict(type=kind))
    total, gradient = optimised(loss, student.to(dtype), teacher)
    assert total.isfinite()
    assert gradient.isfinite().all()
    # DIST, LRA and MLKD hold more than divergences: finite is all we say.
    if kind in STEEPEST:
        # Of one of 6 samples; its rounding adds at most eps.
        bound = STEEPEST[kind] / 6 * (1 + torch.finfo(dtype).eps)
        assert gradient.abs().max() <= bound
