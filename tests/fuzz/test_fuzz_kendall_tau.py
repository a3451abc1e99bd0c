"""Properties of the soft Kendall's tau over all that it takes.

The error budgets are those of tests/test_ops, by import: none is restated.
"""

import math

import test_kendall_tau_approx as approx_tests
import test_kendall_tau_fused as tau_tests
import torch
from hypothesis import strategies as st
from torch import Tensor

from fuzz.harness import BAD, FEW, backends, seeds, spoil, using
from fuzz.strategies import (
    CLASSES,
    DOUBLE,
    HALVES,
    SINGLE,
    WIDE,
    fuzz,
    masks,
    pairs,
    permutation,
)
from mmrkkd.ops import kendall_tau
from mmrkkd.ops.kendall_tau import FORMS, IMPLEMENTATIONS

STEEPNESS = (1.0, 0.1, 6.0, 1e3, 1e6, 1e-6)


@st.composite
def tau_cases(draw, **choices):
    """(student, teacher, settings) of kendall_tau."""
    student, teacher = draw(pairs(**choices))
    return (
        student,
        teacher,
        dict(
            steepness=draw(st.sampled_from(STEEPNESS)),
            form=draw(st.sampled_from(FORMS)),
            class_mask=draw(masks(student.shape)),
        ),
    )


@fuzz(case=tau_cases(), backend=backends)
def test_fused_tau_keeps_the_error_budget(case, backend):
    student, teacher, settings = case
    # Halves hold no gradient above 65504; what they round is tested below.
    dtype = torch.promote_types(student.dtype, SINGLE)
    with using(backend):
        tau_tests.check_budget(
            student.to(dtype), teacher.to(dtype), **settings
        )


@fuzz(
    case=tau_cases(
        samples=FEW, dtypes=(SINGLE,), classes=(*CLASSES, 128, 300, 1000)
    ),
    form=st.sampled_from((1, 3)),
)
def test_approx_tau_keeps_its_stated_error(case, form):
    student, teacher, settings = case
    approx_tests.check(student, teacher, **{**settings, 'form': form})


@st.composite
def implementations(draw):
    """An implementation and a form that it has."""
    impl = draw(st.sampled_from(IMPLEMENTATIONS))
    return impl, draw(st.sampled_from((1, 3) if impl == 'approx' else FORMS))


@fuzz(case=tau_cases(), choice=implementations())
def test_tau_is_finite_in_its_range_and_spares_the_teacher(case, choice):
    student, teacher, settings = case
    settings['impl'], settings['form'] = choice
    student, teacher = (
        values.detach().requires_grad_() for values in (student, teacher)
    )
    tau = kendall_tau(student, teacher, **settings)
    tau.sum().backward()
    assert tau.shape == student.shape[:-1]
    assert tau.dtype == torch.promote_types(student.dtype, SINGLE)
    assert (tau.abs() <= 1 + approx_tests.TOLERANCE).all()
    assert student.grad.isfinite().all() or student.dtype in HALVES
    assert teacher.grad is None
    again = kendall_tau(student, teacher, **settings)
    assert torch.equal(tau, again)


@fuzz(
    case=tau_cases(dtypes=(DOUBLE,)),
    impl=st.sampled_from(('eager', 'fused')),
    seed=seeds,
    backend=backends,
)
def test_tau_ignores_the_order_of_classes_and_layout(
    case, impl, seed, backend
):
    student, teacher, settings = case
    settings['impl'] = impl
    order = permutation(student.shape[-1], seed)
    mask = settings['class_mask']
    moved = dict(settings)
    if mask is not None:
        moved['class_mask'] = mask.expand(student.shape)[..., order]
    with using(backend):
        tau, gradient = tau_tests.tau_and_gradient(
            student, teacher, **settings
        )
        permuted, moved_gradient = tau_tests.tau_and_gradient(
            student[..., order], teacher[..., order], **moved
        )
        reversed_tau = kendall_tau(student, -teacher, **settings)
    allowed = 2 * tau_tests.BUDGET * torch.finfo(DOUBLE).eps
    assert ((reversed_tau + tau).abs() <= allowed).all()
    assert ((permuted - tau).abs() <= allowed).all()
    unit = _slope(teacher, settings)
    error = (moved_gradient - gradient[..., order]).abs()
    assert (error <= allowed * unit + torch.finfo(DOUBLE).tiny).all()


def _slope(teacher: Tensor, settings: dict) -> Tensor:
    """The largest gradient that a class can have, (..., 1)."""
    classes = torch.tensor(teacher.shape[-1], dtype=DOUBLE)
    if settings['class_mask'] is not None:
        count = settings['class_mask'].expand(teacher.shape).sum(-1)
        classes = count.clamp(min=2).unsqueeze(-1).double()
    slope = 2 * settings['steepness'] / classes
    if settings['form'] == 2:
        spread = teacher.amax(-1) - teacher.amin(-1)
        slope = slope * spread.unsqueeze(-1)
    return slope


@fuzz(
    case=tau_cases(samples=FEW),
    choice=implementations(),
    bad=st.sampled_from(BAD),
    row=seeds,
    backend=backends,
)
def test_tau_of_a_spoiled_row_is_nan_alone(case, choice, bad, row, backend):
    student, teacher, settings = case
    settings['impl'], settings['form'] = choice
    settings['class_mask'] = None
    spoiled, others = spoil(student, bad, row)
    with using(backend):
        clean = tau_tests.tau_and_gradient(
            student.contiguous(), teacher, **settings
        )
        tau, gradient = tau_tests.tau_and_gradient(
            spoiled, teacher, **settings
        )
    # Differences that are infinite are finite again in the plain equation,
    # and its gradient at NaN is what autograd makes of a clamp.
    if choice[0] != 'eager' and backend == 'native':
        assert gradient[~others].isnan().any()
    if choice[0] != 'eager' or math.isnan(bad):
        assert tau[~others].isnan().all()
    limits = dict(rtol=0, atol=0)
    if choice[0] == 'approx':
        # The degree follows the widest row of a batch.
        limits['atol'] = 2 * approx_tests.TOLERANCE
        unit = 2 * settings['steepness'] / student.shape[-1]
        clean = clean[0], clean[1] / unit
        gradient = gradient / unit
    for now, before in zip((tau, gradient), clean):
        torch.testing.assert_close(now[others], before[others], **limits)


@fuzz(
    case=tau_cases(),
    choice=implementations(),
    bad=st.sampled_from(BAD),
    backend=backends,
)
def test_masked_classes_may_hold_anything(case, choice, bad, backend):
    student, teacher, settings = case
    settings['impl'], settings['form'] = choice
    mask = settings['class_mask']
    hidden = torch.zeros((), dtype=torch.bool) if mask is None else ~mask
    # The same layout for both: sums go through another in another order.
    zeros, spoiled = (
        [values.masked_fill(hidden, value) for values in (student, teacher)]
        for value in (0, bad)
    )
    with using(backend):
        expected = tau_tests.tau_and_gradient(*zeros, **settings)
        result = tau_tests.tau_and_gradient(*spoiled, **settings)
    for now, before in zip(result, expected):
        assert torch.equal(now, before)
    if mask is not None:
        assert (result[1].masked_select(hidden) == 0).all()


@fuzz(case=tau_cases(dtypes=HALVES), choice=implementations())
def test_tau_of_halves_is_computed_in_float32(case, choice):
    student, teacher, settings = case
    settings['impl'], settings['form'] = choice
    tau, gradient = tau_tests.tau_and_gradient(student, teacher, **settings)
    exact, exact_gradient = tau_tests.tau_and_gradient(
        student.float(), teacher.float(), **settings
    )
    assert torch.equal(tau, exact)
    assert torch.equal(gradient, exact_gradient.to(student.dtype))


@fuzz(case=tau_cases(samples=((2, 3), (0, 2), (1, 2, 2)), dtypes=WIDE))
def test_leading_dimensions_of_tau_are_rows(case):
    student, teacher, settings = case
    mask = settings.pop('class_mask')
    shape, rows = student.shape, (-1, student.shape[-1])
    flat_mask = None if mask is None else mask.expand(shape).reshape(rows)
    tau, gradient = tau_tests.tau_and_gradient(
        student, teacher, class_mask=mask, **settings
    )
    flat, flat_gradient = tau_tests.tau_and_gradient(
        student.reshape(rows),
        teacher.reshape(rows),
        class_mask=flat_mask,
        **settings,
    )
    assert torch.equal(tau.flatten(), flat)
    assert torch.equal(gradient.reshape(rows), flat_gradient)
