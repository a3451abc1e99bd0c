"""The eager op against arithmetic, a double loop, SciPy and calculus."""

import math

import pytest
import torch
from scipy.stats import kendalltau
from torch.autograd import gradcheck, gradgradcheck

from mmrkkd.ops import kendall_tau

FORMS = (1, 2, 3)


def double_loop(student, teacher, steepness, form, counted=None):
    """The published equations, pair by pair, in Python's float64."""
    total, pairs = 0.0, 0
    counted = range(len(student)) if counted is None else counted
    for i in counted:
        for j in counted:
            if j >= i:
                continue
            ds, dt = student[i] - student[j], teacher[i] - teacher[j]
            if form == 1:
                total += math.tanh(steepness * ds) * math.tanh(steepness * dt)
            elif form == 2:
                total += math.tanh(steepness * ds * dt)
            else:
                sign = (dt > 0) - (dt < 0)
                total += math.tanh(steepness * ds) * sign
            pairs += 1
    return total / pairs


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


# -- golden values ---------------------------------------------------------


def test_two_classes_are_one_pair():
    # C = 2: the mean over one pair is the pair.
    student = torch.tensor([0.3, -0.2], dtype=torch.float64)
    teacher = torch.tensor([1.0, 0.6], dtype=torch.float64)
    ds, dt, k = 0.3 + 0.2, 1.0 - 0.6, 2.0
    expected = {
        1: math.tanh(k * ds) * math.tanh(k * dt),
        2: math.tanh(k * ds * dt),
        3: math.tanh(k * ds),
    }
    for form in FORMS:
        tau = kendall_tau(student, teacher, steepness=k, form=form)
        torch.testing.assert_close(tau.item(), expected[form])


def test_three_classes_by_hand():
    # Pairs (0,1), (0,2), (1,2); ds = 1, 3, 2; dt = -1, 1, 2; k = 1.
    student = torch.tensor([3.0, 2.0, 0.0], dtype=torch.float64)
    teacher = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    expected = (
        math.tanh(1) * math.tanh(-1)
        + math.tanh(3) * math.tanh(1)
        + math.tanh(2) * math.tanh(2)
    ) / 3
    torch.testing.assert_close(kendall_tau(student, teacher).item(), expected)


def test_reversed_teacher_gives_minus_one():
    student = torch.arange(6.0)
    tau = kendall_tau(student, -student, steepness=1e4)
    torch.testing.assert_close(tau, torch.tensor(-1.0))


def test_tied_pair_adds_nothing_and_still_counts():
    # tau-a of x = [1, 2, 3], y = [1, 1, 2]: 2 concordant pairs of 3.
    student = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    teacher = torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)
    tau = kendall_tau(student, teacher, steepness=1e6)
    torch.testing.assert_close(tau.item(), 2 / 3)


# -- against independent code ----------------------------------------------


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('steepness', [0.1, 1.0, 6.0])
@pytest.mark.parametrize('classes', [2, 3, 7, 20])
def test_equals_double_loop(form, steepness, classes):
    student, teacher = randn(3, classes), randn(3, classes, seed=1)
    expected = [
        double_loop(s.tolist(), t.tolist(), steepness, form)
        for s, t in zip(student, teacher)
    ]
    tau = kendall_tau(student, teacher, steepness=steepness, form=form)
    torch.testing.assert_close(tau, torch.tensor(expected).double())


@pytest.mark.parametrize('seed', range(5))
def test_steep_limit_is_scipy_tau(seed):
    # Without ties tau-a and SciPy's tau-b are the same.
    student, teacher = randn(30, seed=seed), randn(30, seed=seed + 100)
    expected = kendalltau(student.numpy(), teacher.numpy()).statistic
    tau = kendall_tau(student, teacher, steepness=1e6)
    torch.testing.assert_close(tau.item(), float(expected))


@pytest.mark.parametrize('form', FORMS)
def test_mask_equals_slicing(form):
    student, teacher = randn(4, 9), randn(4, 9, seed=1)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    chosen = [[0, 1], [2, 5, 8], [0, 3, 4, 7], list(range(9))]
    for row, indices in enumerate(chosen):
        mask[row, indices] = True
    tau = kendall_tau(student, teacher, form=form, class_mask=mask)
    for row, indices in enumerate(chosen):
        expected = kendall_tau(
            student[row, indices], teacher[row, indices], form=form
        )
        torch.testing.assert_close(tau[row], expected)


def test_masked_row_ignores_what_it_hides():
    student = torch.tensor(
        [[1.0, 2.0, math.inf, math.nan]], requires_grad=True
    )
    teacher = torch.tensor([[1.0, 2.0, math.nan, -math.inf]])
    mask = torch.tensor([[True, True, False, False]])
    tau = kendall_tau(student, teacher, class_mask=mask)
    tau.sum().backward()
    torch.testing.assert_close(tau.item(), math.tanh(1) ** 2)
    assert student.grad.isfinite().all()
    assert (student.grad[0, 2:] == 0).all()


@pytest.mark.parametrize('left', [0, 1])
def test_row_without_a_pair_is_zero(left):
    student = randn(1, 4).requires_grad_()
    mask = torch.arange(4)[None] < left
    tau = kendall_tau(student, randn(1, 4, seed=1), class_mask=mask)
    tau.sum().backward()
    assert tau.item() == 0
    assert (student.grad == 0).all()


# -- properties ------------------------------------------------------------


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('seed', range(3))
def test_properties(form, seed):
    student, teacher = randn(5, 11, seed=seed), randn(5, 11, seed=seed + 50)
    tau = kendall_tau(student, teacher, form=form)
    assert ((tau >= -1) & (tau <= 1)).all()
    shifted = kendall_tau(student + 3, teacher - 5, form=form)
    torch.testing.assert_close(shifted, tau)
    order = torch.randperm(11)
    permuted = kendall_tau(student[:, order], teacher[:, order], form=form)
    torch.testing.assert_close(permuted, tau)
    reversed_ = kendall_tau(student, -teacher, form=form)
    torch.testing.assert_close(reversed_, -tau)


@pytest.mark.parametrize(
    'form,scales', [(1, (3, 3)), (2, (3, 1)), (3, (3, 1))]
)
def test_scale_of_logits_is_steepness(form, scales):
    student, teacher = randn(5, 11), randn(5, 11, seed=1)
    scaled = kendall_tau(
        scales[0] * student, scales[1] * teacher, steepness=1, form=form
    )
    steep = kendall_tau(student, teacher, steepness=3, form=form)
    torch.testing.assert_close(scaled, steep)


def test_leading_dimensions():
    student, teacher = randn(2, 3, 5), randn(2, 3, 5, seed=1)
    tau = kendall_tau(student, teacher)
    assert tau.shape == (2, 3)
    torch.testing.assert_close(
        tau.flatten(),
        kendall_tau(student.flatten(0, 1), teacher.flatten(0, 1)),
    )
    assert kendall_tau(student[0, 0], teacher[0, 0]).shape == ()
    assert kendall_tau(student[:, :0], teacher[:, :0]).shape == (2, 0)


# -- gradient --------------------------------------------------------------


@pytest.mark.parametrize('form', FORMS)
def test_gradcheck(form):
    student = randn(3, 6).requires_grad_()
    teacher = randn(3, 6, seed=1)
    mask = torch.tensor(
        [[True] * 6, [True] * 4 + [False] * 2, [False] * 3 + [True] * 3]
    )

    def tau(values):
        return kendall_tau(
            values,
            teacher,
            steepness=1.7,
            form=form,
            class_mask=mask,
            impl='eager',
        )

    assert gradcheck(tau, (student,))
    assert gradgradcheck(tau, (student,))


def test_gradient_is_that_of_eq_8_not_the_printed_half():
    # d(-tau)/ds_i = -2k/(C(C-1)) sum_j (1 - tanh^2(k ds_ij)) tanh(k dt_ij)
    classes, k = 10, 1.7
    student = randn(classes).requires_grad_()
    teacher = randn(classes, seed=1)
    (-kendall_tau(student, teacher, steepness=k)).backward()
    s, t = student.detach().tolist(), teacher.tolist()
    for i in range(classes):
        total = sum(
            (1 - math.tanh(k * (s[i] - s[j])) ** 2)
            * math.tanh(k * (t[i] - t[j]))
            for j in range(classes)
            if j != i
        )
        expected = -2 * k / (classes * (classes - 1)) * total
        torch.testing.assert_close(student.grad[i].item(), expected)


@pytest.mark.parametrize('form', FORMS)
def test_gradient_rows_sum_to_zero(form):
    student = randn(4, 9).requires_grad_()
    kendall_tau(student, randn(4, 9, seed=1), form=form).sum().backward()
    assert student.grad.abs().max() > 1e-3
    torch.testing.assert_close(
        student.grad.sum(-1), torch.zeros(4).double(), atol=1e-15, rtol=0
    )


def test_teacher_gets_no_gradient():
    student = randn(4, 9).requires_grad_()
    teacher = randn(4, 9, seed=1).requires_grad_()
    kendall_tau(student, teacher).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


# -- precision and extremes ------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype):
    student, teacher = randn(4, 50).to(dtype), randn(4, 50, seed=1).to(dtype)
    tau = kendall_tau(student, teacher)
    assert tau.dtype == torch.float32
    torch.testing.assert_close(
        tau, kendall_tau(student.float(), teacher.float())
    )


def test_autocast_changes_nothing():
    student = randn(4, 50, dtype=torch.float32)
    teacher = randn(4, 50, seed=1, dtype=torch.float32)
    outside = kendall_tau(student, teacher)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = kendall_tau(student, teacher)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def extremes():
    one_hot = torch.nn.functional.one_hot(torch.tensor([3, 900]), 1000)
    largest = torch.finfo(torch.float32).max
    return {
        'far apart': randn(2, 20, dtype=torch.float32) * 1e4,
        'one hot': one_hot.float() * 6,
        'constant': torch.full((2, 5), 0.1),
        'ties': torch.tensor([[1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0]]),
        'largest': torch.tensor([[largest, -largest, 0.0, largest]]),
        'denormal': torch.tensor([[1e-45, 0.0, 3e-45]]),
    }


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('steepness', [1.0, 6.0, 100.0])
@pytest.mark.parametrize('name', list(extremes()))
def test_every_finite_input_gives_a_finite_answer(name, steepness, form):
    student = extremes()[name].requires_grad_()
    teacher = extremes()[name].flip(-1)
    tau = kendall_tau(student, teacher, steepness=steepness, form=form)
    tau.sum().backward()
    assert tau.isfinite().all()
    assert ((tau >= -1 - 1e-6) & (tau <= 1 + 1e-6)).all()
    assert student.grad.isfinite().all()


def test_nan_row_stays_alone():
    student, teacher = randn(3, 5), randn(3, 5, seed=1)
    expected = kendall_tau(student, teacher)
    student[1, 2] = math.nan
    tau = kendall_tau(student, teacher)
    assert tau[1].isnan()
    torch.testing.assert_close(tau[[0, 2]], expected[[0, 2]])


# -- errors ----------------------------------------------------------------


@pytest.mark.parametrize(
    'change,error,message',
    [
        (
            dict(student_logits=torch.ones(2, 3, dtype=torch.long)),
            TypeError,
            'student_logits must be a floating point tensor, got torch.int64',
        ),
        (
            dict(teacher_logits=[1.0, 2.0]),
            TypeError,
            'teacher_logits must be a floating point tensor, got list',
        ),
        (
            dict(teacher_logits=torch.ones(2, 4)),
            ValueError,
            r'must have the same shape, got \(2, 3\) and \(2, 4\)',
        ),
        (
            dict(
                student_logits=torch.ones(2, 1),
                teacher_logits=torch.ones(2, 1),
            ),
            ValueError,
            r'at least 2 classes .* got shape \(2, 1\)',
        ),
        (
            dict(
                student_logits=torch.tensor(1.0),
                teacher_logits=torch.tensor(1.0),
            ),
            ValueError,
            'at least 2 classes',
        ),
        (
            dict(steepness=0),
            ValueError,
            'steepness must be a finite number > 0, got 0',
        ),
        (dict(steepness=-1.0), ValueError, 'steepness .* got -1.0'),
        (dict(steepness=math.nan), ValueError, 'steepness .* got nan'),
        (dict(steepness='1'), ValueError, "steepness .* got '1'"),
        (dict(form=4), ValueError, r'form must be one of \(1, 2, 3\), got 4'),
        (dict(form=True), ValueError, 'form must be one of .* got True'),
        (dict(impl='magic'), ValueError, "impl must be one of .* got 'magic'"),
        (
            dict(class_mask=torch.ones(3)),
            TypeError,
            'class_mask must be a bool tensor, got torch.float32',
        ),
        (
            dict(class_mask=torch.ones(4, dtype=torch.bool)),
            ValueError,
            r'class_mask must broadcast to .* \(2, 3\), got \(4,\)',
        ),
    ],
)
def test_errors(change, error, message):
    arguments = dict(
        student_logits=torch.ones(2, 3), teacher_logits=torch.ones(2, 3)
    )
    with pytest.raises(error, match=message):
        kendall_tau(**{**arguments, **change})


def test_devices_must_match():
    with pytest.raises(ValueError, match='same device, got cpu and meta'):
        kendall_tau(torch.ones(2, 3), torch.ones(2, 3, device='meta'))
