"""The kernels of the ranking term: on a GPU, else by Triton's interpreter.

As in test_kendall_tau_triton.py one test runs this file again in a process
of its own where there is no GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmrkkd.losses import KendallLoss
from mmrkkd.ops import standardize
from mmrkkd.ops.kendall_tau_eager import kendall_tau_eager
from mmrkkd.ops.standardize import deviation

pytest.importorskip('triton')
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
needs_triton = pytest.mark.skipif(
    DEVICE == 'cpu' and not INTERPRETED,
    reason='applies to a GPU, or to the process that '
    'test_everything_under_the_interpreter starts',
)
# Units of float32 rounding: of tau's range, and of the largest slope that a
# class can have, from which saturated pairs and few classes subtract.
BUDGET = 8
SETTINGS = dict(
    scale=1.0,
    steepness=1.0,
    form=1,
    normalize=True,
    eps=1e-7,
    floor=1.0,
    relative=True,
)
EPS = torch.finfo(torch.float32).eps


@pytest.mark.skipif(
    DEVICE == 'cuda' or INTERPRETED,
    reason='the tests below run in this process',
)
@pytest.mark.slow
def test_everything_under_the_interpreter():
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
    done = subprocess.run(
        [*command, str(Path(__file__))],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert ' passed' in done.stdout


@pytest.mark.skipif(INTERPRETED, reason='needs the compiler')
@pytest.mark.parametrize('form, mask', [(1, False), (2, True), (3, True)])
@pytest.mark.parametrize('kernel', ['pairs_kernel', 'rows_kernel'])
def test_it_compiles_for_an_h100(kernel, form, mask, monkeypatch, tmp_path):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmrkkd.ops.backends import rank_term_kernels, rank_term_triton

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernel = getattr(rank_term_kernels, kernel)
    _, tile, step, _ = rank_term_triton.TILES[-1]
    constants = dict(FORM=form, TILE=tile, STEP=step, AT_ONCE=128, BLOCKS=4)
    constants.update(NEAR_BOUND=rank_term_triton.NEAR_BOUND)
    constants.update(NORMALIZE=True, RELATIVE=True, KEPT=mask, CHOSEN=mask)
    constants.update(WEIGHTED=mask, DIVIDED=mask)
    whole = ('classes', 'blocks', 'student_stride', 'teacher_stride')
    numbers = ('twice_k', 'eps', 'floor', 'scale', 'factor')
    kinds = {
        **dict.fromkeys(('kept', 'chosen'), '*u8'),
        **dict.fromkeys(whole, 'i32'),
        **dict.fromkeys(numbers, 'fp32'),
        **dict.fromkeys(constants, 'constexpr'),
    }
    source = ASTSource(
        fn=kernel,
        signature={
            each: kinds.get(each, '*fp32') for each in kernel.arg_names
        },
        constexprs={
            each: value
            for each, value in constants.items()
            if each in kernel.arg_names
        },
    )
    compiled = triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert compiled.asm['cubin']


def in_float64(student, teacher, kept, chosen, weight, divisor, settings):
    """By the equations: the terms, (N,), their gradient, (N, C), and each
    row's largest possible slope.
    """
    leaf = student.double().requires_grad_()
    mine, other = leaf, teacher.double()
    if kept is not None:
        mine, other = mine[:, kept], other[:, kept]
        chosen = None if chosen is None else chosen[:, kept]
    width = torch.ones(len(mine), 1).double()
    if settings['normalize']:
        floor = torch.full((len(mine),), settings['floor']).double()
        if settings['relative']:
            floor = floor * deviation(other)
        width = torch.maximum(deviation(mine), floor).unsqueeze(-1)
        width = width.masked_fill(width == 0, 1.0)
        mine = standardize(mine, settings['eps'], floor)
        other = standardize(other, settings['eps'])
    tau = kendall_tau_eager(
        mine, other, settings['steepness'], settings['form'], chosen
    )
    terms = settings['scale'] * tau
    if weight is not None:
        terms = torch.where(weight == 0, 0.0, weight.double() * terms)
    if divisor is not None:
        terms = terms / divisor.double()
    (gradient,) = torch.autograd.grad(terms.sum(), leaf)
    ranked = torch.tensor(float(mine.shape[1]))
    if chosen is not None:
        ranked = chosen.sum(-1, keepdim=True).clamp(min=2)
    largest = settings['scale'] * 2 * settings['steepness'] / ranked / width
    if settings['form'] == 2:
        largest = largest * (other.amax(-1) - other.amin(-1)).unsqueeze(-1)
    if weight is not None:
        largest = largest * weight.unsqueeze(-1)
    if divisor is not None:
        largest = largest / divisor
    return terms.detach(), gradient, largest.abs()


def check(
    student,
    teacher,
    kept=None,
    chosen=None,
    weight=None,
    divisor=None,
    **changes,
):
    from mmrkkd.ops.backends.rank_term_triton import rank_term_triton

    settings = {**SETTINGS, **changes}
    tensors = student, teacher, kept, chosen, weight, divisor
    truth, slope, largest = in_float64(*tensors, settings)
    tensors = [None if each is None else each.to(DEVICE) for each in tensors]
    terms, gradient = rank_term_triton(*tensors, *settings.values())
    assert terms.dtype == gradient.dtype == torch.float32
    unit = abs(settings['scale']) * torch.ones(len(student), 1)
    if weight is not None:
        unit = unit * weight[:, None]
    if divisor is not None:
        unit = unit / divisor
    error = (terms.cpu() - truth).abs()
    print(f'term: {error.max() / EPS:.2f} units')
    assert (error <= BUDGET * EPS * unit[:, 0]).all()
    error = (gradient.cpu() - slope).abs()
    print(f'gradient: {(error / largest).nan_to_num(0).max() / EPS:.2f} units')
    assert (error <= BUDGET * EPS * largest + 1e-38).all()


def pair(rows, classes, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    both = spread * torch.randn(2, rows, classes, generator=generator) + 1
    # A row that the floor holds up.
    both[0, 1:2] *= 0.1
    return both


@needs_triton
@pytest.mark.parametrize('form', [1, 2, 3])
@pytest.mark.parametrize('classes', [3, 31, 33, 81, 100, 130])
def test_odd_sizes(classes, form):
    check(*pair(3, classes), form=form, steepness=1.7)


@needs_triton
@pytest.mark.parametrize(
    'changes',
    [
        dict(floor=0.0),
        dict(floor=0.5, relative=False),
        dict(normalize=False, floor=0.0),
        dict(steepness=30.0, floor=0.0),
        dict(normalize=False, floor=0.0, steepness=30.0),
        dict(scale=-0.9, steepness=0.25),
    ],
)
def test_settings(changes):
    check(*pair(3, 65), **changes)


@needs_triton
@pytest.mark.parametrize('at_once', [32, 1024])
def test_masks_and_weights(at_once, monkeypatch):
    from mmrkkd.ops.backends import rank_term_triton as module

    monkeypatch.setattr(module, 'MOST_AT_ONCE', at_once)
    rank_term_triton, classes = module.rank_term_triton, 70
    student, teacher = pair(4, classes)
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(4, classes, generator=generator) < 0.5
    kept = torch.ones(classes, dtype=torch.bool)
    kept[[3, -1]] = False
    weight = torch.tensor([1.0, 0.0, 0.25, 2.0])
    # What does not count may hold anything.
    student[:, 3], teacher[:, -1], teacher[1] = torch.inf, torch.nan, torch.nan
    clean = teacher.clone()
    clean[1] = 0
    given = [kept, chosen & kept, weight, weight.sum()]
    given = [each.to(DEVICE) for each in given]
    settings = SETTINGS.values()
    first, second = (
        rank_term_triton(
            student.to(DEVICE), each.to(DEVICE), *given, *settings
        )
        for each in (teacher, clean)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not first[1][:, [3, -1]].any()
    finite = student.masked_fill(~kept, 0.0), clean.masked_fill(~kept, 0.0)
    check(*finite, *(each.cpu() for each in given))


@needs_triton
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is(dtype):
    student, teacher = (each.to(dtype) for each in pair(3, 50))
    check(student, teacher)


@needs_triton
def test_rows_without_order():
    student, teacher = pair(4, 20)
    student[0], teacher[1], student[3], teacher[3] = 5.0, -2.0, 0.0, 0.0
    check(student, teacher)
    check(student[1:3], teacher[1:3], floor=0.0)


@needs_triton
def test_a_flat_row_without_a_floor_has_no_gradient():
    from mmrkkd.ops.backends.rank_term_triton import rank_term_triton

    student, teacher = pair(2, 20)
    student[0] = 7.0
    settings = {**SETTINGS, 'floor': 0.0}.values()
    terms, gradient = rank_term_triton(
        student.to(DEVICE), teacher.to(DEVICE), *[None] * 4, *settings
    )
    assert terms[0] == 0
    assert not gradient[0].any()
    assert gradient[1].any()


@needs_triton
@pytest.mark.parametrize('scale', [1e30, 3e37, 1e-15])
def test_huge_and_tiny_logits(scale):
    student, teacher = pair(2, 40)
    check(student[:1] * scale, teacher[:1] * scale, eps=1e-38, floor=0.0)


@needs_triton
@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('side', [0, 1])
def test_what_is_not_finite_spoils_its_row_only(side, value):
    from mmrkkd.ops.backends.rank_term_triton import rank_term_triton

    both = pair(3, 20).to(DEVICE)
    settings = SETTINGS.values()
    clean = rank_term_triton(*both, *[None] * 4, *settings)
    both[side, 1, 4] = value
    terms, gradient = rank_term_triton(*both, *[None] * 4, *settings)
    assert terms.isnan().tolist() == [False, True, False]
    assert gradient[1].isnan().all()
    assert torch.equal(gradient[[0, 2]], clean[1][[0, 2]])


@needs_triton
def test_a_weight_that_is_nan_shows():
    from mmrkkd.ops.backends.rank_term_triton import rank_term_triton

    student, teacher = pair(2, 20).to(DEVICE)
    weight = torch.tensor([1.0, torch.nan], device=DEVICE)
    terms, _ = rank_term_triton(
        student, teacher, None, None, weight, None, *SETTINGS.values()
    )
    assert terms.isnan().tolist() == [False, True]


@needs_triton
def test_columns_of_a_wider_tensor_and_no_rows():
    from mmrkkd.ops.backends.rank_term_triton import rank_term_triton

    student, teacher = pair(3, 40)
    check(student[:, :-1], teacher[:, 1:])
    check(student.T.contiguous().T, teacher)
    none = student[:0].to(DEVICE)
    terms, gradient = rank_term_triton(
        none, none, *[None] * 4, *SETTINGS.values()
    )
    assert terms.shape == (0,) and gradient.shape == (0, 40)


@pytest.mark.skipif(DEVICE == 'cpu', reason='needs a GPU')
@pytest.mark.parametrize('shape', [(64, 1000), (1024, 81), (8, 21841)])
@pytest.mark.parametrize('weighted', [False, True])
def test_the_loss_on_a_gpu_is_that_on_a_cpu(shape, weighted):
    student, teacher = pair(*shape)
    weight = torch.rand(shape[0]).round() if weighted else None
    loss, results = KendallLoss(ignore_channels=[-1]), []
    for device in ('cpu', 'cuda'):
        leaf = student.to(device, copy=True).requires_grad_()
        given = None if weight is None else weight.to(device)
        value = loss(leaf, teacher.to(device), None, given)['loss_rank']
        value.backward()
        results.append((value.detach().cpu(), leaf.grad.cpu()))
    (value, gradient), (other, its_gradient) = results
    torch.testing.assert_close(other, value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        its_gradient,
        gradient,
        rtol=1e-4,
        atol=1e-5 * gradient.abs().max().item(),
    )
