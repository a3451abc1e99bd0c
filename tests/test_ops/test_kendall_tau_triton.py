"""The Triton kernel: on a GPU where there is one, else by its interpreter.

Triton decides at its import whether it interprets, so without a GPU one
test runs this file again in a process of its own, where the others apply.
What the interpreter cannot show is the accuracy of the device's exp and
division, and any speed. That the kernel compiles is tested without a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmrkkd.ops.backends.kendall_tau_chunked import kendall_tau_chunked

pytest.importorskip('triton')
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

# Units of float32 rounding of the largest possible value; division and exp
# of a GPU are off by about two units each.
BUDGET = 8


def needs_triton(test):
    """Applies to a GPU, or to the process that the first test starts."""
    return test if INTERPRETED else pytest.mark.gpu(test)


@pytest.mark.skipif(
    DEVICE == 'cuda' or INTERPRETED,
    reason='the tests below run in this process',
)
@pytest.mark.slow
def test_everything_under_the_interpreter():
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-p',
            'no:cacheprovider',
            str(Path(__file__)),
        ],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert ' passed' in done.stdout


@pytest.mark.skipif(INTERPRETED, reason='needs the compiler')
@pytest.mark.parametrize('form, masked', [(1, False), (2, True), (3, True)])
@pytest.mark.parametrize('capability', [80, 90])
def test_it_compiles_for(capability, form, masked, monkeypatch, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmrkkd.ops.backends import kendall_tau_triton as module

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    settings = dict(
        FORM=form,
        MASKED=masked,
        BLOCK_I=module.BLOCK_I,
        BLOCK_J=module.BLOCK_J,
    )
    kinds = dict(mask='*u8', near='*u8', classes='i32')
    kernel = module._kendall_tau_kernel
    signature = {
        name: 'constexpr' if name in settings else kinds.get(name, '*fp32')
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=settings)
    compiled = triton.compile(source, target=GPUTarget('cuda', capability, 32))
    assert compiled.asm['cubin']


def check(
    student: Tensor,
    teacher: Tensor,
    steepness: float = 1.0,
    form: int = 1,
    class_mask: Tensor | None = None,
) -> None:
    from mmrkkd.ops.backends.kendall_tau_triton import kendall_tau_triton

    truth = kendall_tau_chunked(
        student.double(), teacher.double(), class_mask, steepness, form
    )
    student, teacher = student.to(DEVICE), teacher.to(DEVICE)
    if class_mask is not None:
        class_mask = class_mask.to(DEVICE)
    tau, gradient = kendall_tau_triton(
        student, teacher, class_mask, steepness, form
    )
    classes = student.shape[-1]
    unit = torch.full((len(student), 1), 2 * steepness / classes)
    if class_mask is not None:
        unit *= classes / class_mask.cpu().sum(-1, keepdim=True).clamp(min=2)
    if form == 2:
        unit = unit * (teacher.amax(-1) - teacher.amin(-1)).cpu()[:, None]
    rounding = BUDGET * torch.finfo(student.dtype).eps
    assert ((tau.cpu() - truth[0]).abs() <= rounding).all()
    error = (gradient.cpu() - truth[1]).abs()
    assert (error <= rounding * unit + 1e-38).all()


@needs_triton
@pytest.mark.parametrize('form', [1, 2, 3])
@pytest.mark.parametrize('classes', [2, 31, 33, 64, 81, 130])
def test_odd_sizes(classes, form):
    student, teacher = torch.randn(2, 3, classes)
    check(student, teacher, 1.7, form)


@needs_triton
@pytest.mark.parametrize('form', [1, 2, 3])
@pytest.mark.parametrize(
    'scale, steepness',
    [
        (1e4, 1.0),
        (1.0, 100.0),
        (1e4, 100.0),
        (1e-6, 1.0),
        (14.0, 1.0),
        (1e-42, 1.0),
    ],
)
def test_extremes(scale, steepness, form):
    student, teacher = torch.randn(2, 3, 65)
    teacher[0] = 0
    student[1] = student[1].round()
    check(student * scale, teacher * scale, steepness, form)


@needs_triton
@pytest.mark.parametrize('form', [1, 3])
def test_differences_may_overflow(form):
    student, teacher = torch.randn(2, 3, 40).clamp(-1, 1) * 3e38
    check(student, teacher, 1.0, form)


@needs_triton
@pytest.mark.parametrize('form', [1, 3])
@pytest.mark.parametrize('steepness', [1.0, 6.0])
def test_one_hot(steepness, form):
    student, teacher = torch.randn(3, 200), torch.zeros(3, 200)
    teacher[:, 7] = 31.6
    check(student, teacher, steepness, form)
    check(teacher, student, steepness, form)


@needs_triton
@pytest.mark.parametrize('form', [1, 2, 3])
def test_masks(form):
    student, teacher = torch.randn(2, 5, 70)
    mask = torch.rand(5, 70) < 0.5
    mask[0], mask[1] = True, False
    mask[2] = False
    mask[2, 3] = True
    student = student.masked_fill(~mask, torch.inf)
    check(student, teacher, 1.0, form, mask)


@needs_triton
def test_float64_and_no_rows():
    student, teacher = torch.randn(2, 3, 40, dtype=torch.float64)
    check(student, teacher)
    check(1e3 * student, teacher)
    check(student[:0], teacher[:0])


@needs_triton
def test_a_value_that_is_not_finite_spoils_its_row_only():
    from mmrkkd.ops.backends.kendall_tau_triton import kendall_tau_triton

    student, teacher = torch.randn(2, 3, 20).to(DEVICE)
    clean = kendall_tau_triton(student, teacher, None, 1.0, 1)
    student[1, 4] = torch.nan
    tau, gradient = kendall_tau_triton(student, teacher, None, 1.0, 1)
    assert tau.isnan().tolist() == [False, True, False]
    assert gradient[1].isnan().all()
    assert torch.equal(gradient[[0, 2]], clean[1][[0, 2]])


@pytest.mark.gpu
def test_the_door_uses_it_on_cuda():
    from mmrkkd.ops import kendall_tau
    from mmrkkd.ops.backends.kendall_tau_fused import TRITON

    student, teacher = torch.randn(2, 64, 300, device=DEVICE)
    leaf = student.requires_grad_()
    kendall_tau(leaf, teacher).sum().backward()
    assert not TRITON.broken
    on_cpu = student.detach().cpu().requires_grad_()
    kendall_tau(on_cpu, teacher.cpu()).sum().backward()
    torch.testing.assert_close(
        leaf.grad.cpu(), on_cpu.grad, rtol=1e-4, atol=1e-8
    )
