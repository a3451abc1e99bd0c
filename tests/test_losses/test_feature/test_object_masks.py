"""Which cells of a map belong to annotated objects, by hand on 4 x 4."""

from types import SimpleNamespace

import pytest
import torch

from mmrkkd.losses.feature import FeaturePair
from mmrkkd.losses.feature.object_masks import (
    cell_ranges,
    inside,
    near_anchors,
    object_boxes,
)

IMAGE, GRID = (16, 16), (4, 4)


def cells(*box, image=IMAGE, grid=GRID):
    return cell_ranges(torch.tensor([box]).float(), image, grid)


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        # On the borders of a cell: that cell and no other.
        ((4, 4, 8, 8), (1, 1, 2, 2)),
        ((3.9, 4, 8.1, 8), (0, 1, 3, 2)),
        ((8, 8, 16, 16), (2, 2, 4, 4)),
        ((5, 6, 7, 7.5), (1, 1, 2, 2)),
    ],
)
def test_cells_that_a_box_touches(box, expected):
    assert cells(*box).tolist() == [list(expected)]


def test_grids_that_are_no_power_of_two():
    # 7 cells of 30 pixels of 210: 90 is the border of cell 3 exactly.
    found = cells(90, 60, 150, 120, image=(210, 210), grid=(7, 7))
    assert found.tolist() == [[3, 2, 5, 4]]


def test_cells_inside():
    found = inside(torch.tensor([[1, 0, 3, 1], [-2, 2, 9, 9]]), GRID).int()
    assert found.tolist() == [
        [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4],
        [[0] * 4, [0] * 4, [1] * 4, [1] * 4],
    ]


def anchors(size):
    """One square anchor around the upper left of each cell of 4 pixels."""
    corner = 4 * torch.stack(
        torch.meshgrid(torch.arange(4), torch.arange(4), indexing='xy'), -1
    )
    return torch.cat([corner - size / 2, corner + size / 2], -1)[:, :, None]


def test_cells_near_an_object():
    # The box is the anchor of row 1, column 2, of side 8: IoU 1. Its
    # neighbours share half of it, 32 / 96, and the diagonal ones a quarter,
    # 16 / 112.
    box = torch.tensor([[4.0, 0.0, 12.0, 8.0]])
    best = near_anchors(anchors(8), box, 0.5).int().tolist()
    assert best == [[0] * 4, [0, 0, 1, 0], [0] * 4, [0] * 4]
    cross = near_anchors(anchors(8), box, 0.3).int().tolist()
    assert cross == [[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0], [0] * 4]


def test_every_object_has_its_own_best_anchor():
    # The second box is so small that no IoU is above 4 / 64.
    boxes = torch.tensor([[4.0, 0.0, 12.0, 8.0], [11.0, 11.0, 13.0, 13.0]])
    found = near_anchors(anchors(8), boxes, 0.9).int().tolist()
    assert found == [[0] * 4, [0, 0, 1, 0], [0] * 4, [0, 0, 0, 1]]


def test_any_anchor_of_a_cell_will_do():
    box = torch.tensor([[4.0, 0.0, 12.0, 8.0]])
    both = torch.cat([anchors(1), anchors(8)], 2)
    assert near_anchors(both, box, 0.5).sum() == 1


def test_many_boxes_are_looked_at_in_parts():
    corners = 16 * torch.rand(40, 2)
    boxes = torch.cat([corners, corners + 1 + 8 * torch.rand(40, 2)], 1)
    whole = [near_anchors(anchors(8), box[None], 0.5) for box in boxes]
    found = near_anchors(anchors(8), boxes, 0.5)
    assert torch.equal(found, torch.stack(whole).any(0))


def test_no_object_and_objects_away_from_all_anchors():
    assert not near_anchors(anchors(8), torch.zeros(0, 4), 0.5).any()
    far = torch.tensor([[90.0, 90.0, 99.0, 99.0]])
    assert not near_anchors(anchors(8), far, 0.5).any()


def test_boxes_of_samples():
    boxes = torch.tensor([[1, 2, 3, 4]])
    wrapped = SimpleNamespace(tensor=boxes)
    samples = [
        SimpleNamespace(gt_instances=SimpleNamespace(bboxes=each))
        for each in (boxes, wrapped)
    ]
    features = [torch.zeros(2, 1, 4, 4)]
    pair = FeaturePair(features, features, samples, IMAGE)
    for found in object_boxes('L', pair):
        assert torch.equal(found, boxes.float())
    pair.input_shape = None
    with pytest.raises(ValueError, match='L needs the size of the input'):
        object_boxes('L', pair)
    pair.samples = [SimpleNamespace(), samples[0]]
    with pytest.raises(ValueError, match=r'for detectors; got 2 .* 1 of them'):
        object_boxes('L', pair)
    pair.samples = ()
    with pytest.raises(ValueError, match='got 0 samples, 0 of them'):
        object_boxes('L', pair)
