"""FGD: objects and background apart, and the relations of all cells."""

from types import SimpleNamespace

import pytest
import torch

from mmrkkd.losses import FGDLoss
from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.fgd import GlobalContext

TEACHER = torch.tensor([[1.0, -1.0, 0.0, 2.0], [0.0, 1.0, 1.0, -1.0]])
STUDENT = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
RETINANET = dict(
    foreground_weight=1e-3,
    background_weight=5e-4,
    attention_weight=5e-4,
    relation_weight=5e-6,
)
ONES = dict.fromkeys(RETINANET, 1.0)


def sample(*boxes, shape=(16, 16)):
    return SimpleNamespace(
        gt_instances=SimpleNamespace(
            bboxes=torch.tensor(boxes).reshape(-1, 4)
        ),
        metainfo=dict(img_shape=shape),
    )


def mask(*boxes, image=(16, 16), shape=(16, 16), grid=(4, 4), **options):
    loss = FGDLoss('a', **options)
    pair = FeaturePair([], [], [sample(*boxes, shape=shape)], image)
    return loss._masks(
        torch.tensor(boxes).reshape(-1, 4).float(), pair, 0, grid
    )


def terms(*boxes, **options):
    loss = FGDLoss('a', **options)
    loss.connect([(1, 2, 2, 2)], [(1, 2, 2, 2)])
    pair = FeaturePair(
        [STUDENT.view(1, 2, 2, 2)],
        [TEACHER.view(1, 2, 2, 2)],
        [sample(*boxes)],
        (16, 16),
    )
    return {name: value.item() for name, value in loss(pair).items()}


def test_mask_of_a_box_on_cell_borders():
    assert mask([4.0, 4, 8, 8]).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_mask_of_the_smallest_object_of_each_cell():
    found = mask([4.0, 4, 8, 8], [0.0, 0, 12, 12], [8.0, 8, 16, 16])
    ninth, quarter = pytest.approx(1 / 9), 1 / 4
    assert found.tolist() == [
        [ninth, ninth, ninth, 0],
        [ninth, 1, ninth, 0],
        [ninth, ninth, quarter, quarter],
        [0, 0, quarter, quarter],
    ]


def test_released_mask_has_a_row_and_a_column_too_many():
    quarter = 1 / 4
    assert mask([4.0, 4, 8, 8], mend_slips=False).tolist() == [
        [0, 0, 0, 0],
        [0, quarter, quarter, 0],
        [0, quarter, quarter, 0],
        [0, 0, 0, 0],
    ]
    # What lies beside the map counts in the 3 x 3 cells of the box.
    found = mask([8.0, 8, 16, 16], mend_slips=False)
    assert found[2:, 2:].flatten().tolist() == [pytest.approx(1 / 9)] * 4
    assert found.sum().item() == pytest.approx(4 / 9)


def test_released_mask_is_stretched_over_the_padding():
    # An image 16 wide, padded to 32: 8 columns of 4 pixels each.
    place = dict(image=(16, 32), shape=(16, 16), grid=(4, 8))
    columns = mask([4.0, 0, 8, 4], **place).any(0).nonzero().flatten()
    assert columns.tolist() == [1]
    columns = mask([4.0, 0, 8, 4], mend_slips=False, **place).any(0)
    assert columns.nonzero().flatten().tolist() == [2, 3, 4]


def test_no_boxes():
    assert mask().tolist() == [[0] * 4] * 4


def test_golden_value():
    # The box covers the right column of the 2 x 2 map.
    found = terms([8.0, 0, 16, 16], **ONES)
    assert found == dict(
        loss_fgd_foreground=pytest.approx(3.0001892, abs=1e-6),
        loss_fgd_background=pytest.approx(0.2056470, abs=1e-6),
        loss_fgd_attention=pytest.approx(3.4866582, abs=1e-6),
        loss_fgd_relation=pytest.approx(4.0),
    )
    found = terms([8.0, 0, 16, 16], **RETINANET)
    assert sum(found.values()) == pytest.approx(0.0048663417, abs=1e-9)


def test_attention_of_cells_and_channels():
    e = torch.tensor(1.0).exp().item()
    cells, channels = FGDLoss('a')._attention(TEACHER.view(1, 2, 2, 2))
    # Means over the channels 1/2, 1, 1/2 and 3/2, doubled by T = 1/2.
    total = 2 * e + e**2 + e**3
    expected = [4 * v / total for v in (e, e**2, e, e**3)]
    assert cells.flatten().tolist() == pytest.approx(expected)
    # Means over the cells 1 and 3/4.
    assert channels.flatten().tolist() == pytest.approx(
        [1.244919, 0.755081], abs=1e-6
    )


def test_image_without_objects_is_background():
    found = terms(**ONES)
    assert found['loss_fgd_foreground'] == 0
    assert found['loss_fgd_background'] > 0
    covered = terms([0.0, 0, 16, 16], **ONES)
    assert covered['loss_fgd_background'] == 0


def test_masks_count_the_cells_of_the_students_whole_map():
    """The teacher's narrower map cuts, it does not stretch."""
    loss = FGDLoss('a', **ONES)
    loss.connect([(1, 1, 4, 4)], [(1, 1, 4, 4)])
    student, teacher = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 3)
    teacher[..., 1, 1] = 3.0
    pair = FeaturePair(
        [student], [teacher], [sample([4.0, 4, 8, 8])], (16, 16)
    )
    assert loss(pair)['loss_fgd_background'] == 0
    assert loss(pair)['loss_fgd_foreground'] > 0


def test_masks_of_odd_maps_have_the_cells_of_the_teachers_stride():
    """25 cells of 8 pixels, 13 of 16: a box on borders of the latter."""
    loss = FGDLoss('a', **ONES)
    loss.connect([(1, 1, 16, 16)], [(1, 1, 8, 8)])
    sides = loss.connectors[0].sides(torch.zeros(1, 1, 25, 25))
    boxes = torch.tensor([[160.0, 160, 192, 192]])
    pair = FeaturePair([], [], input_shape=(200, 200))
    mask = loss._masks(boxes, pair, 0, sides)
    expected = torch.zeros(12, 12)
    expected[10:, 10:] = 0.25
    assert torch.equal(mask, expected)


def test_context_starts_as_the_identity_and_learns():
    block = GlobalContext(4)
    features = torch.randn(2, 4, 3, 3)
    assert torch.equal(block(features), features)
    (block(features) - 1).square().sum().backward()
    assert block.transform[-1].weight.grad.abs().sum() > 0


def test_both_contexts_are_learned():
    loss = FGDLoss('a')
    loss.connect([(1, 2, 2, 2)], [(1, 3, 2, 2)])
    pair = FeaturePair(
        [torch.randn(1, 2, 2, 2)],
        [torch.randn(1, 3, 2, 2)],
        [sample([8.0, 0, 16, 16])],
        (16, 16),
    )
    sum(loss(pair).values()).backward()
    assert all(p.grad is not None for p in loss.parameters())
    assert loss.connectors[0].channels.weight.shape == (3, 2, 1, 1)
