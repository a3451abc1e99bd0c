"""How many kernels the ranking term launches on a GPU.

tests/test_ops/test_rank_term.py counts the same on a CPU, by dispatch.
"""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmrkkd.losses import KendallLoss, RankKDLoss

pytestmark = pytest.mark.gpu
MOST = 10
SHAPES = [(64, 1000), (1024, 81)]


def launched(function):
    """The names of the kernels that a function launches, warmed up."""
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        function()
        torch.cuda.synchronize()
    return [
        event.key
        for event in seen.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]


def step(loss, shape, weighted, dtype=torch.float32):
    student, teacher = torch.randn(2, *shape, device='cuda', dtype=dtype)
    student.requires_grad_()
    weight = torch.rand(shape[0], device='cuda') if weighted else None

    def forward_and_backward():
        student.grad = None
        loss(student, teacher, None, weight)['loss_rank'].backward()

    return forward_and_backward


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_the_ranking_term_launches_at_most_ten(shape, weighted, dtype):
    names = launched(step(KendallLoss(), shape, weighted, dtype))
    print(f'{len(names)} launches:', *names, sep='\n  ')
    assert 0 < len(names) <= MOST


@pytest.mark.parametrize('loss', [KendallLoss(), RankKDLoss()], ids=repr)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_nothing_waits(loss, shape):
    run = step(loss, shape, weighted=True)
    run()
    torch.cuda.set_sync_debug_mode('error')
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode('default')
