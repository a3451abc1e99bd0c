"""The fused Kendall's tau against the plain equation and against float64.

The error budget: the truth is the plain equation in float64, and the fast
path may be further from it than the plain equation in the same type by no
more than BUDGET units of rounding of the largest possible value (tau: 1; a
gradient: 2 k / C times the largest slope of a pair).
"""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from mmrkkd.ops import kendall_tau
from mmrkkd.ops.backends import kendall_tau_fused as fused_module
from mmrkkd.ops.backends.cpu.kendall_tau_native import kendall_tau_native
from mmrkkd.ops.backends.cpu.native_library import native_library, use_openmp
from mmrkkd.ops.backends.kendall_tau_chunked import kendall_tau_chunked

BUDGET = 4
FORMS = (1, 2, 3)
BACKENDS = {'chunked': kendall_tau_chunked}
if native_library() is not None:
    BACKENDS['native'] = kendall_tau_native


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Makes the door use one CPU backend."""
    if request.param == 'chunked':
        monkeypatch.setattr(fused_module, 'native_library', lambda: None)
    return request.param


def tau_and_gradient(student: Tensor, teacher: Tensor, **settings):
    student = student.detach().clone().requires_grad_()
    tau = kendall_tau(student, teacher, **settings)
    (gradient,) = torch.autograd.grad(tau.sum(), student)
    return tau.detach(), gradient


def check_budget(
    student: Tensor,
    teacher: Tensor,
    steepness: float = 1.0,
    form: int = 1,
    class_mask: Tensor | None = None,
) -> None:
    """Asserts the error budget of this module's docstring."""
    settings = dict(steepness=steepness, form=form, class_mask=class_mask)
    truth = tau_and_gradient(
        student.double(), teacher.double(), impl='eager', **settings
    )
    eager = tau_and_gradient(student, teacher, impl='eager', **settings)
    fused = tau_and_gradient(student, teacher, impl='fused', **settings)
    classes = student.shape[-1]
    if class_mask is not None:
        classes = class_mask.sum(-1).clamp(min=2).unsqueeze(-1)
    slope = 2 * steepness / classes
    if form == 2:
        teacher = teacher.double()
        slope = slope * (teacher.amax(-1) - teacher.amin(-1)).unsqueeze(-1)
    limits = torch.finfo(fused[0].dtype)
    for name, unit, exact, plain, fast in (
        ('tau', torch.ones(()), truth[0], eager[0], fused[0]),
        ('gradient', torch.as_tensor(slope), truth[1], eager[1], fused[1]),
    ):
        assert torch.isfinite(fast).all(), name
        allowed = (plain - exact).abs() + BUDGET * limits.eps * unit
        allowed = allowed + limits.tiny
        error = (fast - exact).abs()
        worst = (error / allowed).max() if error.numel() else torch.zeros(())
        assert worst <= 1, (
            f'{name}: {worst:.2f} of the budget; worst error {error.max():.3g}'
            f', of the plain form {(plain - exact).abs().max():.3g}'
        )


def logits(
    rows: int,
    classes: int,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (scale * torch.randn(rows, classes, generator=generator)).to(dtype)
        for _ in range(2)
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    'classes, rows',
    [
        *((few, 5) for few in (2, 3, 7, 15, 16, 17, 31, 33, 80, 81, 100, 129)),
        (1000, 2),
        (1203, 2),
        # No row depends on another.
        (33, 1),
        (1203, 1),
    ],
)
def test_agrees_with_eager_for_odd_sizes(backend, classes, rows, form):
    check_budget(*logits(rows, classes), steepness=1.7, form=form)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(
    'scale, steepness',
    [
        (1e4, 1.0),
        (1.0, 100.0),
        (1e4, 100.0),
        (1e-6, 1.0),
        (1e-6, 1e6),
        (12.0, 1.0),
        (30.0, 1.0),
        (1e-42, 1.0),
        (1e30, 1.0),
        (3e38, 1e-38),
    ],
)
def test_agrees_with_eager_at_extreme_scales(backend, scale, steepness, form):
    student, teacher = logits(4, 65, seed=1)
    if scale > 1e38:
        student, teacher = student.clamp(-1, 1), teacher.clamp(-1, 1)
    check_budget(student * scale, teacher * scale, steepness, form)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('steepness', [1.0, 6.0])
def test_one_hot_teacher_of_1000_classes(backend, steepness, form):
    student, _ = logits(3, 1000)
    teacher = torch.zeros(3, 1000)
    teacher[:, 7] = 31.6
    check_budget(student, teacher, steepness, form)
    check_budget(teacher, student, steepness, form)


@pytest.mark.parametrize('form', FORMS)
def test_constant_row_has_tau_0_and_no_gradient(backend, form):
    student, _ = logits(2, 37)
    student = student.requires_grad_()
    tau = kendall_tau(
        student, torch.full((2, 37), 3.0), form=form, impl='fused'
    )
    tau.sum().backward()
    assert torch.equal(tau, torch.zeros(2))
    assert torch.equal(student.grad, torch.zeros(2, 37))


@pytest.mark.parametrize('form', FORMS)
def test_ties_add_nothing(backend, form):
    student = torch.randint(0, 4, (6, 50)).float()
    teacher = torch.randint(0, 3, (6, 50)).float()
    check_budget(student, teacher, 2.0, form)


@pytest.mark.parametrize('form', FORMS)
def test_one_far_outlier_beside_near_ties(backend, form):
    student, teacher = logits(3, 70, scale=1e-3)
    student[:, 0], teacher[:, 1] = -15.0, 300.0
    student[1], teacher[2] = student[1] + 1e4, teacher[2] - 1e4
    check_budget(student, teacher, 1.0, form)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_spoils_its_row_only(backend, bad):
    student, teacher = logits(3, 20)
    clean = tau_and_gradient(student, teacher, impl='fused')
    student[1, 4] = bad
    tau, gradient = tau_and_gradient(student, teacher, impl='fused')
    assert tau[1].isnan()
    assert gradient[1].isnan().any()
    for now, before in zip((tau, gradient), clean):
        assert torch.equal(now[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('classes', [2, 17, 81])
def test_masked_classes_do_not_count(backend, classes, form):
    student, teacher = logits(9, classes)
    mask = torch.rand(9, classes) < 0.5
    mask[0], mask[1], mask[2] = True, False, False
    mask[2, 1] = True
    check_budget(student, teacher, 1.3, form, mask)
    spoiled = student.masked_fill(~mask, torch.nan)
    settings = dict(form=form, class_mask=mask, impl='fused')
    for fast, plain in zip(
        tau_and_gradient(spoiled, teacher, **settings),
        tau_and_gradient(student, teacher, **settings),
    ):
        assert torch.equal(fast, plain)


def test_one_mask_serves_all_rows(backend):
    student, teacher = logits(4, 10)
    mask = torch.arange(10) != 3
    kept = [c for c in range(10) if c != 3]
    torch.testing.assert_close(
        kendall_tau(student, teacher, class_mask=mask, impl='fused'),
        kendall_tau(student[:, kept], teacher[:, kept], impl='fused'),
    )


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16]
)
@pytest.mark.parametrize('form', FORMS)
def test_every_dtype(backend, dtype, form):
    check_budget(*logits(3, 100, dtype=dtype), steepness=2.0, form=form)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('scale', [1.0, 300.0])
def test_float64_is_float64(backend, form, scale):
    student, teacher = logits(3, 50, scale=scale, dtype=torch.float64)
    fused = tau_and_gradient(student, teacher, form=form, impl='fused')
    eager = tau_and_gradient(student, teacher, form=form, impl='eager')
    for fast, plain in zip(fused, eager):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('form', FORMS)
def test_float64_is_float64_with_a_mask_too(backend, form):
    """A number over a count of int64 is float32."""
    student, teacher = logits(3, 8, dtype=torch.float64)
    settings = dict(form=form, class_mask=torch.arange(8) != 1)
    fused = tau_and_gradient(student, teacher, impl='fused', **settings)
    eager = tau_and_gradient(student, teacher, impl='eager', **settings)
    for fast, plain in zip(fused, eager):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('form', FORMS)
def test_gradcheck(backend, form):
    student, teacher = logits(3, 9, dtype=torch.float64)
    mask = torch.rand(3, 9) < 0.8
    assert torch.autograd.gradcheck(
        lambda s: kendall_tau(
            s, teacher, steepness=1.5, form=form, class_mask=mask, impl='fused'
        ),
        student.requires_grad_(),
    )


def test_leading_dimensions_and_strides(backend):
    student = torch.randn(7, 2, 3, 5).permute(3, 2, 1, 0)[::2]
    teacher = torch.randn(3, 3, 7, 4)[..., :2].transpose(-1, -2)
    assert not student.is_contiguous()
    check_budget(student, teacher)
    assert kendall_tau(student[0, 0, 0], teacher[0, 0, 0]).shape == ()


def test_no_rows_give_no_values_and_a_gradient(backend):
    student = torch.zeros(0, 5, requires_grad=True)
    tau = kendall_tau(student, torch.zeros(0, 5), impl='fused')
    assert tau.shape == (0,)
    tau.sum().backward()
    assert student.grad.shape == (0, 5)


def test_every_row_has_its_own_weight_in_the_gradient():
    student, teacher = logits(3, 12)
    weight = torch.tensor([0.0, 2.0, -1.0])
    _, gradient = tau_and_gradient(student, teacher)
    student.requires_grad_()
    (kendall_tau(student, teacher) * weight).sum().backward()
    torch.testing.assert_close(student.grad, gradient * weight[:, None])


def test_second_derivative_is_refused():
    student = torch.randn(2, 5, requires_grad=True)
    tau = kendall_tau(student, torch.randn(2, 5), impl='fused')
    (gradient,) = torch.autograd.grad(tau.sum(), student, create_graph=True)
    with pytest.raises(RuntimeError, match="use impl='eager'"):
        (tau.sum() + gradient.square().sum()).backward()


def test_autocast_changes_nothing():
    student, teacher = logits(3, 12)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        tau = kendall_tau(student, teacher)
    assert tau.dtype == torch.float32
    assert torch.equal(tau, kendall_tau(student, teacher))


def test_the_teacher_gets_no_gradient():
    student, teacher = (x.requires_grad_() for x in logits(2, 6))
    kendall_tau(student, teacher).sum().backward()
    assert teacher.grad is None


def test_vmap_is_the_batched_call():
    student, teacher = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    mask = torch.rand(4, 3, 8) < 0.7
    by_vmap = torch.func.vmap(lambda s, t, m: kendall_tau(s, t, class_mask=m))(
        student, teacher, mask
    )
    assert torch.equal(by_vmap, kendall_tau(student, teacher, class_mask=mask))
    per_sample = torch.func.vmap(
        torch.func.grad(lambda s, t: kendall_tau(s, t).sum()),
        in_dims=(0, None),
    )(student, teacher[0])
    _, gradient = tau_and_gradient(student, teacher[:1].expand(4, 3, 8))
    torch.testing.assert_close(per_sample, gradient)


def test_a_compiled_caller_keeps_it_whole_and_does_not_recompile():
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda s, t: -2 * kendall_tau(s, t).mean(),
        fullgraph=True,
        backend='aot_eager',
        dynamic=True,
    )
    for rows in (4, 7, 9):
        student, teacher = logits(rows, 12)
        student.requires_grad_()
        loss = compiled(student, teacher)
        loss.backward()
        tau, gradient = tau_and_gradient(student, teacher)
        torch.testing.assert_close(loss, -2 * tau.mean())
        torch.testing.assert_close(student.grad, gradient * -2 / rows)
        torch._dynamo.config.error_on_recompile = rows > 4
    torch._dynamo.config.error_on_recompile = False


@pytest.mark.parametrize('openmp', [True, False])
def test_rows_may_run_on_any_number_of_threads(openmp):
    library = native_library()
    if library is None:
        pytest.skip('needs a C compiler')
    student, teacher = logits(33, 300)
    usual = kendall_tau(student, teacher)
    threads = torch.get_num_threads()
    try:
        if not openmp:
            library.mmrkkd_use_openmp(None)
        for count in (1, 3, 8):
            torch.set_num_threads(count)
            assert torch.equal(kendall_tau(student, teacher), usual)
    finally:
        torch.set_num_threads(threads)
        use_openmp(library)


def test_it_works_in_forked_data_loader_workers():
    expected = kendall_tau(*logits(64, 300))
    loader = torch.utils.data.DataLoader(
        _Taus(), batch_size=None, num_workers=2, multiprocessing_context='fork'
    )
    for tau in loader:
        assert torch.equal(tau, expected)


class _Taus(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        torch.set_num_threads(2)
        return kendall_tau(*logits(64, 300))


@pytest.mark.slow
def test_memory_stays_linear_in_the_classes():
    """N x 1000: at most 32 MB beyond the inputs (plain: over 10 GB)."""
    script = (
        'import resource, sys, torch\n'
        'from mmrkkd.ops import kendall_tau\n'
        's, t = torch.randn(2, int(sys.argv[1]), 1000)\n'
        's.requires_grad_()\n'
        'kendall_tau(s[:8], t[:8]).sum().backward()\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'before = peak()\n'
        'kendall_tau(s, t).sum().backward()\n'
        'print((peak() - before) / 1024)\n'
    )
    # The chunked fallback works through its rows a few at a time.
    for switch, rows in (('0', 32), ('1', 512)):
        done = subprocess.run(
            [sys.executable, '-c', script, str(rows)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, 'MMRKKD_NATIVE': switch},
        )
        assert float(done.stdout) < 32, f'MMRKKD_NATIVE={switch}'
