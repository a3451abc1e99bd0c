"""The operators on a GPU against float64 on the CPU.

The Triton kernel's own tests (tests/test_ops/test_kendall_tau_triton.py) run
on the GPU too; here is what comes out of the public doors.
"""

import pytest
import torch

from mmrkkd.ops import kendall_tau, soft_rank, standardize
from mmrkkd.ops.backends.kendall_tau_chunked import kendall_tau_chunked

pytestmark = pytest.mark.gpu
SHAPES = [(1, 2), (7, 10), (64, 100), (1024, 81), (16, 1000), (2, 4097)]
# Units of float32 rounding of the largest possible value, as in the
# kernel's own tests; what adding up costs is what it costs the plain form.
BUDGET = 8


def logits(rows, classes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows * classes)
    pair = torch.randn(2, rows, classes, generator=generator).to(dtype)
    return pair[0], pair[1]


def on_gpu(student, teacher, impl):
    """Tau and the student's gradient, back on the CPU in float64."""
    leaf = student.cuda().requires_grad_()
    tau = kendall_tau(leaf, teacher.cuda(), impl=impl)
    tau.sum().backward()
    return tau.detach().cpu().double(), leaf.grad.cpu().double()


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_tau_is_as_exact_as_the_equation_in_float32(shape, dtype):
    student, teacher = logits(*shape, dtype)
    truth, slope = kendall_tau_chunked(
        student.double(), teacher.double(), None, 1.0, 1
    )
    tau, gradient = on_gpu(student, teacher, 'auto')
    plain = on_gpu(student.float(), teacher.float(), 'eager')
    unit = BUDGET * torch.finfo(torch.float32).eps
    allowed = unit + (plain[0] - truth).abs().max()
    assert (tau - truth).abs().max() <= allowed
    # A gradient comes back in the type of its logits.
    half = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps
    steps = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    allowed = (
        2 * unit / shape[1]
        + (plain[1] - slope).abs().max()
        + half * slope.abs()
        + steps
    )
    assert ((gradient - slope).abs() <= allowed).all()


def ranking(student, teacher):
    """A loss of standardised logits, as the ranking loss is."""
    return -kendall_tau(standardize(student), standardize(teacher)).mean()


def test_rows_without_spread_and_one_hot_rows_have_finite_gradients():
    student, teacher = (each.cuda() for each in logits(6, 100))
    student[0], teacher[1] = 3.0, -2.0
    student[2] = teacher[2] = 0.0
    student[3], teacher[4] = 0.0, 0.0
    student[3, 7], teacher[4, 7] = 31.6, 31.6
    leaf = student.requires_grad_()
    ranking(leaf, teacher).backward()
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[[0, 1, 2]].any()
    assert leaf.grad[5].any()


def test_a_row_that_is_not_a_number_stays_alone():
    student, teacher = (each.cuda() for each in logits(5, 100))
    clean = kendall_tau(student, teacher)
    student[2, 3] = torch.nan
    tau = kendall_tau(student, teacher)
    assert tau.isnan().tolist() == [False, False, True, False, False]
    others = [0, 1, 3, 4]
    assert torch.equal(tau[others], clean[others])


def test_auto_reaches_the_kernel_for_rows_that_are_not_contiguous():
    student, teacher = logits(100, 64)
    expected = kendall_tau(student.mT.contiguous(), teacher.mT.contiguous())
    found = kendall_tau(student.cuda().mT, teacher.cuda().mT)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('regularization', [1.0, 0.03])
@pytest.mark.parametrize('shape', [(8, 10), (64, 100)], ids=str)
def test_soft_ranks_are_those_of_the_cpu(shape, regularization):
    values, weights = logits(*shape, torch.float64)
    found = []
    for device in ('cpu', 'cuda'):
        leaf = values.to(device, copy=True).requires_grad_()
        ranks = soft_rank(leaf, regularization=regularization)
        (ranks * weights.to(device)).sum().backward()
        found.append((ranks.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


def test_a_compiled_step_is_one_graph_and_gives_the_same():
    torch._dynamo.reset()
    compiled = torch.compile(ranking, fullgraph=True)
    student, teacher = (each.cuda() for each in logits(64, 100))
    gradients = []
    for function in (ranking, compiled):
        leaf = student.clone().requires_grad_()
        function(leaf, teacher).backward()
        # 2 k / (N C) is the largest that an entry can be before the
        # standardisation, whose deviation here is about 1.
        gradients.append(leaf.grad * leaf.numel() / 2)
    torch.testing.assert_close(gradients[1], gradients[0])
