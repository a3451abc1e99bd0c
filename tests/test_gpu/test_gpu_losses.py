"""Every logit loss gives on a GPU what it gives on the CPU."""

import pytest
import torch

from mmrkkd.losses import LOSSES, LogitLoss, Progress, set_progress

pytestmark = pytest.mark.gpu
ROWS, CLASSES = 12, 40
NAMES = sorted(
    name for name, kind in LOSSES.items() if issubclass(kind, LogitLoss)
)
# float64 shows that the same is computed. In float32 standardisation and
# sorted sums lose some digits more than the 1e-7 of a single rounding.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-4}


def batch(loss, dtype):
    """Logits, labels and weights as a loss wants them, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    views = () if loss.views == 1 else (loss.views,)
    student, teacher = 2 * torch.randn(
        2, *views, ROWS, CLASSES, generator=generator, dtype=torch.float64
    )
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    weight = torch.rand(ROWS, generator=generator) + 0.1
    weight[3] = 0
    labels, weight = (
        each.expand(*views, ROWS).clone() for each in (labels, weight)
    )
    return student.to(dtype), teacher.to(dtype), labels, weight


def terms_and_gradient(loss, device, dtype, weighted):
    student, teacher, labels, weight = (
        each.to(device) for each in batch(loss, dtype)
    )
    leaf = student.requires_grad_()
    terms = loss.to(device)(
        leaf, teacher, labels, weight if weighted else None
    )
    sum(value for name, value in terms.items() if 'loss' in name).backward()
    return (
        {name: value.detach().cpu() for name, value in terms.items()},
        leaf.grad.cpu(),
    )


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('name', NAMES)
def test_value_and_gradient_are_those_of_the_cpu(name, dtype, weighted):
    results = []
    for device in ('cpu', 'cuda'):
        torch.manual_seed(0)
        loss = LOSSES[name]()
        # Schedules that begin at 0 are under way.
        set_progress(loss, Progress(epoch=3, iteration=30))
        results.append(terms_and_gradient(loss, device, dtype, weighted))
    (expected, slope), (found, gradient) = results
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert slope.any()
    torch.testing.assert_close(
        gradient, slope, rtol=0, atol=tolerance * slope.abs().max().item()
    )
