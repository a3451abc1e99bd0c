"""FGFI: maps imitated where anchors are near objects."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmrkkd.losses import FGFILoss
from mmrkkd.losses.feature import FeaturePair

SHAPE = [(1, 2, 2, 2)]


def samples(*boxes):
    return [
        SimpleNamespace(
            gt_instances=SimpleNamespace(
                bboxes=torch.tensor(each).reshape(-1, 4)
            )
        )
        for each in boxes
    ]


def pair(student, teacher, *boxes, anchors=True):
    # Cells of 8 pixels, an anchor on each.
    cells = torch.tensor(
        [
            [[[0, 0, 8, 8]], [[8, 0, 16, 8]]],
            [[[0, 8, 8, 16]], [[8, 8, 16, 16]]],
        ]
    ).float()
    return FeaturePair(
        [student],
        [teacher],
        samples(*boxes),
        (16, 16),
        [cells] if anchors else None,
    )


def made(**options):
    """A loss whose connector hands the map on."""
    loss = FGFILoss('a', connector='conv', **options)
    loss.connect(SHAPE, SHAPE)
    nn.init.dirac_(loss.connectors[0][0].weight)
    return loss


def test_golden_value():
    student, teacher = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    teacher[0, :, 0, 1] = torch.tensor([1.0, 2.0])
    teacher[0, :, 1, 0] = 100.0
    teacher[1, :, 0, 0] = 3.0
    # Image 0: the upper right cell. Image 1: all four, IoU 1/4 each.
    term = made(loss_weight=3.0)(
        pair(student, teacher, [[8.0, 0, 16, 8]], [[0.0, 0, 16, 16]])
    )['loss_fgfi']
    # (1 + 4 + 9 + 9) over two times five cells.
    assert term.item() == pytest.approx(3 * 23 / 10)


def test_images_without_objects_add_nothing():
    student = torch.ones(1, 2, 2, 2, requires_grad=True)
    term = made()(pair(student, torch.zeros(1, 2, 2, 2), []))['loss_fgfi']
    term.backward()
    assert term == 0
    assert (student.grad == 0).all()


def test_first_steps_can_be_left_out():
    from mmrkkd.losses import Progress, set_progress

    loss = made(
        loss_weight=dict(
            type='linear', begin=400, end=401, stop=0.01, by='iteration'
        )
    )
    batch = pair(
        torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), [[0.0] * 2 + [8] * 2]
    )
    values = {}
    for step in (1, 400, 401, 9000):
        set_progress(loss, Progress(iteration=step))
        values[step] = loss(batch)['loss_fgfi'].item()
    assert values[1] == values[400] == 0
    assert values[401] == values[9000] == pytest.approx(0.01 * 2 / 2)


def test_connector_starts_small():
    loss = FGFILoss('a')
    loss.connect([(1, 64, 4, 4)], [(1, 64, 4, 4)])
    conv, _ = loss.connectors[0]
    assert conv.weight.std().item() == pytest.approx(1e-4, rel=0.05)
    assert (conv.bias == 0).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(share=1.0), r'share must be in \(0, 1\), got 1.0'),
        (dict(connector='linear'), 'connector must be one of'),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        FGFILoss('a', **options)


def test_unlike_strides():
    with pytest.raises(
        ValueError, match=r'one stride, got maps of 4 x 4 .* 8'
    ):
        FGFILoss('a').connect([(1, 2, 4, 4)], [(1, 2, 8, 8)])


def test_no_anchors():
    some = torch.zeros(1, 2, 2, 2)
    with pytest.raises(ValueError, match='needs the anchors of its layers'):
        made()(pair(some, some, [], anchors=False))
