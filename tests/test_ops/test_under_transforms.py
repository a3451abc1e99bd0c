"""The operators inside what PyTorch does to whole functions.

Each operator has its own tests of torch.compile and vmap; here are all of
them in one function, as a training step has them. Processes of a
distributed run are tested with whole models. What a CUDA graph cannot hold
is impl='approx', which asks the GPU for numbers on the way.
"""

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from mmrkkd.ops import kendall_tau, soft_rank, standardize


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def ranking(student: Tensor, teacher: Tensor) -> Tensor:
    """A loss of standardised logits, as the ranking loss is."""
    tau = kendall_tau(standardize(student), standardize(teacher))
    return -tau.mean()


def everything(student: Tensor, teacher: Tensor) -> Tensor:
    """All differentiable operators, among operations of PyTorch's."""
    ranks = soft_rank(standardize(student) * 2, regularization=0.05)
    targets = soft_rank(standardize(teacher) * 2, regularization=0.05)
    return ranking(student, teacher) + (ranks - targets).square().mean()


@pytest.mark.parametrize(
    'backend',
    ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)],
)
def test_a_compiled_step_is_one_graph_and_gives_the_same(backend):
    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, backend=backend)
    student, teacher = torch.randn(2, 6, 17)
    gradients = []
    for function in (everything, compiled):
        leaf = student.clone().requires_grad_()
        function(leaf, teacher).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(
        compiled(student, teacher), everything(student, teacher)
    )
    torch.testing.assert_close(gradients[1], gradients[0])


def test_vmap_over_gradients_is_a_loop_over_them():
    student, teacher = torch.randn(2, 5, 3, 11)
    gradient = torch.func.grad(everything)
    by_vmap = torch.func.vmap(gradient)(student, teacher)
    by_loop = torch.stack([gradient(*pair) for pair in zip(student, teacher)])
    torch.testing.assert_close(by_vmap, by_loop)


def test_a_checkpointed_function_gives_the_same_gradient():
    student, teacher = torch.randn(2, 6, 17)
    gradients = []
    for checkpointed in (False, True):
        leaf = student.clone().requires_grad_()
        loss = (
            torch.utils.checkpoint.checkpoint(
                everything, leaf, teacher, use_reentrant=False
            )
            if checkpointed
            else everything(leaf, teacher)
        )
        loss.backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_ranking_on_new_logits():
    student = torch.randn(64, 100, device='cuda', requires_grad=True)
    teacher = torch.randn(64, 100, device='cuda')
    # The first call compiles the kernel, which must not be captured.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(ranking(student, teacher), student)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ranking(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
    for _ in range(2):
        with torch.no_grad():
            student.copy_(torch.randn_like(student))
            teacher.copy_(torch.randn_like(teacher))
        graph.replay()
        expected = ranking(student, teacher)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            gradient, torch.autograd.grad(expected, student)[0]
        )
