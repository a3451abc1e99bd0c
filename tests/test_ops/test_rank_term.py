"""The ranking term as one operator, without a GPU.

The kernels are replaced by the equations; what is counted, and what happens
where Triton fails, is as on a GPU.
"""

import logging

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmrkkd.losses import KendallLoss, RankKDLoss
from mmrkkd.ops import checks, standardize
from mmrkkd.ops.backends import rank_term_fused as module
from mmrkkd.ops.backends.fast_path import FastPath
from mmrkkd.ops.backends.kendall_tau_chunked import kendall_tau_chunked
from mmrkkd.ops.standardize import deviation
from mmrkkd.ops.standardize_eager import standardize_vjp_eager

# Operators that start no kernel on a GPU: views, and memory.
FREE = {
    'alias',
    'detach',
    'empty',
    'empty_like',
    'expand',
    'new_empty',
    'promote_types',
    'select',
    'slice',
    'squeeze',
    't',
    'transpose',
    'unsqueeze',
    'view',
    '_unsafe_view',
    'reshape',
    'is_same_size',
}
# The operator of ours is two kernels.
KERNELS = {'rank_term': 2, 'ones_like': 1}


class Launches(TorchDispatchMode):
    """Counts what a GPU would launch."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in FREE:
            self.names += [name] * KERNELS.get(name, 1)
        return function(*args, **(kwargs or {}))


def by_equations(student, teacher, kept, chosen, weight, divisor, *settings):
    """In float64, without autograd, which an operator is behind."""
    scale, steepness, form, normalize, eps, floor, relative = settings
    columns = slice(None) if kept is None else kept
    mine, other = student[:, columns].double(), teacher[:, columns].double()
    chosen = None if chosen is None else chosen[:, columns]
    if relative:
        floor = floor * deviation(other)
    else:
        floor = torch.full((len(mine),), floor).double()
    pair = mine, other
    if normalize:
        pair = standardize(mine, eps, floor), standardize(other, eps)
    tau, slope = kendall_tau_chunked(*pair, chosen, steepness, form)
    if normalize:
        slope = standardize_vjp_eager(slope, mine, eps, floor)
    share = scale * torch.ones(len(mine))
    if weight is not None:
        share = share * weight
    if divisor is not None:
        share = share / divisor
    gradient = torch.zeros_like(student, dtype=torch.float32)
    gradient[:, columns] = (share.unsqueeze(-1) * slope).float()
    return (share * tau).float(), gradient


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The operator is used, and computed by the equations."""
    import mmrkkd.losses.kendall as loss

    monkeypatch.setattr(checks, 'at_hand', lambda values: False)
    monkeypatch.setattr(module, '_on_device', by_equations)
    monkeypatch.setattr(module, 'usable', lambda *logits: True)
    monkeypatch.setattr(loss, 'usable', lambda *logits: True)
    path = FastPath(lambda: module._term, 'the kernel', 'parts')
    monkeypatch.setattr(module, 'TRITON', path)
    return path


def results(loss, weight, normalizer=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shape = (loss.views, 6, 9) if loss.views > 1 else (6, 9)
    student, teacher = torch.randn(2, *shape, generator=generator).to(dtype)
    leaf = student.requires_grad_()
    with Launches() as seen:
        term = loss(leaf, teacher, None, weight, normalizer)['loss_rank']
        term.backward()
    return term.detach(), leaf.grad, seen.names


WEIGHT = torch.tensor([1.0, 0.5, 0.0, 2.0, 0.0, 1.0])
LOSSES = [
    KendallLoss(),
    KendallLoss(0.9, 2.0, form=3, ignore_channels=[-1, 2]),
    KendallLoss(channel_share=0.5, ignore_channels=[0]),
    KendallLoss(channel_share=0.5, channel_order='min', min_std=0.0),
    KendallLoss(min_std=dict(absolute=2.0), form=2),
    KendallLoss(normalize=False),
    RankKDLoss(),
    RankKDLoss(kd=dict(type='MLKDLoss')),
]


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['even', 'weighted'])
@pytest.mark.parametrize('normalizer', [None, 3.0, torch.tensor(3.0)])
@pytest.mark.parametrize('loss', LOSSES, ids=range(len(LOSSES)))
def test_the_operator_gives_what_the_parts_give(
    loss, weight, normalizer, request
):
    if weight is not None and loss.views > 1:
        weight = weight.expand(loss.views, -1)
    term, gradient, names = results(loss, weight, normalizer)
    assert 'rank_term' not in names
    request.getfixturevalue('as_on_a_gpu')
    fused, its_gradient, names = results(loss, weight, normalizer)
    assert 'rank_term' in names
    torch.testing.assert_close(fused, term, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['even', 'weighted'])
@pytest.mark.usefixtures('as_on_a_gpu')
def test_forward_and_backward_are_at_most_ten_launches(weight, dtype):
    results(KendallLoss(ignore_channels=[-1]), weight, dtype=dtype)
    loss = KendallLoss(ignore_channels=[-1])
    *_, names = results(loss, weight, dtype=dtype)
    assert len(names) <= 10, names


@pytest.mark.usefixtures('as_on_a_gpu')
def test_no_samples_give_zero():
    leaf = torch.zeros(0, 5, requires_grad=True)
    term = KendallLoss()(leaf, torch.zeros(0, 5))['loss_rank']
    term.backward()
    assert term == 0
    assert leaf.grad.shape == (0, 5)


@pytest.mark.usefixtures('as_on_a_gpu')
def test_it_cannot_be_differentiated_twice():
    student, teacher = torch.randn(2, 3, 5)
    student.requires_grad_()
    term = KendallLoss()(student, teacher)['loss_rank']
    (slope,) = torch.autograd.grad(term, student, create_graph=True)
    with pytest.raises(RuntimeError, match='cannot be differentiated twice'):
        slope.sum().backward()


def test_other_types_and_devices_go_the_other_way():
    assert not module.usable(torch.zeros(1, 2), torch.zeros(1, 2))
    assert module.rank_term_fused(*torch.zeros(2, 1, 2), scale=1.0) is None


class Broken(RuntimeError):
    pass


def test_a_path_that_fails_says_so_once_and_is_left(caplog):
    calls = []

    def fails(kind):
        calls.append(kind)
        raise Broken('first line\nno such instruction')

    path = FastPath(lambda: fails, 'the fast one', 'the slow one')
    with caplog.at_level(logging.WARNING):
        assert [path(kind, kind) for kind in (1, 1, 2)] == [None] * 3
    assert calls == [1, 2]
    (record,) = caplog.records
    assert record.getMessage() == (
        'mmrkkd uses the slow one, which is slower: the fast one does not '
        'work here (Broken: no such instruction)'
    )


def test_a_lack_of_memory_and_mistakes_are_raised():
    def fails(error):
        raise error

    path = FastPath(lambda: fails, 'the fast one', 'the slow one')
    for error in (torch.cuda.OutOfMemoryError('full'), TypeError('what')):
        with pytest.raises(type(error)):
            path(0, error)
    assert not path.broken


def test_where_the_kernel_fails_the_parts_are_used(as_on_a_gpu, monkeypatch):
    def fails(*args):
        raise Broken('no device')

    expected = results(KendallLoss(impl='eager'), WEIGHT)
    monkeypatch.setattr(module, '_on_device', fails)
    term, gradient, _ = results(KendallLoss(), WEIGHT)
    assert as_on_a_gpu.broken
    torch.testing.assert_close(term, expected[0])
    torch.testing.assert_close(gradient, expected[1])
