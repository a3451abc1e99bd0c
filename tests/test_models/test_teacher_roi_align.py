"""RoI Align over a table of places is MMCV's, box by box."""

import pytest
import torch
from mmcv.ops import RoIAlign
from torch import nn

from mmrkkd.distillers.inference.roi_align import roi_align, use_tables

# A place between two cells is off by the rounding of float32 positions of
# up to some hundred cells, times the step between two cells.
TOLERANCE = dict(rtol=0, atol=1e-4)


def hostile_boxes(images, count=200, spread=60):
    """Boxes inside, outside and across the edges, and some without area."""
    generator = torch.Generator().manual_seed(0)
    boxes = spread * torch.randn(count, 4, generator=generator)
    boxes[:, 2:] = boxes[:, :2] + boxes[:, 2:].abs()
    boxes[:20, 2:] = boxes[:20, :2]
    boxes[20:40, 2] = boxes[20:40, 0]
    index = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([index, boxes], 1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 3])
@pytest.mark.parametrize('size', [(2, 3, 9, 5), (1, 2, 1, 4), (2, 1, 1, 1)])
def test_equals_mmcv(size, sampling_ratio, aligned):
    maps = torch.randn(size, generator=torch.Generator().manual_seed(1))
    rois = hostile_boxes(len(maps))
    layer = RoIAlign((7, 4), 0.25, sampling_ratio, aligned=aligned)
    found = roi_align(maps, rois, (7, 4), 0.25, sampling_ratio, aligned)
    torch.testing.assert_close(found, layer(maps, rois), **TOLERANCE)


def test_a_constant_map_gives_its_value():
    # Weights of a bin add up to 1 where all of it is inside.
    rois = torch.tensor([[0.0, 4.0, 4.0, 20.0, 12.0]])
    found = roi_align(torch.full((1, 2, 8, 8), 3.0), rois, (7, 7), 0.25)
    torch.testing.assert_close(found, torch.full((1, 2, 7, 7), 3.0))


def test_channels_last_maps_are_read_as_they_are():
    maps = torch.randn(2, 4, 9, 9)
    rois = hostile_boxes(2)
    assert torch.equal(
        roi_align(maps.to(memory_format=torch.channels_last), rois, (7, 7)),
        roi_align(maps, rois, (7, 7)),
    )


def test_layers_with_gradient_or_without_boxes_run_as_before():
    layer = RoIAlign(7, 0.25, 0)
    model = nn.Sequential(layer, RoIAlign(7, 0.25, 0, pool_mode='max'))
    use_tables(model)
    assert 'forward' not in vars(model[1])
    maps = torch.randn(1, 2, 8, 8, requires_grad=True)
    layer(maps, hostile_boxes(1)).sum().backward()
    assert maps.grad.abs().sum() > 0
    with torch.no_grad():
        assert layer(maps, torch.zeros(0, 5)).shape == (0, 2, 7, 7)
        torch.testing.assert_close(
            layer(maps, hostile_boxes(1)),
            type(layer).forward(layer, maps, hostile_boxes(1)),
            **TOLERANCE,
        )
